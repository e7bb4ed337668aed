"""Masks on true boxes: how good masks are where every box is right, which tells masks from boxes.

Each object's own box is the RoI and its own class the one whose mask is taken, so nothing is detected and nothing
scored: what differs between arms is what they make of the features. FCIS's masks are those of single RoIs, not voted.
Sizes are in cells of the map that RoIs are pooled from, because what rounding moves is counted in cells.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from data.dataset import Batch
from models.detector import Detector
from models.masks import paste_masks

THRESHOLDS = tuple(0.5 + 0.05 * index for index in range(10))
"""COCO's: AP is the share of objects whose mask's IoU reaches them, averaged; there are no false positives."""

CELLS = {
    "under_1_cell": (0.0, 1.0),
    "1_to_2_cells": (1.0, 2.0),
    "2_to_4_cells": (2.0, 4.0),
    "4_to_8_cells": (4.0, 8.0),
    "8_cells_and_more": (8.0, float("inf")),
}
"""Ranges of an object's side, the square root of its box's area, in cells."""

LARGE = 96.0
"""Pixels: three cells of stride 32."""


def true_box_metrics(model: Detector, batches: Iterable[Batch], stride: int) -> dict[str, float | None]:
    """Mean mask IoU and AP over all objects, and the mean IoU by the object's side, in points; None without objects.

    batches: on the model's device, in the order of evaluation. Masks are compared in the pixels of the network's image.
    """
    sides, overlaps = [], []
    for batch in batches:
        side, overlap = mask_overlaps(model, batch)
        sides.append(side)
        overlaps.append(overlap)
    side, overlap = torch.cat(sides), torch.cat(overlaps)
    reached = torch.stack([overlap >= threshold for threshold in THRESHOLDS]).float().mean(0)
    metrics = {"IoU": _mean(overlap), "AP": _mean(reached)}
    for name, (low, high) in CELLS.items():
        metrics[f"IoU_{name}"] = _mean(overlap[(side >= low * stride) & (side < high * stride)])
    return metrics | {"IoU_96_px_and_more": _mean(overlap[side >= LARGE])}


def mask_overlaps(model: Detector, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of each object of a batch: its side in pixels [objects], and the IoU of the mask on its true box [objects]."""
    probabilities = model.masks_of(batch.images, batch.boxes, batch.labels.clamp(min=1))  # [B, G, M, M]
    height, width = batch.masks.shape[-2:]
    sides, overlaps = [], []
    for image in range(len(batch.images)):
        real = batch.labels[image] > 0
        boxes, truth = batch.boxes[image][real], batch.masks[image][real].bool()
        if len(boxes):
            pasted = paste_masks(probabilities[image][real], boxes, height, width)
            both, either = (pasted & truth).sum((1, 2)), (pasted | truth).sum((1, 2))
            sides.append((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt())
            overlaps.append(both / either.clamp(min=1))
    empty = batch.boxes.new_zeros(0)
    return torch.cat([empty, *sides]).cpu(), torch.cat([empty, *overlaps]).cpu()


def _mean(values: Tensor) -> float | None:
    return 100 * float(values.double().mean()) if len(values) else None
