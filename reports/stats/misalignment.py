"""How far an operator's rounding moves what a network reads, over a study's objects, and an object that shows it.

Frame: pixels of the images as the network gets them, resized where a study's data say so. Cell i of a map of stride s
stands on pixel s x i, where the convolutions put it and where RoIAlign (without `aligned`) looks for it; as an area it
reaches half a stride to both sides.
Letters: K boxes, P bins along an axis.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from data.images import fitted_size
from reports.load import StudyResults
from reports.stats.contrasts import primary_metric
from reports.text.labels import is_of_large

LARGE = 96.0
"""Pixels of the side from which an object is large, as in ablations/evaluation/true_boxes.py."""


@dataclass(frozen=True)
class Misalignment:
    """How far RoIPool's bins stand from where they should, over all ground-truth boxes of the evaluated images.

    A box's displacement is the distance, in two dimensions, between a bin and what is read for it, averaged over the
    P x P bins.

    moved:    stride -> displacement of every box in pixels, NaN where all of its bins are empty.
    medians:  stride -> its median; shares: the median of displacement over the object's side.
    image_id: of the object that is shown, with its box (xywh) and the image's width and height.
    chosen:   stride -> the displacement of that object.
    of_large: whether it was chosen among large objects, which claims are about.
    """

    bins: int
    moved: dict[int, np.ndarray]
    medians: dict[int, float]
    shares: dict[int, float]
    image_id: int
    box: list[float]
    size: tuple[int, int]
    chosen: dict[int, float]
    of_large: bool = False

    @property
    def num_boxes(self) -> int:
        return len(next(iter(self.moved.values())))


def measure(study: StudyResults) -> Misalignment | None:
    """None for a study that is not about RoI operators first of all, or without ground truth or sample image."""
    truth, shown = study.ground_truth, dict(study.sample_images())
    strides = strides_of(study) if study.record.factors[:1] == ["roi"] else []
    if truth is None or not shown or not strides:
        return None
    sizes, boxes = resized(truth, study.record.config.get("data", {}))
    bins = bins_of(study)
    corners, extents = arrays(boxes, sizes)
    moved = {stride: displacements(corners, extents, bins, stride) for stride in strides}
    medians = {stride: float(np.nanmedian(values)) for stride, values in moved.items()} if boxes else {}
    sides = sides_of(corners)
    large = sides >= LARGE if is_of_large(primary_metric(study)) else np.zeros(len(boxes), bool)
    among_large = _choose(boxes, sides, moved, set(shown), large)
    chosen = _choose(boxes, sides, moved, set(shown), np.ones(len(boxes), bool)) if among_large is None else among_large
    if chosen is None:
        return None
    item = boxes[chosen]
    return Misalignment(
        bins=bins,
        moved=moved,
        medians=medians,
        shares={stride: float(np.nanmedian(values / sides)) for stride, values in moved.items()},
        image_id=item["image_id"],
        box=item["bbox"],
        size=sizes[item["image_id"]],
        chosen={stride: float(values[chosen]) for stride, values in moved.items()},
        of_large=among_large is not None,
    )


def strides_of(study: StudyResults) -> list[int]:
    """The strides of a study's arms, or of its runs where they are no factor."""
    strides = {arm.factors.get("stride") for arm in study.record.arms.values()}
    strides |= {run.config.get("stride") for run in study.runs.values()} if strides == {None} else set()
    return sorted(stride for stride in strides if isinstance(stride, int) and stride > 0)


