"""Whether a study's masks are worth comparing: better than masks that need no features, the floors.

The floors are what filling the true boxes and what ellipses in them reach (ablations/evaluation/true_boxes.py). Where
the reference arm is hardly above them, arms cannot differ by how they read features, and equality means nothing.
Letters: H, W sides of an image as the network gets it.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from reports.load import StudyResults
from reports.stats.misalignment import LARGE, arrays, resized, sides_of
from reports.text.labels import is_of_large

FLOORS = {"floor_box": "filling the box", "floor_ellipse": "an ellipse in it"}
"""Kinds of metrics, and the masks that reach them in words."""
FIGURES = ("IoU", "IoU_96_px_and_more")
"""Names of the figures of all objects and of large ones."""


@dataclass(frozen=True)
class FloorCheck:
    """A study's reference arm against the floors: means over its finished runs, in points of IoU on true boxes.

    margin:  by which the arm has to be above the better floor.
    figure:  "IoU" over all objects, or "IoU_96_px_and_more" over large ones.
    reached: None where no run of the arm has the figures.
    floors:  by kind, as in FLOORS.
    below:   the arms that are above the better floor by less than the margin -> by how much they are.
    """

    arm: str
    margin: float
    figure: str
    reached: float | None
    floors: dict[str, float]
    below: dict[str, float]

    @property
    def above(self) -> float | None:
        """Points by which the arm is above the better floor."""
        return None if self.reached is None else self.reached - max(self.floors.values())

    @property
    def passed(self) -> bool:
        return self.above is not None and self.above >= self.margin


def floor_check(study: StudyResults) -> FloorCheck | None:
    """None for a study without a floor."""
    floor = study.record.floor
    if floor is None:
        return None
    by_arm = {arm: above(study, arm, floor.figure) for arm in study.record.arms}
    below = {arm: points for arm, points in by_arm.items() if points is not None and points < floor.margin}
    means = [study.values(floor.arm, f"{kind}.{floor.figure}") for kind in ("true_boxes", *FLOORS)]
    if not all(means):
        return FloorCheck(floor.arm, floor.margin, floor.figure, None, {}, below)
    reached, *floors = (statistics.fmean(by_seed.values()) for by_seed in means)
    return FloorCheck(floor.arm, floor.margin, floor.figure, reached, dict(zip(FLOORS, floors, strict=True)), below)


def above(study: StudyResults, arm: str, figure: str) -> float | None:
    """Points by which an arm's masks are above the better floor; None where no run has the figures."""
    reached, *floors = (study.mean(arm, f"{kind}.{figure}") for kind in ("true_boxes", *FLOORS))
    known = [value for value in floors if value is not None]
    return None if reached is None or not known else reached - max(known)


def floor_ious(truth: dict[str, Any], data: dict[str, Any], figure: str) -> dict[str, list[tuple[int, float]]]:
    """kind -> of each object that a figure is about, the id of its image and what the floor reaches, in points.

    truth: COCO JSON; data: the recorded settings of the data. As ablations/evaluation/true_boxes.py has it: in the
    pixels of the network's image, where a pixel belongs to a shape if its centre lies in it.
    """
    sizes, objects = resized(truth, data)
    sides = sides_of(arrays(objects, sizes)[0])
    ious: dict[str, list[tuple[int, float]]] = {kind: [] for kind in FLOORS}
    originals = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for item, side in zip(objects, sides, strict=True):
        if is_of_large(figure) and side < LARGE:
            continue
        image_id = item["image_id"]
        mask = _resized_mask(item["segmentation"], originals[image_id], sizes[image_id])
        if mask.any():
            for kind, shape in _shapes(item["bbox"], mask.shape):
                both = int((mask & shape).sum())
                ious[kind].append((image_id, 100 * both / (int(mask.sum()) + int(shape.sum()) - both)))
    return ious


def _resized_mask(segmentation: Any, original: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """[H, W] bool, as data/coco.py makes it. original: height, width; size: width, height for the network."""
    (height, width), (new_width, new_height) = original, size
    if isinstance(segmentation, list):
        scale = np.array([new_width / width, new_height / height])
        scaled = [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in segmentation]
        return rle.decode(rle.merge(rle.frPyObjects(scaled, new_height, new_width))).astype(bool)
    if isinstance(segmentation["counts"], list):
        segmentation = rle.frPyObjects(segmentation, height, width)
    mask = Image.fromarray(rle.decode(segmentation))
    return np.asarray(mask.resize((new_width, new_height), Image.Resampling.NEAREST)).astype(bool)


def _shapes(box: list[float], shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """The masks [H, W] of the floors, by kind. box: x, y, width, height."""
    x, y, width, height = np.array(box, np.float32)
    across, down = (
        (2 * (np.arange(length) + 0.5) - (2 * low + extent)) / extent
        for length, low, extent in ((shape[1], x, width), (shape[0], y, height))
    )
    yield "floor_box", (np.abs(down) <= 1)[:, None] & (np.abs(across) <= 1)
    yield "floor_ellipse", down[:, None] ** 2 + across**2 <= 1
