"""The sample images: which detection of each arm and seed shows each object best, and how well its mask fits."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ablations.evaluation.cocoapi import compressed, decode
from data.images import fitted_size
from reports.load import StudyResults
from reports.stats.contrasts import primary_metric
from reports.stats.misalignment import LARGE
from reports.text.labels import is_of_large, is_pair

SCORE = 0.5  # detections that score no more are not shown
MATCH = 0.3  # IoU from which a detection shows an object
MOST_ARMS = 6  # of which pictures show all; of more only some
FEW = 4  # arms, which pictures show of more than MOST_ARMS


@dataclass(frozen=True)
class Shown:
    """The detection that shows an object best. mask: [H, W] bool, of a box all of its inside."""

    mask: np.ndarray
    iou: float
    is_box: bool


@dataclass(frozen=True)
class SampleScene:
    """A sample image with its objects and what the runs found of them.

    masks: of the objects, [H, W] bool; names: of their classes; asked: whether claims are about each.
    matched: (arm, seed) -> for each object the best detection of its class; None where it was missed.
    others: (arm, seed) -> how many other detections there are: of the same object, of the wrong class, of nothing.
    """

    image_id: int
    path: Path
    masks: list[np.ndarray]
    names: list[str]
    asked: list[bool]
    matched: dict[tuple[str, int], list[Shown | None]] = field(default_factory=dict)
    others: dict[tuple[str, int], int] = field(default_factory=dict)

    def pixels(self) -> np.ndarray:
        """[H, W, 3] uint8."""
        return np.asarray(Image.open(self.path).convert("RGB"))

    def fit(self, seed: int) -> float:
        """Mean IoU over the arms of a seed and the objects that claims are about, a missed object counting 0: how easy
        the scene is. Of a scene without such objects it is 0."""
        ious = [
            shown.iou if shown else 0.0
            for key, of_run in self.matched.items()
            if key[1] == seed
            for shown, asked in zip(of_run, self.asked, strict=True)
            if asked
        ]
        return float(np.mean(ious)) if ious else 0.0


def read_scenes(study: StudyResults) -> list[SampleScene]:
    """All sample images that are there, with the runs whose detections are stored; none without ground truth."""
    truth = study.ground_truth
    images = study.sample_images()
    if truth is None or not images:
        return []
    names = {category["id"]: str(category["name"]) for category in truth.get("categories", [])}
    objects = _by_image(item for item in truth["annotations"] if not item.get("iscrowd"))
    results = {key: _by_image(matched) for key in study.runs if (matched := study.sample_detections(*key)) is not None}
    about_large, scenes = is_about_large(study), []
    for image_id, path in images:
        with Image.open(path) as image:
            size = (image.height, image.width)
        items = objects[image_id]
        masks = [decode(item["segmentation"], size) for item in items]
        scene = SampleScene(
            image_id=image_id,
            path=path,
            masks=masks,
            names=[names.get(item["category_id"], str(item["category_id"])) for item in items],
            asked=[not about_large or side_of(mask, study) >= LARGE for mask in masks],
        )
        for key, by_image in results.items():
            scene.matched[key], scene.others[key] = _best(by_image[image_id], items, scene.masks, size)
        scenes.append(scene)
    return scenes


def middling(scenes: Sequence[SampleScene], seed: int, count: int) -> list[SampleScene]:
    """Those `count` of the scenes whose fit is nearest the median, in the order of their images: neither the best nor
    the worst are picked. Only scenes with objects that claims are about, where there are any."""
    scenes = [scene for scene in scenes if any(scene.asked)] or scenes
    fits = [scene.fit(seed) for scene in scenes]
    middle = float(np.median(fits)) if fits else 0.0
    nearest = sorted(range(len(scenes)), key=lambda index: (abs(fits[index] - middle), index))[:count]
    return [scenes[index] for index in sorted(nearest)]


def is_about_large(study: StudyResults) -> bool:
    """Whether claims are about large objects alone."""
    return is_of_large(primary_metric(study))


def side_of(mask: np.ndarray, study: StudyResults) -> float:
    """The square root of the area of an object's box, in pixels of the image as the network gets it."""
    (height, width), data = mask.shape, study.record.config.get("data", {})
    new_height = fitted_size(height, width, data["image_size"], data["max_size"])[0] if "image_size" in data else height
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0
    return float(np.sqrt((np.ptp(rows) + 1) * (np.ptp(columns) + 1))) * new_height / height


