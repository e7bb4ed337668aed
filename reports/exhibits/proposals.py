"""What the proposal network starts from and ends with: anchors at one place, objectness, and the best proposals."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import INK, MUTED, Figures, figure
from reports.load import StudyResults
from reports.text.labels import and_list, plural
from reports.text.markup import Marked, escape, paragraphs

ROWS = 3  # sample images that are drawn
SIZES = ("#FFF04D", "#00C08B", "#0090FF", "#C77DFF", "#FF4F6B")  # of anchors, the smallest first
BEST = 6  # proposals of an image that are drawn
COVERED, BESIDE, TRUTH = "#0090FF", "#FFB000", "#FFFFFF"
ENOUGH = 0.5  # IoU from which a proposal covers an object


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study, content = analysis.study, exhibit.content
    shown = [(image, path) for image, path in study.sample_images() if _entry(content, image)][:ROWS]
    if not shown or study.ground_truth is None:
        return Marked("## Anchors and proposals\n\nThe sample images are not there, so nothing is drawn.")
    _draw_anchors(study, content, *shown[0], figures)
    _draw_proposals(study, content, shown, figures)
    arms = content["arms"].values()
    counts = [f"{len(arm['cell_anchors'])} at each cell of stride {arm['stride']}" for arm in arms]
    return paragraphs(
        Marked("## Anchors and proposals"),
        Marked("![The anchors of one cell](figures/anchors.png)"),
        Marked(
            f"*Where the network starts: anchors, boxes of fixed sizes and shapes, {and_list(counts)}. Here are those "
            f"of the cell that is nearest the middle of an object; a colour is a size, the root of the box's area. The "
            f"network scores each anchor and corrects its box.*"
        ),
        Marked(f"![Objectness and the best proposals on {study.evaluated}](figures/proposals.png)"),
        Marked(
            f"*What it ends with, under each arm (seed {escape(content['seed'])}). Left: objectness, the score of "
            f"every cell's best anchor, drawn over the image. A cell is drawn around the pixel on which it stands, the "
            f"first one on pixel 0, so the map ends half a cell short of the right and the lower edge. Right: the "
            f"{plural(BEST, 'best proposal')} of the image, blue where they cover an object at an IoU of {ENOUGH:g}, "
            f"amber where they do not; objects are dashed white. Nothing here knows classes yet.*"
        ),
    )


def _entry(content: dict[str, Any], image_id: int) -> dict[str, dict[str, Any]]:
    """What each arm has on an image, by arm; empty where it is not in the exhibit."""
    return {
        arm: entry
        for arm, results in content["arms"].items()
        for entry in results["images"]
        if entry["image_id"] == image_id
    }


def _objects(study: StudyResults, image_id: int) -> np.ndarray:
    """xyxy boxes [n, 4] of the image's objects."""
    items = (study.ground_truth or {})["annotations"]
    boxes = [item["bbox"] for item in items if item["image_id"] == image_id and not item.get("iscrowd")]
    corners = np.array(boxes, dtype=float).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def _draw_anchors(study: StudyResults, content: dict[str, Any], image_id: int, path: Path, figures: Figures) -> None:
    entries, boxes = _entry(content, image_id), _objects(study, image_id)
    pixels = np.asarray(Image.open(path).convert("L"))
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    middle = boxes[np.argsort(areas)[len(areas) // 2]] if len(boxes) else np.array([0, 0, *pixels.shape[::-1]])
    centre = (middle[:2] + middle[2:]) / 2
    drawn, [row] = figure(1, len(entries), width=3.4 * len(entries), height=3.5, gridspec_kw={"wspace": 0.05})
    for axes, (arm, entry) in zip(row, entries.items(), strict=True):
        results, scale = content["arms"][arm], np.array(entry["scale"])
        step = results["stride"] * scale
        _background(axes, pixels)
        rows, columns = np.indices(np.shape(entry["objectness"]))
        x, y = columns * step[0], rows * step[1]
        inside = (x <= pixels.shape[1]) & (y <= pixels.shape[0])
        axes.plot(x[inside], y[inside], ".", color="white", markersize=2.2, alpha=0.8)
        place = np.tile(np.round(centre / step) * step, 2)
        anchors = np.array(results["cell_anchors"]) * np.tile(scale, 2)
        sizes = _sizes(anchors)
        for anchor, size in zip(anchors + place, sizes, strict=True):
            _box(axes, anchor, SIZES[int(np.searchsorted(np.unique(sizes), size)) % len(SIZES)], 1.2)
        axes.plot(*place[:2], "o", color="white", markeredgecolor=INK, markersize=5)
        _frame(axes, pixels)
        axes.set_title(study.label(arm), loc="center")
    sizes = np.unique(_sizes(np.concatenate([np.array(arm["cell_anchors"]) for arm in content["arms"].values()])))
    handles = [
        Line2D([], [], color=SIZES[index % len(SIZES)], linewidth=3, label=f"{size:g} px")
        for index, size in enumerate(sizes)
    ]
    handles.append(Line2D([], [], marker="o", color=MUTED, markersize=3, linestyle="none", label="a cell"))
    drawn.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.1), ncols=len(handles))
    figures.save(drawn, "anchors", vector=False)


