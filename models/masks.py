"""Masks between the image and the RoI's grid: cut out for training, pasted back for evaluation.

Both are exact for any real-valued box and the same in all arms: libraries differ here by half a point of mask AP,
which would be mistaken for an effect of the RoI operator.

Letters: G objects, N RoIs, M mask side, H and W image side. Boxes are xyxy in image pixels; pixel i covers [i, i + 1).
Both operations are separable, so each is two matrix products: rows, then columns.
"""

import numpy as np
import torch
from torch import Tensor

Window = tuple[slice, slice]
"""Rows and columns of an image."""

CHUNK = 8
"""Masks processed at a time: converted to floats all at once, they would not fit in the processor's cache."""


def crop_masks(masks: Tensor, objects: Tensor, boxes: Tensor, mask_size: int, threshold: float = 0.5) -> Tensor:
    """The training target: the intersection of each RoI with its object's mask (section 3).

    masks [G, H, W] (0 or 1), objects [N] int64 (which mask is each RoI's), boxes [N, 4] -> [N, M, M] of 0.0 or 1.0:
    whether the object covers at least this share of the cell's area. The area is exact, not sampled.
    """
    boxes = boxes.detach()
    with torch.autocast(boxes.device.type, enabled=False):  # in bfloat16 areas would be off by up to 1 %
        cells = ((boxes[:, 2:] - boxes[:, :2]) / mask_size).clamp(min=1e-6)  # [N, 2], width and height
        steps = torch.arange(mask_size + 1, device=boxes.device)
        borders = boxes[:, :2, None] + cells[:, :, None] * steps  # [N, 2, M + 1], x and y
        areas = _areas_by_object if boxes.device.type == "cpu" and len(boxes) else _areas_by_chunk
        covered = areas(masks, objects, borders) >= threshold * cells.prod(dim=1)[:, None, None]
    return covered.to(boxes.dtype)


def _areas_by_object(masks: Tensor, objects: Tensor, borders: Tensor) -> Tensor:
    """The pixels that each cell shares with its object, [N, M, M]; of a mask only what its RoIs reach is looked at."""
    order = objects.argsort(stable=True)
    numbers, counts = objects[order].unique_consecutive(return_counts=True)
    borders, first = borders[order], (counts.cumsum(0) - counts).numpy()
    low = np.minimum.reduceat(borders[..., 0].numpy(), first)
    high = np.maximum.reduceat(borders[..., -1].numpy(), first)
    windows = windows_of(torch.from_numpy(np.hstack([low, high])), *masks.shape[1:])
    of_objects = zip(numbers.tolist(), windows, borders.split(counts.tolist()), strict=True)
    areas = torch.cat([_areas(masks[(number, *window)], part, window) for number, window, part in of_objects])
    return areas[order.argsort()]


def _areas_by_chunk(masks: Tensor, objects: Tensor, borders: Tensor) -> Tensor:
    """The same from whole masks: a GPU takes longer for many small operations, and to tell where RoIs are."""
    whole = slice(0, masks.shape[1]), slice(0, masks.shape[2])
    chunks = zip(objects.split(CHUNK), borders.split(CHUNK), strict=True)
    return torch.cat([_areas(masks.index_select(0, of_rois), part, whole) for of_rois, part in chunks])


def _areas(masks: Tensor, borders: Tensor, window: Window) -> Tensor:
    """The same from masks that are cut to the window: one for each RoI [N, h, w], or one for all of them [h, w]."""
    y, x = (
        (borders[:, axis, :, None] - torch.arange(part.start, part.stop, device=borders.device)).clamp_(0, 1)
        for axis, part in zip((1, 0), window, strict=True)
    )  # how much of each pixel's length lies before each border: between two it rises by what it shares with the cell
    return (y.diff(dim=1) @ masks.to(borders.dtype) @ x.mT).diff(dim=2)


def paste_masks(probabilities: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """The inverse: each mask resized to its box by bilinear interpolation, then binarised (section 3.1).

    probabilities [N, M, M], boxes [N, 4] -> bool [N, H, W]. A pixel takes the value at its centre; outside the box
    it is False.
    """
    pasted = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    windows = windows_of(boxes, height, width)
    with torch.autocast(boxes.device.type, enabled=False):
        for first in range(0, len(boxes), CHUNK):
            chunk = slice(first, first + CHUNK)
            inside = _resized(probabilities[chunk], boxes[chunk], windows[chunk]) >= threshold
            for window, image, mask in zip(windows[chunk], pasted[chunk], inside, strict=True):
                part = image[window]
                part.copy_(mask[: part.shape[0], : part.shape[1]])
    return pasted


def _resized(probabilities: Tensor, boxes: Tensor, windows: list[Window]) -> Tensor:
    """Each mask resized to its box, in its window: [N, h, w], with the sides of the largest; 0 outside the box."""
    weights = []
    for axis in (1, 0):
        parts = [window[1 - axis] for window in windows]
        points = torch.arange(max(part.stop - part.start for part in parts), device=boxes.device) + 0.5
        points = torch.tensor([part.start for part in parts], device=boxes.device)[:, None] + points
        weights.append(interpolation(boxes[:, axis], boxes[:, axis + 2], probabilities.shape[1], points))
    return weights[0] @ probabilities @ weights[1].mT


def windows_of(boxes: Tensor, height: int, width: int) -> list[Window]:
    """The rows and columns of an image that each box [N, 4] reaches, or one more of either; boxes may be NaN."""
    windows = []
    for x1, y1, x2, y2 in boxes.detach().nan_to_num().tolist():
        rows, columns = (
            slice(min(max(int(low), 0), side), min(max(int(high) + 1, int(low), 0), side))
            for low, high, side in ((y1, y2, height), (x1, x2, width))
        )
        windows.append((rows, columns))
    return windows


def interpolation(low: Tensor, high: Tensor, num_cells: int, points: Tensor) -> Tensor:
    """[N, S, cells]: bilinear weights of the cells of [low, high] at points [S] or [N, S], 0 outside the box."""
    low, high, points = low[:, None, None], high[:, None, None], points[..., None]
    position = ((points - low) / (high - low).clamp(min=1e-6) * num_cells - 0.5).clamp(0, num_cells - 1)
    weights = (1 - (position - torch.arange(num_cells, device=low.device)).abs()).clamp(min=0)
    return weights * ((points >= low) & (points < high))
