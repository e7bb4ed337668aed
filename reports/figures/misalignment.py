"""Why rounding hurts: one region of interest on the feature grid, and how far RoIPool moves what it reads.

Frame: pixels of the images as the network gets them, resized where a study's data say so. Cell i of a map of stride s
stands on pixel s x i, where the convolutions put it and where RoIAlign (without `aligned`) looks for it; as an area it
reaches half a stride to both sides.
Letters: P bins along an axis, S samples in a bin.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from data.images import fitted_size
from ops.geometry import align_interval, num_samples, pool_bins, sample_positions
from reports.figures.style import COLOURS, INK, MUTED, despine, figure, save
from reports.load import StudyResults

POOL, ALIGN = COLOURS[0], COLOURS[1]
ARROW = COLOURS[2]


@dataclass(frozen=True)
class Displacements:
    """How far RoIPool's bins stand from where they should, over all ground-truth boxes of the validation images.

    stride -> pixels; chosen: of the drawn box; shares: the median as a share of the object's side.
    """

    medians: dict[int, float]
    ninetieths: dict[int, float]
    shares: dict[int, float]
    chosen: dict[int, float]
    num_boxes: int
    bins: int


def applies(study: StudyResults) -> bool:
    """Whether the study compares RoI operators: only then has this picture anything to explain."""
    return "roi" in study.record.factors and bool(strides(study))


def strides(study: StudyResults) -> list[int]:
    found = {arm.factors.get("stride") for arm in study.record.arms.values()}
    found |= {run.config.get("stride") for run in study.runs.values()} if found == {None} else set()
    return sorted(stride for stride in found if isinstance(stride, int) and stride > 0)


def bin_centres(low: float, high: float, bins: int, length: int, stride: int) -> tuple[list[float], list[float]]:
    """Along one axis, in pixels: the P centres that RoIAlign reads, and the P that RoIPool reads (NaN: an empty bin).

    low, high: the box's ends in pixels; length: cells of the map along the axis.
    """
    start, size = align_interval(low / stride, high / stride, aligned=False)
    wanted = [stride * float(np.mean(row)) for row in sample_positions(start, size, bins, 2)]
    read = [
        stride * (first + last - 1) / 2 if last > first else math.nan
        for first, last in pool_bins(low / stride, high / stride, bins, length)
    ]
    return wanted, read


def displacement(box: list[float], size: tuple[int, int], bins: int, stride: int) -> float:
    """Mean distance in pixels, over the P x P bins, between what RoIPool reads and where the bin is.

    box: x, y, width, height; size: the image's width and height. NaN when every bin is empty.
    """
    x, y, width, height = box
    across = np.subtract(*bin_centres(x, x + width, bins, math.ceil(size[0] / stride), stride))
    down = np.subtract(*bin_centres(y, y + height, bins, math.ceil(size[1] / stride), stride))
    distances = np.hypot(across[None, :], down[:, None])
    return float(np.nanmean(distances)) if np.isfinite(distances).any() else math.nan


def why(study: StudyResults, folder: Path, name: str = "why") -> Displacements | None:
    """Draws the picture; None when the study has no ground truth or none of its sample images is there."""
    truth, shown = study.ground_truth, dict(study.sample_images())
    if truth is None or not shown or not applies(study):
        return None
    sizes, boxes = resized(truth, study.record.config.get("data", {}))
    bins = _bins(study)
    moved = {
        stride: np.array([displacement(item["bbox"], sizes[item["image_id"]], bins, stride) for item in boxes])
        for stride in strides(study)
    }
    medians = {stride: float(np.nanmedian(values)) for stride, values in moved.items()} if boxes else {}
    sides = np.array([math.sqrt(item["bbox"][2] * item["bbox"][3]) for item in boxes])
    chosen = _choose(boxes, sides, moved, medians, set(shown))
    if chosen is None:
        return None
    facts = Displacements(
        medians=medians,
        ninetieths={stride: float(np.nanpercentile(values, 90)) for stride, values in moved.items()},
        shares={stride: float(np.nanmedian(values / sides)) for stride, values in moved.items()},
        chosen={stride: float(values[chosen]) for stride, values in moved.items()},
        num_boxes=len(boxes),
        bins=bins,
    )
    item = boxes[chosen]
    pixels = np.asarray(Image.open(shown[item["image_id"]]).convert("L"))
    _draw(item["bbox"], sizes[item["image_id"]], pixels, moved, facts, folder, name)
    return facts


def resized(truth: dict[str, Any], data: dict[str, Any]) -> tuple[dict[int, tuple[int, int]], list[dict[str, Any]]]:
    """Image id -> width and height, and the objects with an area, both as the network gets them.

    data: the recorded settings of the data; drawn images, which have no `image_size`, stay as they are.
    """
    sizes, factors = {}, {}
    for image in truth["images"]:
        height, width = image["height"], image["width"]
        if "image_size" in data:
            height, width = fitted_size(height, width, data["image_size"], data["max_size"])
        sizes[image["id"]] = (width, height)
        factors[image["id"]] = (width / image["width"], height / image["height"])
    boxes = []
    for item in truth["annotations"]:
        if not item.get("iscrowd") and min(item["bbox"][2:]) > 0:
            scaled = [value * factor for value, factor in zip(item["bbox"], 2 * factors[item["image_id"]], strict=True)]
            boxes.append({**item, "bbox": scaled})
    return sizes, boxes


def _choose(
    boxes: list[dict[str, Any]],
    sides: np.ndarray,
    moved: dict[int, np.ndarray],
    medians: dict[int, float],
    shown: set[int],
) -> int | None:
    """Index of the box on a sample image whose size and displacements, over all strides, are nearest the medians.

    Boxes narrower than a cell come last: RoIAlign stretches them to one, which is not what is to be shown.
    """
    best, least = None, (True, math.inf)
    for index, item in enumerate(boxes):
        far = abs(sides[index] / np.median(sides) - 1)
        far += sum(abs(moved[stride][index] / (medians[stride] or 1.0) - 1) for stride in moved)
        rank = (min(item["bbox"][2:]) < max(moved), float(far))
        if item["image_id"] in shown and rank < least:
            best, least = index, rank
    return best


def _align_error(box: list[float], bins: int, stride: int) -> float:
    """Mean distance between RoIAlign's bins and the box's own; not 0 only for a box narrower than a cell, which
    RoIAlign stretches to one."""
    errors = []
    for low, extent in ((box[0], box[2]), (box[1], box[3])):
        wanted = low + extent * (np.arange(bins) + 0.5) / bins
        errors.append(np.array(bin_centres(low, low + extent, bins, 1, stride)[0]) - wanted)
    return float(np.hypot(errors[0][None, :], errors[1][:, None]).mean())


def _bins(study: StudyResults) -> int:
    """P, from the recorded configuration; the paper's 7 where it does not say."""
    model = study.record.config.get("model", {})
    value = model.get("pooled_size") if isinstance(model, dict) else None
    return value if isinstance(value, int) and value > 0 else 7


