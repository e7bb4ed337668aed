"""How far RoIPool's rounding moves what a network reads, over a study's objects, and an object that shows it.

Frame: pixels of the images as the network gets them, resized where a study's data say so. Cell i of a map of stride s
stands on pixel s x i, where the convolutions put it and where RoIAlign (without `aligned`) looks for it; as an area it
reaches half a stride to both sides.
Letters: P bins along an axis.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.images import fitted_size
from ops.geometry import align_interval, pool_bins, sample_positions
from reports.load import StudyResults


@dataclass(frozen=True)
class Misalignment:
    """How far RoIPool's bins stand from where they should, over all ground-truth boxes of the validation images.

    A box's displacement is the distance, in two dimensions, between a bin and what is read for it, averaged over the
    P x P bins.

    moved:    stride -> displacement of every box in pixels, NaN where all of its bins are empty.
    medians:  stride -> its median; shares: the median of displacement over the object's side.
    image_id: of the object that is shown, with its box (xywh) and the image's width and height.
    chosen:   stride -> the displacement of that object.
    """

    bins: int
    moved: dict[int, np.ndarray]
    medians: dict[int, float]
    shares: dict[int, float]
    image_id: int
    box: list[float]
    size: tuple[int, int]
    chosen: dict[int, float]

    @property
    def num_boxes(self) -> int:
        return len(next(iter(self.moved.values())))


def measure(study: StudyResults) -> Misalignment | None:
    """None for a study that compares no RoI operators, without ground truth, or without a sample image."""
    truth, shown = study.ground_truth, dict(study.sample_images())
    strides = strides_of(study) if "roi" in study.record.factors else []
    if truth is None or not shown or not strides:
        return None
    sizes, boxes = resized(truth, study.record.config.get("data", {}))
    bins = _bins(study)
    moved = {
        stride: np.array([displacement(item["bbox"], sizes[item["image_id"]], bins, stride) for item in boxes])
        for stride in strides
    }
    medians = {stride: float(np.nanmedian(values)) for stride, values in moved.items()} if boxes else {}
    sides = np.array([math.sqrt(item["bbox"][2] * item["bbox"][3]) for item in boxes])
    chosen = _choose(boxes, sides, moved, medians, set(shown))
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
    )


def strides_of(study: StudyResults) -> list[int]:
    """The strides of a study's arms, or of its runs where they are no factor."""
    strides = {arm.factors.get("stride") for arm in study.record.arms.values()}
    strides |= {run.config.get("stride") for run in study.runs.values()} if strides == {None} else set()
    return sorted(stride for stride in strides if isinstance(stride, int) and stride > 0)


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
    boxes: list[dict[str, Any]],
    sides: np.ndarray,
    moved: dict[int, np.ndarray],
    medians: dict[int, float],
    shown: set[int],
) -> int | None:
    """Index of the box on a sample image whose size and displacements, over all strides, are nearest the medians.

    Boxes narrower than a cell come last: RoIAlign stretches them to one, which is not what the picture is about.
    """
    best, least = None, (True, math.inf)
    for index, item in enumerate(boxes):
        far = abs(sides[index] / np.median(sides) - 1)
        far += sum(abs(moved[stride][index] / (medians[stride] or 1.0) - 1) for stride in moved)
        rank = (min(item["bbox"][2:]) < max(moved), float(far))
        if item["image_id"] in shown and rank < least:
            best, least = index, rank
    return best


def align_error(box: list[float], bins: int, stride: int) -> float:
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
