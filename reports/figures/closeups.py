"""Single objects from close by under each arm: where a mask leaves its object, and what it leaves out.

The objects are chosen by a rule, not by eye: among those in the sample images that every arm found, in the order of how
much their mask's overlap changes from one arm to the other, the ones at a quarter, half and three quarters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from ablations.evaluation.cocoapi import decode
from reports.analysis import Analysis
from reports.figures.pictures import MATCH, SCORE, has_masks, iou, outline
from reports.figures.style import COLOURS, figure, save
from reports.load import StudyResults
from reports.text.labels import arms_of

QUANTILES = (0.25, 0.5, 0.75)
MISSED, BESIDE = COLOURS[0], COLOURS[2]
SCALE = 4  # output pixels for a pixel of the image
MARGIN = 8  # image pixels around what is drawn


@dataclass(frozen=True)
class Found:
    """An object that every arm found. masks: the arms' best masks of it, and their overlaps with it, by arm."""

    path: Path
    truth: np.ndarray
    masks: dict[str, np.ndarray]
    overlaps: dict[str, float]


def closeups(analysis: Analysis, folder: Path, name: str = "closeups") -> int | None:
    """A row for each chosen object, a column for each arm; None when no object was found by all arms.

    Returns how many objects there were to choose from.
    """
    study = analysis.study
    seed = study.shown_seed()
    if study.ground_truth is None or not analysis.differences or seed is None:
        return None
    arms = [arm for arm in study.record.arms if has_masks(study.detections(arm, seed))]
    pairs = [arms_of(weights) for weights in analysis.differences if set(arms_of(weights)) <= set(arms)]
    found = _found_by_all(study, arms, seed) if pairs else []
    if not found:
        return None
    gains = [float(np.mean([item.overlaps[plus] - item.overlaps[minus] for plus, minus in pairs])) for item in found]
    order = sorted(range(len(found)), key=lambda index: (gains[index], index))
    chosen = list(dict.fromkeys(order[round(quantile * (len(order) - 1))] for quantile in QUANTILES))
    columns = len(arms)
    drawn, grid = figure(
        len(chosen),
        columns,
        width=2.5 * columns,
        height=2.65 * len(chosen),
        gridspec_kw={"wspace": 0.04, "hspace": 0.14},
    )
    for row, index in zip(grid, chosen, strict=True):
        window = square_around([found[index].truth, *found[index].masks.values()])
        pixels = np.asarray(Image.open(found[index].path).convert("L"))
        for axes, arm in zip(row, arms, strict=True):
            _paint(axes, pixels[window], found[index].truth[window], found[index].masks[arm][window])
            overlap = f"overlap {100 * found[index].overlaps[arm]:.0f} %"
            axes.annotate(overlap, (0.5, -0.02), xycoords="axes fraction", ha="center", va="top", fontsize=8.5)
    for axes, arm in zip(grid[0], arms, strict=True):
        axes.set_title(study.label(arm).replace(", ", "\n"), loc="center", fontsize=9)
    save(drawn, folder, name, vector=False)
    return len(found)


def _found_by_all(study: StudyResults, arms: Sequence[str], seed: int) -> list[Found]:
    """The objects of the sample images for which every arm has a detection of their class that covers them."""
    annotations = (study.ground_truth or {})["annotations"]
    results = {arm: study.detections(arm, seed) or [] for arm in arms}
    found = []
    for image_id, path in study.sample_images():
        with Image.open(path) as image:
            size = (image.height, image.width)
        for item in annotations:
            if item["image_id"] != image_id or item.get("iscrowd"):
                continue
            truth = decode(item["segmentation"], size)
            best = {arm: _best(results[arm], item, truth) for arm in arms}
            overlaps = {arm: iou(mask, truth) for arm, mask in best.items() if mask is not None}
            if len(overlaps) == len(arms) and min(overlaps.values()) >= MATCH:
                found.append(
                    Found(path, truth, {arm: mask for arm, mask in best.items() if mask is not None}, overlaps)
                )
    return found


def _best(results: list[dict[str, Any]], item: dict[str, Any], truth: np.ndarray) -> np.ndarray | None:
    masks = [
        decode(result["segmentation"], truth.shape)
        for result in results
        if result["image_id"] == item["image_id"]
        and result["category_id"] == item["category_id"]
        and result["score"] > SCORE
        and "segmentation" in result
    ]
    return max(masks, key=lambda mask: iou(mask, truth), default=None)


def square_around(masks: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """A square of the image that holds all the masks, as far as the image reaches."""
    rows, columns = np.nonzero(np.any(masks, axis=0))
    side = max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * MARGIN
    slices = []
    for places, length in ((rows, masks[0].shape[0]), (columns, masks[0].shape[1])):
        start = int(np.clip((places.min() + places.max() + 1 - side) // 2, 0, max(0, length - side)))
        slices.append(slice(start, min(start + int(side), length)))
    return slices[0], slices[1]


def _paint(axes: Axes, pixels: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
    """The image in grey, what the mask misses and what it covers besides in colour, the object's own outline."""
    canvas = np.repeat(140 + 0.45 * np.kron(pixels, np.ones((SCALE, SCALE)))[:, :, None], 3, axis=2)
    large_truth, large_mask = (np.kron(one, np.ones((SCALE, SCALE), bool)) for one in (truth, mask))
    for region, colour in ((large_truth & ~large_mask, MISSED), (large_mask & ~large_truth, BESIDE)):
        canvas[region] = 0.15 * canvas[region] + 0.85 * 255 * np.array(to_rgb(colour))
    canvas[outline(large_truth, 2)] = 20
    axes.imshow(canvas.round().clip(0, 255).astype(np.uint8), interpolation="none")
    axes.set_axis_off()
