"""RoIAlign's and RoIWarp's sample positions for all RoIs at once, as tensors: `geometry.py` in batched form.

Letters: K RoIs, P bins along the axis, S sample slots in a bin, L cells along the axis.
"""

import torch
from torch import Tensor


def round_half_away(values: Tensor) -> Tensor:
    """Round to whole numbers, halves away from zero; exact also where adding 0.5 would round up."""
    whole = values.trunc()
    return torch.where((values - whole).abs() >= 0.5, whole + values.sign(), whole)


def hide_nonfinite(boxes: Tensor) -> Tensor:
    """Boxes [K, 4] with those that hold NaN or infinity moved far outside any map, where they pool to 0."""
    return torch.where(boxes.isfinite().all(dim=1, keepdim=True), boxes, -1e6)


def axis_samples(
    low: Tensor, high: Tensor, num_bins: int, sampling_ratio: int, aligned: bool, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample positions on one axis for ends `low`, `high` [K] in feature cells.

    Returns positions [K, P, S], used [K, P, S] (bool; the slots that hold a sample of their own) and count [K]
    (samples a bin, which may be 0). With an adaptive count a bin may have more samples than slots: those further
    out than the first on either side of the map are left out, as they read 0 like it. Slots that are not used
    repeat the bin's last sample.
    """
    if aligned:
        start, size = low - 0.5, high - low
    else:
        start, size = low, (high - low).clamp(min=1)
    bins = torch.arange(num_bins, device=low.device)
    step = size[:, None] / num_bins
    left = start[:, None] + bins * step  # [K, P]
    if sampling_ratio > 0:
        slots = torch.arange(sampling_ratio, device=low.device) + 0.5
        positions = left[..., None] + slots * (step / sampling_ratio)[..., None]
        count = torch.full_like(size, sampling_ratio).detach()
        return positions, torch.ones_like(positions, dtype=torch.bool), count
    count = (size.detach() / num_bins).ceil().clamp(min=0)
    gap = (step / count.clamp(min=1)[:, None])[..., None]  # [K, 1, 1]
    with torch.no_grad():
        whole = gap.clamp(min=torch.finfo(gap.dtype).tiny).squeeze(2)
        last = count[:, None] - 1
        first_slot = ((-1 - left) / whole - 0.5).floor().clamp(min=0).minimum(last)
        last_slot = ((length - left) / whole + 0.5).ceil().clamp(min=0).minimum(last)
        num_slots = int((last_slot - first_slot).max()) + 1 if len(count) else 1
        slot = first_slot[..., None] + torch.arange(max(num_slots, 1), device=low.device)
        used = slot <= last_slot[..., None]
        slot = slot.minimum(last_slot[..., None]).clamp(min=0)
    return left[..., None] + (slot + 0.5) * gap, used & (count[:, None, None] > 0), count


def hat(positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Positions moved into [0, L - 1], and whether each reads the map at all (within one cell of it)."""
    return positions.clamp(0, length - 1), (positions >= -1) & (positions <= length)


def mean_weights(positions: Tensor, used: Tensor, count: Tensor, length: int) -> Tensor:
    """The weight of each cell in the mean of a bin's samples: [K, P, L]."""
    inside, valid = hat(positions, length)
    share = (valid & used).to(positions.dtype) / count.clamp(min=1)[:, None, None]
    cells = torch.arange(length, device=positions.device, dtype=positions.dtype)
    total = None
    for slot in range(positions.shape[2]):
        weights = (1 - (inside[..., slot, None] - cells).abs()).clamp_(min=0) * share[..., slot, None]
        total = weights if total is None else total + weights
    return total


def sample_weights(positions: Tensor, count: Tensor, length: int) -> Tensor:
    """The weight of each cell in each single sample: [K, P * S, L]; all 0 for RoIs without samples."""
    inside, valid = hat(positions, length)
    cells = torch.arange(length, device=positions.device, dtype=positions.dtype)
    weights = (1 - (inside[..., None] - cells).abs()).clamp(min=0)
    return (weights * (valid & (count > 0)[:, None, None])[..., None]).flatten(1, 2)
