"""Masks between the image and the RoI's grid: cut out for training, pasted back for evaluation.

Both are exact for any real-valued box and the same in all arms: libraries differ here by half a point of mask AP,
which would be mistaken for an effect of the RoI operator.

Letters: N RoIs, M mask side, H and W image side. Boxes are xyxy in image pixels; pixel i covers [i, i + 1).
Both operations are separable, so each is two matrix products: rows, then columns.
"""

import torch
from torch import Tensor

CHUNK = 8
"""Masks worked on at a time: as numbers all of them together would not fit into a processor's cache."""


def crop_masks(masks: Tensor, boxes: Tensor, mask_size: int, threshold: float = 0.5) -> Tensor:
    """The training target: the intersection of each RoI with its object's mask (section 3).

    masks [N, H, W] (0 or 1), boxes [N, 4] -> [N, M, M] of 0.0 or 1.0: whether the object covers at least this share
    of the cell's area. The area is exact, not sampled.
    """
    rows = _coverage(boxes[:, 1], boxes[:, 3], mask_size, masks.shape[1])  # [N, M, H]
    columns = _coverage(boxes[:, 0], boxes[:, 2], mask_size, masks.shape[2])  # [N, M, W]
    parts = zip(rows.split(CHUNK), masks.split(CHUNK), columns.split(CHUNK), strict=True)
    with torch.autocast(boxes.device.type, enabled=False):  # in bfloat16 areas would be off by up to 1 %
        covered = torch.cat([r @ m.to(boxes.dtype) @ c.mT for r, m, c in parts])
    return (covered >= threshold).to(boxes.dtype)


def paste_masks(probabilities: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """The inverse: each mask resized to its box by bilinear interpolation, then binarised (section 3.1).

    probabilities [N, M, M], boxes [N, 4] -> bool [N, H, W]. A pixel takes the value at its centre; outside the box
    it is False.
    """
    pixels = lambda count: torch.arange(count, device=boxes.device) + 0.5  # noqa: E731
    rows = interpolation(boxes[:, 1], boxes[:, 3], probabilities.shape[1], pixels(height))  # [N, H, M]
    columns = interpolation(boxes[:, 0], boxes[:, 2], probabilities.shape[2], pixels(width))  # [N, W, M]
    parts = zip(rows.split(CHUNK), probabilities.split(CHUNK), columns.split(CHUNK), strict=True)
    with torch.autocast(boxes.device.type, enabled=False):
        return torch.cat([r @ p @ c.mT >= threshold for r, p, c in parts])


def _coverage(low: Tensor, high: Tensor, num_cells: int, num_pixels: int) -> Tensor:
    """[N, cells, pixels]: the share of each cell of [low, high] that each pixel covers."""
    size = ((high - low) / num_cells).clamp(min=1e-6)[:, None, None]
    start = low[:, None, None] + size * torch.arange(num_cells, device=low.device)[:, None]
    pixel = torch.arange(num_pixels, device=low.device)
    overlap = torch.minimum(start + size, pixel + 1.0) - torch.maximum(start, pixel.to(low.dtype))
    return overlap.clamp(min=0) / size


def interpolation(low: Tensor, high: Tensor, num_cells: int, points: Tensor) -> Tensor:
    """[N, S, cells]: bilinear weights of the cells of [low, high] at points [S] or [N, S], 0 outside the box."""
    low, high, points = low[:, None, None], high[:, None, None], points[..., None]
    position = ((points - low) / (high - low).clamp(min=1e-6) * num_cells - 0.5).clamp(0, num_cells - 1)
    weights = (1 - (position - torch.arange(num_cells, device=low.device)).abs()).clamp(min=0)
    return weights * ((points >= low) & (points < high))
