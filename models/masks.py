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

    masks [G, H, W] (0 or 1), objects [N] (the mask of each RoI), boxes [N, 4] -> [N, M, M] of 0.0 or 1.0: whether the
    object covers at least this share of the cell's area. The area is exact, not sampled.
    """
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
    places = windows(np.hstack([low, high]).tolist(), *masks.shape[1:])
    of_objects = zip(numbers.tolist(), places, borders.split(counts.tolist()), strict=True)
    areas = torch.cat([_areas(masks[(number, *place)], part, place) for number, place, part in of_objects])
    return areas[order.argsort()]


def _areas_by_chunk(masks: Tensor, objects: Tensor, borders: Tensor) -> Tensor:
    """The same from whole masks: a GPU takes longer for many small operations, and to tell where RoIs are."""
    whole = slice(0, masks.shape[1]), slice(0, masks.shape[2])
    chunks = zip(objects.split(CHUNK), borders.split(CHUNK), strict=True)
    return torch.cat([_areas(masks.index_select(0, of_rois), part, whole) for of_rois, part in chunks])


def _areas(masks: Tensor, borders: Tensor, window: Window) -> Tensor:
    """The same from the part of the masks in the window: [N, h, w], or [h, w] if all RoIs have the same."""
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
    places = windows(boxes.tolist(), height, width)
    with torch.autocast(boxes.device.type, enabled=False):
        for first in range(0, len(boxes), CHUNK):
            chunk = slice(first, first + CHUNK)
            inside = _resized(probabilities[chunk], boxes[chunk], places[chunk]) >= threshold
            for place, image, mask in zip(places[chunk], pasted[chunk], inside, strict=True):
                part = image[place]
                part.copy_(mask[: part.shape[0], : part.shape[1]])
    return pasted


def _resized(probabilities: Tensor, boxes: Tensor, places: list[Window]) -> Tensor:
    """The values in the windows that the boxes [N, 4] reach, [N, h, w] for the largest; beyond its box each is 0."""
    weights = []
    for axis in (1, 0):
        parts = [place[1 - axis] for place in places]
        points = torch.arange(max(part.stop - part.start for part in parts), device=boxes.device) + 0.5
        starts = torch.tensor([part.start for part in parts], device=boxes.device)
        of_windows = starts[:, None] + points
        weights.append(interpolation(boxes[:, axis], boxes[:, axis + 2], probabilities.shape[1], of_windows))
    return weights[0] @ probabilities @ weights[1].mT


def windows(boxes: list[list[float]], height: int, width: int) -> list[Window]:
    """Of each box the rows and columns of an image that it reaches."""
    places = []
    for x1, y1, x2, y2 in boxes:
        sides = ((y1, y2, height), (x1, x2, width))
        rows, columns = (slice(*(min(max(int(end), 0), side) for end in (low, high + 1))) for low, high, side in sides)
        places.append((rows, columns))
    return places


def interpolation(low: Tensor, high: Tensor, num_cells: int, points: Tensor) -> Tensor:
    """[N, S, cells]: bilinear weights of the cells of [low, high] at points [S] or [N, S], 0 outside the box."""
    low, high, points = low[:, None, None], high[:, None, None], points[..., None]
    position = ((points - low) / (high - low).clamp(min=1e-6) * num_cells - 0.5).clamp(0, num_cells - 1)
    weights = (1 - (position - torch.arange(num_cells, device=low.device)).abs()).clamp(min=0)
    return weights * ((points >= low) & (points < high))
