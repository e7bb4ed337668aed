"""Masks on true boxes: how good masks are where every box is right, which separates their errors from
those of boxes.

Each object's own box is the RoI and its own class the one whose mask is taken, so nothing is detected and nothing
scored: what differs between arms is what they make of the features. FCIS's masks are those of single RoIs, not voted.
Sizes are in cells of the map that RoIs are pooled from, because what rounding moves is counted in cells.

Beside them stand two floors: what filling the box and what an ellipse inscribed in it would reach. They need no
features and depend on the ground truth alone. A network that is no better says nothing about how it reads its features.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from data.dataset import Batch
from models.detector import Detector
from models.masks import Window, paste_masks, windows_of

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


@dataclass(frozen=True)
class TrueBoxMasks:
    """All objects, in the order of evaluation: the ids of their images, their sides in pixels, and the IoU of their
    masks by kind: "true_boxes", the model's; "floor_box", the filled box; "floor_ellipse", the ellipse that touches its
    four sides. All [objects]."""

    image_ids: Tensor
    sides: Tensor
    ious: dict[str, Tensor]

    def tables(self, stride: int) -> dict[str, dict[str, float | None]]:
        """kind -> name -> points: mean IoU and AP over all objects, and the mean IoU by the object's side; None where
        there are no such objects."""
        return {kind: _table(self.sides, iou, stride) for kind, iou in self.ious.items()}

    def by_object(self) -> dict[str, list[Any]]:
        """The ids, and object by object what the means "true_boxes.IoU" and "true_boxes.IoU_96_px_and_more" are of, in
        points; None where an object is not in a mean. Reports draw other images from it."""
        points = [round(100 * value, 2) for value in self.ious["true_boxes"].tolist()]
        large = [value if side >= LARGE else None for value, side in zip(points, self.sides.tolist(), strict=True)]
        return {"image_ids": self.image_ids.tolist(), "IoU": points, "IoU_96_px_and_more": large}


def true_box_masks(model: Detector, batches: Iterable[Batch]) -> TrueBoxMasks:
    """The model's masks on the true boxes of all objects, and the two floors.

    batches: on the model's device, in the order of evaluation. Masks are compared in the pixels of the network's image.
    """
    image_ids: list[Tensor] = []
    sides: list[Tensor] = []
    ious: dict[str, list[Tensor]] = {"true_boxes": [], "floor_box": [], "floor_ellipse": []}
    for batch in batches:
        side, iou = mask_ious(model, batch)
        image_ids.append(batch.image_ids.repeat_interleave((batch.labels > 0).sum(1)).cpu())
        sides.append(side)
        for kind, batch_iou in {"true_boxes": iou, **floor_ious(batch)}.items():
            ious[kind].append(batch_iou)
    joined = {kind: torch.cat(batch_ious) for kind, batch_ious in ious.items()}
    return TrueBoxMasks(torch.cat(image_ids), torch.cat(sides), joined)


def _table(side: Tensor, iou: Tensor, stride: int) -> dict[str, float | None]:
    """side [objects] in pixels, iou [objects]."""
    reached = torch.stack([iou >= threshold for threshold in THRESHOLDS]).float().mean(0)
    metrics = {"IoU": _mean(iou), "AP": _mean(reached)}
    for name, (low, high) in CELLS.items():
        metrics[f"IoU_{name}"] = _mean(iou[(side >= low * stride) & (side < high * stride)])
    return metrics | {"IoU_96_px_and_more": _mean(iou[side >= LARGE])}


def mask_ious(model: Detector, batch: Batch) -> tuple[Tensor, Tensor]:
    """Each object of a batch: its side in pixels [objects], and the IoU of the mask on its true box [objects]."""
    probabilities = model.masks_of(batch.images, batch.boxes, batch.labels.clamp(min=1))  # [B, G, M, M]
    sides, ious = [batch.boxes.new_zeros(0)], [batch.boxes.new_zeros(0)]
    for image, objects in enumerate(_objects(batch)):
        boxes = objects.boxes
        pasted = paste_masks(probabilities[image, : len(boxes)], boxes, *objects.masks.shape[1:])
        sides.append((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt())
        ious.append(objects.ious([mask[window] for mask, window in zip(pasted, objects.windows, strict=True)]))
    return torch.cat(sides).cpu(), torch.cat(ious).cpu()


def floor_ious(batch: Batch) -> dict[str, Tensor]:
    """The IoU of each object's filled box and of the ellipse in it, in the order of `mask_ious`.

    A pixel belongs to either if its centre lies in it.
    """
    empty = batch.boxes.new_zeros(0)
    floors: dict[str, list[Tensor]] = {"floor_box": [empty], "floor_ellipse": [empty]}
    for objects in _objects(batch):
        boxes, (height, width) = objects.boxes, objects.masks.shape[1:]
        down, across = _place(boxes[:, 1], boxes[:, 3], height), _place(boxes[:, 0], boxes[:, 2], width)
        of_objects = zip(down, across, objects.windows, strict=True)
        places = [(y[rows, None], x[columns]) for y, x, (rows, columns) in of_objects]
        floors["floor_box"].append(objects.ious([(y.abs() <= 1) & (x.abs() <= 1) for y, x in places]))
        floors["floor_ellipse"].append(objects.ious([y.square() + x.square() <= 1 for y, x in places]))
    return {kind: torch.cat(ious).cpu() for kind, ious in floors.items()}


@dataclass(frozen=True)
class _Objects:
    """The objects of an image: boxes [n, 4], masks [n, H, W] (0 or 1), and the windows that the boxes reach."""

    boxes: Tensor
    masks: Tensor
    windows: list[Window]

    def ious(self, inside: Sequence[Tensor]) -> Tensor:
        """[n], of a mask for each object, bool, that is empty outside its box: given in the object's window.

        Only there is it compared, which on a processor is many times as fast as in whole images.
        """
        if not inside:
            return self.boxes.new_zeros(0)
        pairs = zip(inside, self.masks, self.windows, strict=True)
        both = torch.stack([(mask & whole[window].bool()).sum() for mask, whole, window in pairs])
        areas = torch.stack([mask.sum() for mask in inside]) + self.areas
        return both / (areas - both).clamp(min=1)

    @cached_property
    def areas(self) -> Tensor:
        """[n]: of whole masks, in pixels. Rows are summed first, which is the fast order."""
        return self.masks.sum(1, dtype=torch.int32).sum(1)


def _objects(batch: Batch) -> Iterator[_Objects]:
    """The objects of each image; they come before padding."""
    for boxes, count, masks in zip(batch.boxes, (batch.labels > 0).sum(1).tolist(), batch.masks, strict=True):
        yield _Objects(boxes[:count], masks[:count], windows_of(boxes[:count], *masks.shape[1:]))


def _place(low: Tensor, high: Tensor, num_pixels: int) -> Tensor:
    """[n, pixels]: where the pixels' centres lie in the sides [n] from low to high: -1 at its start, 1 at its end."""
    centres = torch.arange(num_pixels, device=low.device) + 0.5
    return (2 * centres - (low + high)[:, None]) / (high - low)[:, None]


def _mean(values: Tensor) -> float | None:
    return 100 * float(values.double().mean()) if len(values) else None