def _draw(
    box: list[float],
    size: tuple[int, int],
    pixels: np.ndarray,
    moved: dict[int, np.ndarray],
    facts: Displacements,
    folder: Path,
    name: str,
) -> None:
    drawn, grid = figure(
        len(moved),
        3,
        width=11,
        height=3.75 * len(moved) + 0.3,
        layout="constrained",
        gridspec_kw={"width_ratios": [1, 1, 0.95]},
    )
    window = _window(box, max(moved))
    most = max(float(np.nanmax(values)) for values in moved.values())
    for row, (stride, values) in zip(grid, moved.items(), strict=True):
        for axes in row[:2]:
            axes.imshow(
                pixels,
                extent=(0, size[0], size[1], 0),
                cmap="gray",
                vmin=-300,
                vmax=255,
                interpolation="nearest",
            )
            _cells(axes, size, stride)
            axes.set(xlim=window[:2], ylim=window[2:])
            axes.set_xticks([])
            axes.set_yticks([])
            despine(axes, "left", "bottom")
        _pool_panel(row[0], box, size, facts.bins, stride)
        _align_panel(row[1], box, facts.bins, stride)
        _histogram(row[2], values, facts, stride, most)
        row[0].set_ylabel(f"stride {stride}", fontsize=11, fontweight="bold")
        row[0].set_xlabel(f"on average {facts.chosen[stride]:.1f} px off")
        row[1].set_xlabel(f"on average {_align_error(box, facts.bins, stride):.1f} px off")
    grid[0][0].set_title("RoIPool rounds the box to cells")
    grid[0][1].set_title("RoIAlign samples between them")
    grid[0][2].set_title("How far RoIPool's bins are off")
    drawn.legend(handles=_handles(), loc="outside lower center", ncols=3, fontsize=8.5)
    save(drawn, folder, name)


def _window(box: list[float], stride: int) -> tuple[float, float, float, float]:
    """A square around the box with room for what rounding adds at the coarsest stride: left, right, bottom, top."""
    x, y, width, height = box
    half = max(width, height) / 2 + 1.15 * stride
    return x + width / 2 - half, x + width / 2 + half, y + height / 2 + half, y + height / 2 - half


def _cells(axes: Axes, size: tuple[int, int], stride: int) -> None:
    """The map's cells: their borders, and a dot where each one stands."""
    columns, rows = math.ceil(size[0] / stride), math.ceil(size[1] / stride)
    for edge in range(columns + 1):
        axes.plot([stride * (edge - 0.5)] * 2, [-stride / 2, stride * (rows - 0.5)], color="white", linewidth=0.7)
    for edge in range(rows + 1):
        axes.plot([-stride / 2, stride * (columns - 0.5)], [stride * (edge - 0.5)] * 2, color="white", linewidth=0.7)
    x, y = np.meshgrid(stride * np.arange(columns), stride * np.arange(rows))
    axes.plot(x.ravel(), y.ravel(), "o", color="white", markersize=3.2, markeredgecolor=MUTED, markeredgewidth=0.6)


