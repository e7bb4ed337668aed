"""A picture of what a single run finds: some evaluated images with the ground truth and, beside it, the detections."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ablations.config.study import Run
from ablations.stages.store import stages_of
from ablations.tracking.sample_masks import SCORE, SampleImage, layer_of, paint
from data.dataset import InstanceSet, Sample

NAME = "picture.png"
NUM_IMAGES = 4
HEIGHT = 256
"""The height of an image in the picture, in pixels."""


def write_picture(run: Run) -> Path | None:
    """Writes the picture into the folder of a finished run; None where it stored no detections."""
    try:
        results = json.loads((run.folder / "detections.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    certain = sorted((item for item in results if item["score"] >= SCORE), key=lambda item: item["score"])
    images = stages_of(run.config).evaluated
    count = min(NUM_IMAGES, len(images))
    views = [_view(images, images[index * len(images) // count], certain) for index in range(count)]
    sheet = Image.new("RGB", (max(view.width for view in views), sum(view.height for view in views)), "white")
    top = 0
    for view in views:
        sheet.paste(view, (0, top))
        top += view.height
    sheet.save(run.folder / NAME)
    return run.folder / NAME


def _view(images: InstanceSet, sample: Sample, results: list[dict[str, Any]]) -> Image.Image:
    """An image twice: with its objects, and with the detections; boxes where there are no masks."""
    image = np.asarray(sample.picture().convert("RGB"))
    results = [item for item in results if item["image_id"] == sample.image_id]
    truth = np.zeros(sample.image.shape[1:], np.uint8)
    for mask, label in zip(sample.masks.numpy(), sample.labels.tolist(), strict=True):
        if label > 0:
            truth[mask == 1] = label
    truth = np.asarray(Image.fromarray(truth).resize(image.shape[1::-1], Image.Resampling.NEAREST))
    classes = dict(enumerate(images.classes, start=1))
    detected = layer_of(results, sample.image_id, image.shape[:2])
    view = Image.fromarray(paint(SampleImage(sample.image_id, image, truth, detected, classes)))
    pen = ImageDraw.Draw(view)
    for x, y, width, height in (item["bbox"] for item in results if "segmentation" not in item):
        x += image.shape[1]
        pen.rectangle((x, y, x + width, y + height), outline="white", width=max(image.shape[0] // 128, 1))
    return view.resize((round(view.width * HEIGHT / view.height), HEIGHT))
