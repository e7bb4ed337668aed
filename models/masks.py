"""Masks between the image and the RoI's grid: cut out for training, pasted back for evaluation.

Both are exact for any real-valued box and the same in all arms: libraries differ here by half a point of mask AP,
which would be mistaken for an effect of the RoI operator.

Letters: N RoIs, M mask side, H and W image side. Boxes are xyxy in image pixels; pixel i covers [i, i + 1).
Both operations are separable, so each is two matrix products: rows, then columns.
"""

import torch
from torch import Tensor

CHUNK = 8
"""Masks processed at a time: converted to floats all at once, they would not fit in the processor's cache."""


def crop_masks(masks: Tensor, boxes: Tensor, mask_size: int, threshold: float = 0.5) -> Tensor:
    """The training target: the intersection of each RoI with its object's mask (section 3).

    masks [N, H, W] (0 or 1), boxes [N, 4] -> [N, M, M] of 0.0 or 1.0: whether the object covers at least this share
    of the cell's area. The area is exact, not sampled.
    """
    heights, widths = (((boxes[:, i + 2] - boxes[:, i]) / mask_size).clamp(min=1e-6) for i in (1, 0))
    rows = _length_before(boxes[:, 1], heights, mask_size, masks.shape[1]).diff(dim=1)  # [N, M, H]
    columns = _length_before(boxes[:, 0], widths, mask_size, masks.shape[2])  # [N, M + 1, W]
    chunks = zip(rows.split(CHUNK), masks.split(CHUNK), columns.split(CHUNK), strict=True)
    with torch.autocast(boxes.device.type, enabled=False):  # in bfloat16 areas would be off by up to 1 %
        covered = torch.cat([r @ m.to(boxes.dtype) @ c.mT for r, m, c in chunks]).diff(dim=2)  # pixels
    return (covered >= threshold * (heights * widths)[:, None, None]).to(boxes.dtype)


def paste_masks(probabilities: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """The inverse: each mask resized to its box by bilinear interpolation, then binarised (section 3.1).

    probabilities [N, M, M], boxes [N, 4] -> bool [N, H, W]. A pixel takes the value at its centre; outside the box
    it is False.
    """
    pixels = lambda count: torch.arange(count, device=boxes.device) + 0.5  # noqa: E731
    rows = interpolation(boxes[:, 1], boxes[:, 3], probabilities.shape[1], pixels(height))  # [N, H, M]
    columns = interpolation(boxes[:, 0], boxes[:, 2], probabilities.shape[2], pixels(width))  # [N, W, M]
    chunks = zip(rows.split(CHUNK), probabilities.split(CHUNK), columns.split(CHUNK), strict=True)
    with torch.autocast(boxes.device.type, enabled=False):
        return torch.cat([r @ p @ c.mT >= threshold for r, p, c in chunks])


def _length_before(start: Tensor, size: Tensor, num_cells: int, num_pixels: int) -> Tensor:
    """[N, cells + 1, pixels]: how much of each pixel's length lies before each border of cells of a size [N] from
    `start` [N] on; between the borders of a cell it rises by what the pixel shares with the cell."""
    borders = start[:, None] + size[:, None] * torch.arange(num_cells + 1, device=start.device)
    pixel = torch.arange(num_pixels, device=start.device, dtype=start.dtype)
    return (borders[:, :, None] - pixel).clamp_(0, 1)


def interpolation(low: Tensor, high: Tensor, num_cells: int, points: Tensor) -> Tensor:
    """[N, S, cells]: bilinear weights of the cells of [low, high] at points [S] or [N, S], 0 outside the box."""
    low, high, points = low[:, None, None], high[:, None, None], points[..., None]
    position = ((points - low) / (high - low).clamp(min=1e-6) * num_cells - 0.5).clamp(0, num_cells - 1)
    weights = (1 - (position - torch.arange(num_cells, device=low.device)).abs()).clamp(min=0)
    return weights * ((points >= low) & (points < high))