def _true_box(axes: Axes, box: list[float]) -> None:
    axes.add_patch(Rectangle((box[0], box[1]), box[2], box[3], fill=False, edgecolor=INK, linewidth=2, zorder=4))


def _pool_panel(axes: Axes, box: list[float], size: tuple[int, int], bins: int, stride: int) -> None:
    """The rounded box, its bins as brackets (two rows of them, as neighbours overlap), and where each bin has gone."""
    x, y, width, height = box
    across = pool_bins(x / stride, (x + width) / stride, bins, math.ceil(size[0] / stride))
    down = pool_bins(y / stride, (y + height) / stride, bins, math.ceil(size[1] / stride))
    left, right = (stride * (edge - 0.5) for edge in (across[0][0], across[-1][1]))
    top, bottom = (stride * (edge - 0.5) for edge in (down[0][0], down[-1][1]))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor=POOL, alpha=0.3, linewidth=0))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=POOL, linewidth=2.4))
    span = abs(axes.get_xlim()[1] - axes.get_xlim()[0])
    for index, (first, last) in enumerate(across):
        level = top - span * (0.022 + 0.022 * (index % 2))
        axes.plot(
            [stride * (first - 0.5) + 0.6, stride * (last - 0.5) - 0.6],
            [level] * 2,
            color=INK,
            linewidth=1.8,
            solid_capstyle="butt",
        )
    for index, (first, last) in enumerate(down):
        level = left - span * (0.022 + 0.022 * (index % 2))
        axes.plot(
            [level] * 2,
            [stride * (first - 0.5) + 0.6, stride * (last - 0.5) - 0.6],
            color=INK,
            linewidth=1.8,
            solid_capstyle="butt",
        )
    _true_box(axes, box)
    columns = bin_centres(x, x + width, bins, math.ceil(size[0] / stride), stride)
    rows = bin_centres(y, y + height, bins, math.ceil(size[1] / stride), stride)
    starts, ends = (np.stack(np.meshgrid(columns[which], rows[which])) for which in (0, 1))
    axes.quiver(
        *starts,
        *(ends - starts),
        angles="xy",
        scale_units="xy",
        scale=1,
        units="inches",
        width=0.014,
        headwidth=4.5,
        headlength=5,
        headaxislength=5,
        color=ARROW,
        zorder=5,
    )


def _align_panel(axes: Axes, box: list[float], bins: int, stride: int) -> None:
    """The box itself, cut into P x P bins, with the points that are sampled in each (2 x 2, as in the paper)."""
    x, y, width, height = box
    across: list[float] = []
    down: list[float] = []
    for low, extent, found in ((x, width, across), (y, height, down)):
        start, size = align_interval(low / stride, (low + extent) / stride, aligned=False)
        positions = sample_positions(start, size, bins, num_samples(size, bins, 2))
        found += [stride * position for row in positions for position in row]
        edges = [stride * (start + index * size / bins) for index in range(bins + 1)]
        for edge in edges:
            line = ([edge] * 2, [y, y + height]) if found is across else ([x, x + width], [edge] * 2)
            axes.plot(*line, color=ALIGN, linewidth=0.8, alpha=0.8)
    sampled_x, sampled_y = np.meshgrid(across, down)
    axes.plot(sampled_x.ravel(), sampled_y.ravel(), "o", color=ALIGN, markersize=2.4, markeredgewidth=0, zorder=5)
    _true_box(axes, box)


def _histogram(axes: Axes, values: np.ndarray, facts: Displacements, stride: int, most: float) -> None:
    edges = np.linspace(0, math.ceil(most), 33)
    counts = np.histogram(values[np.isfinite(values)], edges)[0] / max(1, np.isfinite(values).sum())
    axes.stairs(100 * counts, edges, fill=True, color=POOL)
    axes.axvline(facts.medians[stride], color=INK, linewidth=1.6)
    axes.annotate(
        f"median {facts.medians[stride]:.1f} px",
        (facts.medians[stride], 1),
        (5, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        fontweight="bold",
    )
    axes.plot(
        [facts.chosen[stride]],
        [0],
        "v",
        color=ARROW,
        markersize=8,
        clip_on=False,
        zorder=6,
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlim(0, math.ceil(most))
    axes.set_ylim(0, 122 * max(counts.max(), 0.01))
    axes.set_ylabel("% of objects")
    axes.set_xlabel("mean distance over an object's bins (pixels)")
    axes.grid(axis="y")


def _handles() -> list[Line2D | Rectangle]:
    return [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=2, label="the object's box"),
        Rectangle((0, 0), 1, 1, facecolor="#f4deb0", edgecolor=POOL, linewidth=2.2, label="the box after rounding"),
        Line2D([], [], color=INK, linewidth=1.8, label="RoIPool's bins along each side (they overlap)"),
        Line2D([], [], color=ARROW, marker=">", markersize=5, label="from where a bin is to what RoIPool reads"),
        Line2D([], [], color=ALIGN, linestyle="none", marker="o", markersize=3, label="RoIAlign's sampling points"),
        Line2D([], [], color=ARROW, linestyle="none", marker="v", markersize=7, label="the object that is drawn"),
    ]
