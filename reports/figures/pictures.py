"""The sample images under each arm: the same validation images, chosen before training, with the masks drawn on them.

An object has one colour in the whole row: a detection takes the colour of the ground-truth object that it covers best.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from ablations.evaluation.cocoapi import decode
from reports.figures.style import INK, figure, save
from reports.load import StudyResults

SCORE = 0.5  # detections below this are not drawn
SATURATION = 0.15  # of the image's own colour, so that the masks' colours stand out
MATCH = 0.3  # mask IoU from which a detection takes an object's colour
SCALE = 2  # output pixels for a pixel of the image, so that outlines follow the mask's own edges
OBJECT_COLOURS = ("#FFB000", "#0090FF", "#FF4F6B", "#00C08B", "#C77DFF", "#FFF04D", "#FF8AD8", "#7CFF6B")
UNMATCHED = "#FFFFFF"
MOST_NOTES = 20  # an image with more masks gets no notes: they would hide it
ROWS = 4  # pictures of more than this many images would not be looked at


@dataclass(frozen=True)
class Instance:
    """One mask to draw, or a box's outline.

    mask: [H, W] bool, of a box all of its inside; note: text on it, such as a score or a wrong class.
    """

    mask: np.ndarray
    colour: str
    note: str
    matched: bool = True
    is_box: bool = False


@dataclass(frozen=True)
class Samples:
    """What was drawn: detections of this seed; whether some images have too many masks for notes."""

    seed: int
    crowded: bool


def samples(study: StudyResults, folder: Path, name: str = "samples") -> Samples | None:
    """A row for each sample image: ground truth, then every arm's detections of one seed, boxes where it has no masks.

    Returns None when there was nothing to draw.
    """
    images, truth = study.sample_images()[:ROWS], study.ground_truth
    seed = study.shown_seed()
    if not images or truth is None or seed is None:
        return None
    names = {category["id"]: category["name"] for category in truth.get("categories", [])}
    arms = [arm for arm in study.record.arms if study.detections(arm, seed) is not None]
    if not arms:
        return None
    found = {arm: _by_image(study.detections(arm, seed) or []) for arm in arms}
    objects = _by_image(truth["annotations"])
    columns, crowded = 1 + len(arms), False
    drawn, grid = figure(
        len(images),
        columns,
        width=2.15 * columns,
        height=2.2 * len(images),
        gridspec_kw={"wspace": 0.03, "hspace": 0.03},
    )
    for row, (image_id, path) in enumerate(images):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        size = pixels.shape[:2]
        ground = [decode(item["segmentation"], size) for item in objects[image_id]]
        labels = [item["category_id"] for item in objects[image_id]]
        columns_of = [_truth(ground, labels, names)]
        boxes = [fill(item["bbox"], size) for item in objects[image_id]]
        for arm in arms:
            results = found[arm][image_id]
            shapes = ground if has_masks(results) else boxes
            columns_of.append(_detections(results, shapes, labels, names, size))
        for axes, instances in zip(grid[row], columns_of, strict=True):
            paint(axes, pixels, instances)
            crowded |= len(instances) > MOST_NOTES
    for axes, title in zip(grid[0], ["ground truth", *(study.label(arm) for arm in arms)], strict=True):
        axes.set_title(title.replace(", ", "\n"), loc="center", fontsize=9)
    save(drawn, folder, name, vector=False)
    return Samples(seed, crowded)


def fill(box: list[float], size: tuple[int, int]) -> np.ndarray:
    """A COCO box (x, y, width, height) as a mask [H, W] of the pixels whose centre is inside."""
    rows, columns = (np.arange(length) + 0.5 for length in size)
    x, y, width, height = box
    return ((rows >= y) & (rows < y + height))[:, None] & ((columns >= x) & (columns < x + width))


def paint(axes: Axes, pixels: np.ndarray, instances: list[Instance]) -> None:
    """Draws `instances` over the image `pixels` [H, W, 3]: a tint, a sharp outline, and a note."""
    canvas = np.asarray(
        Image.fromarray(pixels).resize((pixels.shape[1] * SCALE, pixels.shape[0] * SCALE), Image.Resampling.BICUBIC)
    ).astype(float)
    canvas = SATURATION * canvas + (1 - SATURATION) * canvas.mean(axis=2, keepdims=True)
    for item in sorted((item for item in instances if not item.is_box), key=lambda item: -int(item.mask.sum())):
        mask = np.kron(item.mask, np.ones((SCALE, SCALE), bool))
        colour = 255 * np.array(to_rgb(item.colour))
        canvas[mask] = 0.62 * canvas[mask] + 0.38 * colour
    for item in instances:
        edge = outline(np.kron(item.mask, np.ones((SCALE, SCALE), bool)), SCALE + 1)
        if not item.matched:  # a dashed outline: no object is there
            rows, columns = np.indices(edge.shape)
            edge &= (rows + columns) // (3 * SCALE) % 2 == 0
        canvas[edge] = 255 * np.array(to_rgb(item.colour))
    height, width = pixels.shape[:2]
    axes.imshow(canvas.round().clip(0, 255).astype(np.uint8), extent=(0, width, height, 0), interpolation="none")
    taken: list[tuple[float, float]] = []
    for item in instances if len(instances) <= MOST_NOTES else []:
        _note(axes, item, taken)
    axes.set_axis_off()


def outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The pixels of `mask` within `thickness` steps of its border."""
    inner = mask.copy()
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _note(axes: Axes, item: Instance, taken: list[tuple[float, float]]) -> None:
    """Writes an instance's note on its middle, or under the notes that are there already."""
    rows, columns = np.nonzero(item.mask)
    if not len(rows) or not item.note:
        return
    height, width = item.mask.shape
    x = float(np.clip(columns.mean(), 0.1 * width, 0.9 * width))
    y = float(np.clip(rows.mean(), 8, height - 8))
    while any(abs(x - other_x) < 0.14 * width and abs(y - other_y) < 0.045 * height for other_x, other_y in taken):
        y += 0.01 * height
    taken.append((x, y))
    text = axes.text(x, y, item.note, ha="center", va="center", fontsize=6, color="white")
    text.set_path_effects([patheffects.withStroke(linewidth=1.6, foreground=INK)])