def arms_to_show(study: StudyResults, arms: Sequence[str]) -> list[str]:
    """Of more than MOST_ARMS arms those that the first claims compare, up to a claim that is no difference of two arms:
    the two of the first claim, and up to FEW in all that are compared with one of these. In the arms' order."""
    claims = [item.contrast for item in study.record.hypotheses]
    pairs = [set(contrast) for contrast in itertools.takewhile(is_pair, claims) if set(contrast) <= set(arms)]
    if len(arms) <= MOST_ARMS or not pairs:
        return list(arms)
    first, chosen = pairs[0], set(pairs[0])
    for pair in pairs:
        if pair & first and len(chosen | pair) <= FEW:
            chosen |= pair
    return [arm for arm in arms if arm in chosen]


def arms_of_first_strides(study: StudyResults, arms: Sequence[str]) -> list[str]:
    """Of more than MOST_ARMS arms those of as many strides, from the first, as make no more.

    Where that leaves one of `arms_to_show` out, these alone.
    """
    few, chosen = arms_to_show(study, arms), set[str]()
    strides = {arm: study.record.arms[arm].factors.get("stride") for arm in arms}
    for stride in dict.fromkeys(strides.values()):
        more = chosen | {arm for arm in arms if strides[arm] == stride}
        if len(more) > MOST_ARMS:
            break
        chosen = more
    return [arm for arm in arms if arm in chosen] if set(few) <= chosen else few


def has_masks(results: list[dict[str, Any]] | None) -> bool:
    """Whether a run's detections hold masks; an empty list could."""
    return results is not None and (not results or any("segmentation" in result for result in results))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two [H, W] bool masks; 0 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def fill(box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """A COCO box (x, y, width, height) as a mask [H, W] of the pixels whose centre is inside."""
    rows, columns = (np.arange(length) + 0.5 for length in size)
    x, y, width, height = box
    return ((rows >= y) & (rows < y + height))[:, None] & ((columns >= x) & (columns < x + width))


def _best(
    results: list[dict[str, Any]], items: list[dict[str, Any]], masks: list[np.ndarray], size: tuple[int, int]
) -> tuple[list[Shown | None], int]:
    """Pairs detections with objects of their class, those of the greatest IoU first; and how many are left over.

    Where an image has no masks, boxes are compared.
    """
    shown: list[Shown | None] = [None] * len(items)
    results = [result for result in results if result["score"] > SCORE]
    if not results or not items:
        return shown, len(results)
    with_masks = has_masks(results)
    if with_masks:
        results = [result for result in results if "segmentation" in result]
        encoded = [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
        ious = rle.iou([compressed(result["segmentation"], size) for result in results], encoded, [0] * len(items))
    else:
        ious = rle.iou([result["bbox"] for result in results], [item["bbox"] for item in items], [0] * len(items))
    detected = np.array([result["category_id"] for result in results])
    labels = np.array([item["category_id"] for item in items])
    ious = np.where(detected[:, None] == labels, np.asarray(ious).reshape(len(results), len(items)), 0.0)
    for _ in items:
        row, column = np.unravel_index(int(ious.argmax()), ious.shape)
        if ious[row, column] < MATCH:
            break
        result = results[row]
        mask = decode(result["segmentation"], size) if with_masks else fill(result["bbox"], size)
        shown[column] = Shown(mask, float(ious[row, column]), not with_masks)
        ious[row], ious[:, column] = 0.0, 0.0
    return shown, len(results) - sum(detection is not None for detection in shown)


def _by_image(items: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        grouped[item["image_id"]].append(item)
    return grouped