def _draw_proposals(
    study: StudyResults, content: dict[str, Any], shown: list[tuple[int, Path]], figures: Figures
) -> None:
    arms = list(content["arms"])
    columns = 2 * len(arms)
    drawn, grid = figure(
        len(shown),
        columns,
        width=2.3 * columns,
        height=2.4 * len(shown),
        gridspec_kw={"wspace": 0.04, "hspace": 0.04},
    )
    for row, (image_id, path) in zip(grid, shown, strict=True):
        pixels, boxes, entries = (
            np.asarray(Image.open(path).convert("L")),
            _objects(study, image_id),
            _entry(content, image_id),
        )
        for index, arm in enumerate(arms):
            _objectness(row[2 * index], pixels, entries[arm], content["arms"][arm]["stride"])
            _background(row[2 * index + 1], pixels)
            for proposal in reversed(entries[arm]["proposals"][:BEST]):
                covers = len(boxes) > 0 and _ious(np.array(proposal), boxes).max() >= ENOUGH
                _box(row[2 * index + 1], proposal, COVERED if covers else BESIDE, 1.6)
            for axes in row[2 * index : 2 * index + 2]:
                for box in boxes:
                    _box(axes, box, TRUTH, 1.1, (0, (2, 2)))
                _frame(axes, pixels)
    for index, arm in enumerate(arms):
        for offset, what in enumerate(("objectness", "best proposals")):
            grid[0][2 * index + offset].set_title(f"{study.label(arm)}\n{what}", loc="center", fontsize=9)
    handles = [
        Line2D([], [], color=COVERED, linewidth=2, label="covers an object"),
        Line2D([], [], color=BESIDE, linewidth=2, label="does not"),
    ]
    drawn.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.09), ncols=2)
    figures.save(drawn, "proposals", vector=False)


def _objectness(axes: Axes, pixels: np.ndarray, entry: dict[str, Any], stride: int) -> None:
    """The map over the image; cell i is centred on pixel stride x i, so it reaches half a stride to both sides."""
    scores = np.array(entry["objectness"])
    across, down = (stride * scale for scale in entry["scale"])
    height, width = scores.shape
    _background(axes, pixels)
    extent = (-across / 2, (width - 0.5) * across, (height - 0.5) * down, -down / 2)
    axes.imshow(scores, extent=extent, cmap="magma", vmin=0, vmax=1, alpha=0.65, interpolation="nearest")


def _background(axes: Axes, pixels: np.ndarray) -> None:
    height, width = pixels.shape
    axes.imshow(pixels, extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=255, interpolation="none")


def _frame(axes: Axes, pixels: np.ndarray) -> None:
    axes.set_xlim(0, pixels.shape[1])
    axes.set_ylim(pixels.shape[0], 0)
    axes.set_axis_off()


def _box(axes: Axes, box: Any, colour: str, width: float, dashes: Any = "-") -> None:
    corners, size = (box[0], box[1]), (box[2] - box[0], box[3] - box[1])
    drawn = Rectangle(corners, *size, fill=False, edgecolor=colour, linewidth=width, linestyle=dashes)
    drawn.set_path_effects([patheffects.withStroke(linewidth=width + 0.7, foreground=INK)])
    axes.add_patch(drawn)


def _sizes(boxes: np.ndarray) -> np.ndarray:
    """[n]: roots of the areas of boxes [n, 4], in whole pixels."""
    return np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)).round()


def _ious(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[n]: intersection over union of a box [4] with others [n, 4]."""
    shared = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(axis=1)
    areas = [(corners[..., 2:] - corners[..., :2]).prod(axis=-1) for corners in (box, others)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