def bin_centres(
    low: ArrayLike, high: ArrayLike, bins: int, length: ArrayLike, stride: int, op: str = "pool", step: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, in pixels: the P centres that RoIAlign reads, and the P that `op` reads (NaN: an empty bin).

    low, high: the boxes' ends in pixels; length: cells of the map along the axis. These are numbers or arrays [K], and
    the centres [P] or [K, P]. op: "pool", "warp" or "align", the last of boxes rounded to `step` pixels (0: not
    rounded). For all boxes at once, and as `ops.geometry` defines it.
    """
    low, high, length = (np.asarray(values, dtype=float) for values in (low, high, length))
    wanted = _align_centres(low, high, bins, stride)
    if op == "pool":
        return wanted, _pool_centres(low, high, bins, length, stride)
    step = stride if op == "warp" else step
    return wanted, _align_centres(_rounded(low, step), _rounded(high, step), bins, stride) if step else wanted


def _align_centres(low: np.ndarray, high: np.ndarray, bins: int, stride: int) -> np.ndarray:
    """[..., P]: the middles of equal parts, of at least one cell together."""
    size = np.maximum(high - low, stride)
    return low[..., None] + size[..., None] * (np.arange(bins) + 0.5) / bins


def _pool_centres(low: np.ndarray, high: np.ndarray, bins: int, length: np.ndarray, stride: int) -> np.ndarray:
    """[..., P]: of the cells in each bin, NaN where it has none."""
    first, last = _rounded(low / stride, 1), _rounded(high / stride, 1)
    size = np.maximum(last - first + 1, 1)[..., None]
    place, first, length = np.arange(bins), first[..., None], length[..., None]
    start = np.clip(first + (place * size) // bins, 0, length)
    end = np.clip(first - (-(place + 1) * size) // bins, 0, length)
    return np.where(end > start, stride * (start + end - 1) / 2, np.nan)


def _rounded(values: np.ndarray, step: int) -> np.ndarray:
    """To multiples of `step`, halves away from zero."""
    return np.copysign(np.floor(np.abs(values) / step + 0.5), values) * step


def displacements(
    boxes: np.ndarray, sizes: np.ndarray, bins: int, stride: int, op: str = "pool", step: int = 0
) -> np.ndarray:
    """[K]: mean distance in pixels, over a box's P x P bins, between what `op` reads and what RoIAlign reads.

    boxes: [K, 4] x, y, width, height; sizes: [K, 2], their images' width and height. NaN when every bin is empty.
    """
    offsets = []
    for axis in (0, 1):
        low, length = boxes[:, axis], np.ceil(sizes[:, axis] / stride)
        wanted, read = bin_centres(low, low + boxes[:, axis + 2], bins, length, stride, op, step)
        offsets.append(read - wanted)
    distances = np.hypot(offsets[0][:, None, :], offsets[1][:, :, None]).reshape(len(boxes), -1)
    known = np.isfinite(distances)
    total, count = np.where(known, distances, 0.0).sum(axis=1), known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def arrays(boxes: list[dict[str, Any]], sizes: dict[int, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The objects' boxes [K, 4] and their images' sizes [K, 2], as `displacements` takes them."""
    corners = np.array([item["bbox"] for item in boxes], dtype=float).reshape(-1, 4)
    return corners, np.array([sizes[item["image_id"]] for item in boxes], dtype=float).reshape(-1, 2)


def sides_of(boxes: np.ndarray) -> np.ndarray:
    """[K]: the square root of a box's area."""
    return np.sqrt(boxes[:, 2] * boxes[:, 3])


def resized(truth: dict[str, Any], data: dict[str, Any]) -> tuple[dict[int, tuple[int, int]], list[dict[str, Any]]]:
    """Image id -> width and height, and the objects with an area, both as the network gets them.

    data: the recorded settings of the data; synthetic images, which have no `image_size`, stay as they are.
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
    boxes: list[dict[str, Any]], sides: np.ndarray, moved: dict[int, np.ndarray], shown: set[int], among: np.ndarray
) -> int | None:
    """Index of the box on a sample image whose size and displacements, over all strides, are nearest the medians.

    among: [K] bool, the boxes to choose from, whose medians count. Boxes narrower than a cell come last: RoIAlign
    stretches them to one, which is not what the picture is about.
    """
    best, least = None, (True, math.inf)
    if not among.any():
        return best
    middle = np.median(sides[among])
    medians = {stride: float(np.nanmedian(values[among])) for stride, values in moved.items()}
    for index in np.flatnonzero(among).tolist():
        far = abs(sides[index] / middle - 1)
        far += sum(abs(moved[stride][index] / (medians[stride] or 1.0) - 1) for stride in moved)
        rank = (min(boxes[index]["bbox"][2:]) < max(moved), float(far))
        if boxes[index]["image_id"] in shown and rank < least:
            best, least = index, rank
    return best


def align_error(box: list[float], bins: int, stride: int) -> float:
    """Mean distance between RoIAlign's bins and the box's own; not 0 only for a box narrower than a cell, which
    RoIAlign stretches to one."""
    offsets = []
    for low, extent in ((box[0], box[2]), (box[1], box[3])):
        wanted = low + extent * (np.arange(bins) + 0.5) / bins
        offsets.append(_align_centres(np.array(low), np.array(low + extent), bins, stride) - wanted)
    return float(np.hypot(offsets[0][None, :], offsets[1][:, None]).mean())


def bins_of(study: StudyResults) -> int:
    """P, from the recorded configuration; the paper's 7 where it does not say."""
    model = study.record.config.get("model", {})
    value = model.get("pooled_size") if isinstance(model, dict) else None
    return value if isinstance(value, int) and value > 0 else 7