def _truth(masks: list[np.ndarray], labels: list[int], names: dict[int, str]) -> list[Instance]:
    return [
        Instance(mask, OBJECT_COLOURS[index % len(OBJECT_COLOURS)], names.get(label, str(label)))
        for index, (mask, label) in enumerate(zip(masks, labels, strict=True))
    ]


def _detections(
    results: list[dict[str, Any]],
    objects: list[np.ndarray],
    labels: list[int],
    names: dict[int, str],
    size: tuple[int, int],
) -> list[Instance]:
    """What is drawn of a run's results on an image. objects: the true masks, or where it has none the true boxes."""
    drawn = []
    for result in sorted(results, key=lambda result: -result["score"]):
        if result["score"] <= SCORE:
            continue
        is_box = "segmentation" not in result
        mask = fill(result["bbox"], size) if is_box else decode(result["segmentation"], size)
        overlaps = [iou(mask, other) for other in objects]
        best = int(np.argmax(overlaps)) if overlaps else -1
        name = names.get(result["category_id"], str(result["category_id"]))
        if best < 0 or overlaps[best] < MATCH:
            drawn.append(Instance(mask, UNMATCHED, f"{name}? {result['score']:.2f}", matched=False, is_box=is_box))
            continue
        note = f"{result['score']:.2f}"
        if labels[best] != result["category_id"]:
            note = f"{name}? {note}"
        drawn.append(Instance(mask, OBJECT_COLOURS[best % len(OBJECT_COLOURS)], note, is_box=is_box))
    return drawn


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two [H, W] bool masks; 0 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def has_masks(results: list[dict[str, Any]] | None) -> bool:
    """Whether a run's detections hold masks; an empty list could."""
    return results is not None and (not results or any("segmentation" in result for result in results))


def _by_image(items: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        grouped[item["image_id"]].append(item)
    return grouped
