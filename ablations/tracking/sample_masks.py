"""Evaluated images with a run's masks on them, for trackers and single runs. Letters: H, W sides of an image."""

import colorsys
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ablations.evaluation.cocoapi import decode

SCORE = 0.5
"""Detections below this are not drawn."""


@dataclass(frozen=True)
class SampleImage:
    """A validation image that was chosen before training.

    image: [H, W, 3] uint8; truth, detections: [H, W] int64, the category at each pixel, 0 for none;
    classes: names of the categories.
    """

    image_id: int
    image: np.ndarray
    truth: np.ndarray
    detections: np.ndarray
    classes: dict[int, str]


def samples_of(folder: Path) -> list[SampleImage]:
    """The sample images of the study that the run in `folder` belongs to; none for single runs or without masks."""
    images = sorted((folder.parents[1] / "samples").glob("*.png"), key=lambda path: int(path.stem))
    if not images or not (folder / "detections.json").exists():
        return []
    truth = json.loads((folder.parents[1] / "ground_truth.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    certain = sorted((item for item in results if item["score"] >= SCORE), key=lambda item: item["score"])
    classes = {category["id"]: category["name"] for category in truth["categories"]}
    samples = []
    for path in images:
        image, number = np.asarray(Image.open(path).convert("RGB")), int(path.stem)
        objects, detections = (layer_of(items, number, image.shape[:2]) for items in (truth["annotations"], certain))
        samples.append(SampleImage(number, image, objects, detections, classes))
    return samples


def paint(sample: SampleImage) -> np.ndarray:
    """[H, 2W, 3] uint8: the ground truth and, beside it, the detections, with a colour for each category."""
    views = []
    for layer in (sample.truth, sample.detections):
        view = sample.image.astype(float)
        index = {category: number for number, category in enumerate(sorted(sample.classes))}
        for category in np.intersect1d(layer, list(index)).tolist():
            colour = 255 * np.array(colorsys.hsv_to_rgb(index[category] / len(index), 1, 1))
            view[layer == category] = (view[layer == category] + colour) / 2
        views.append(view)
    return np.concatenate(views, axis=1).astype(np.uint8)


def renumbered(sample: SampleImage, most: int) -> SampleImage:
    """The same with its categories numbered 1, 2, ... in the order of their ids, only those on its masks.

    most: the highest number, for formats that keep few; where there are more categories, it stands for all others.
    """
    shown = np.union1d(sample.truth, sample.detections)
    shown = shown[shown > 0]
    numbers = np.minimum(np.arange(1, len(shown) + 1), most)
    truth, detections = (
        np.where(layer > 0, numbers[np.searchsorted(shown, layer).clip(max=len(shown) - 1)] if len(shown) else 0, 0)
        for layer in (sample.truth, sample.detections)
    )
    classes = {
        number: sample.classes[category] for number, category in zip(numbers.tolist(), shown.tolist(), strict=True)
    }
    if len(shown) > most:
        classes[most] = "other classes"
    return dataclasses.replace(sample, truth=truth, detections=detections, classes=classes)


def layer_of(items: list[dict[str, Any]], image_id: int, size: tuple[int, int]) -> np.ndarray:
    """The category at each pixel; later items lie above earlier ones."""
    layer = np.zeros(size, np.int64)
    for item in items:
        if item["image_id"] == image_id and "segmentation" in item:
            layer[decode(item["segmentation"], size)] = item["category_id"]
    return layer
