"""Boxes and their regression targets (Fast R-CNN, appendix C of R-CNN).

Boxes are xyxy in image pixels, continuous: pixel i covers [i, i + 1). Any leading dimensions.
"""

import math

import torch
from torch import Tensor

# A predicted width is at most this many times the reference's, so that exp cannot overflow (Detectron's clip).
MAX_LOG_SCALE = math.log(1000.0 / 16)


def encode_boxes(boxes: Tensor, references: Tensor, weights: tuple[float, float]) -> Tensor:
    """Deltas [..., 4] = (dx, dy, dw, dh) that take `references` to `boxes`; weights: factors of (dx, dy), of (dw, dh).

    Boxes without area are treated as one pixel wide, so that padded entries stay finite.
    """
    centre, size = _centre_and_size(boxes)
    reference_centre, reference_size = _centre_and_size(references)
    shift, log_scale = (centre - reference_centre) / reference_size, (size / reference_size).log()
    return torch.cat([shift * weights[0], log_scale * weights[1]], dim=-1)


def decode_boxes(deltas: Tensor, references: Tensor, weights: tuple[float, float]) -> Tensor:
    """The inverse of `encode_boxes`: boxes [..., 4] from deltas [..., 4] and references [..., 4]."""
    shift, log_scale = deltas.split(2, dim=-1)
    reference_centre, reference_size = _centre_and_size(references)
    centre = shift / weights[0] * reference_size + reference_centre
    half = 0.5 * (log_scale / weights[1]).clamp(max=MAX_LOG_SCALE).exp() * reference_size
    return torch.cat([centre - half, centre + half], dim=-1)


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes [B, N, 4] cut to their images; sizes [B, 2] are (height, width)."""
    limit = sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)  # [B, 1, 4]: w, h, w, h
    return torch.minimum(boxes.clamp(min=0), limit)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes.split(2, dim=-1)
    return (low + high) / 2, torch.where(high > low, high - low, 1.0)
