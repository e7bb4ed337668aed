"""The operators' bins, cells and samples on one axis, for all RoIs at once: `geometry.py` in batched form.

Letters: K RoIs, P bins along the axis, S sample slots in a bin, L cells along the axis (of each RoI's map: [K]).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Pairs = tuple[Tensor, Tensor]
"""What bins read on one axis: cells [K, P, N], int64, and their weights [K, P, N]."""

SMALL_MAP = 1 << 12  # cells: no bin can be larger, whatever the boxes
LARGEST = 1e38  # of a coordinate, so that sides do not overflow


@dataclass(frozen=True)
class Axis:
    """RoIs on one axis of their maps, and how they are sampled there.

    low, high       [K] ends in cells of the map; float64 for all sums to be right to float32's last bit
    length          [K] cells of the axis, of each RoI's map
    num_bins        P
    sampling_ratio, aligned: see `ops.validate.PoolSpec`
    """

    low: Tensor
    high: Tensor
    length: Tensor
    num_bins: int
    sampling_ratio: int
    aligned: bool


def round_half_away(values: Tensor) -> Tensor:
    """Round to whole numbers, halves away from zero; exact also where adding 0.5 would round up."""
    whole = values.trunc()
    return torch.where((values - whole).abs() >= 0.5, whole + values.sign(), whole)


def hide_nonfinite(boxes: Tensor) -> Tensor:
    """Boxes [K, 4]; those with NaN or out of all bounds are moved far outside any map, where they pool to 0."""
    return torch.where((boxes.abs() <= LARGEST).all(dim=1, keepdim=True), boxes, -1e6)


def round_interval(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The first cell of RoIs on one axis and how many they span, int64 [K], for ends [K] in feature cells."""
    first, last = (round_half_away(end).clamp(-(2**30), 2**30).long() for end in (low, high))
    return first, (last - first + 1).clamp(min=1)


def pool_bins(low: Tensor, high: Tensor, num_bins: int, length: int) -> tuple[Tensor, Tensor]:
    """RoIPool's bins on one axis for ends [K] in feature cells: (start, end), each [K, P] int64 in [0, L]."""
    first, size = (values[:, None] for values in round_interval(low, high))
    bins = torch.arange(num_bins, device=low.device)
    start = first + (bins * size).div(num_bins, rounding_mode="floor")
    end = first - (-(bins + 1) * size).div(num_bins, rounding_mode="floor")
    return start.clamp(0, length), end.clamp(0, length)


def largest_bin(boxes: Tensor, output_size: tuple[int, int], sides: Sequence[int]) -> int:
    """A bound on the cells of a bin of RoIPool, for boxes [K, 4] in cells of a map of `sides` (H, W); on a CPU."""
    if not len(boxes):
        return 0
    if sides[0] * sides[1] <= SMALL_MAP:
        return sides[0] * sides[1]
    x1, y1, x2, y2 = boxes.double().unbind(1)
    cells = 1
    for low, high, num_bins, length in zip((y1, x1), (y2, x2), output_size, sides, strict=True):
        # A bin's share of a RoI; the RoI's ends and its own are rounded outwards by a cell at most.
        longest = int((high - low).max().clamp(0, 2**31))
        cells *= min(longest // num_bins + 4, length)
    return cells


def part_cells(low: Tensor, high: Tensor, num_cells: int, scale: float, length: int) -> tuple[Tensor, Tensor]:
    """`geometry.part_cells` for ends [K] in image pixels: (start, end), each [K, P] int64 in [0, L]."""
    low, high = (round_half_away(end).double()[:, None] for end in (low, high))
    size = (high - low).clamp(min=0.1 / scale)
    edges = torch.arange(num_cells + 1, device=low.device)
    edges = (num_cells * low + edges * size) * scale / num_cells  # [K, P + 1]
    return edges[:, :-1].floor().clamp(0, length).long(), edges[:, 1:].ceil().clamp(0, length).long()


def share_pairs(start: Tensor, end: Tensor, length: int) -> Pairs:
    """Cells [start, end) of bins [K, P] and their shares of the bin's average: (cells, weights), each [K, P, N]."""
    count = (end - start).clamp(min=0)
    span = max(int(count.max()), 1) if count.numel() else 1
    steps = torch.arange(span, device=start.device)
    cells = (start[..., None] + steps).clamp(0, length - 1)
    return cells, (steps < count[..., None]).double() / count.clamp(min=1)[..., None]


def axis_samples(axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Where bins are sampled on one axis.

    Returns positions [K, P, S] in cells, used [K, P, S] (bool; the slots that hold a sample of their own) and count [K]
    (samples per bin, which may be 0). With an adaptive count a bin may have more samples than slots: those further
    out than the first on either side of the map are left out, as they read 0 like it. Slots that are not used
    repeat the bin's last sample.
    """
    low, high, length = axis.low, axis.high, axis.length
    num_bins, sampling_ratio = axis.num_bins, axis.sampling_ratio
    if axis.aligned:
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
        last_slot = ((length[:, None] - left) / whole + 0.5).ceil().clamp(min=0).minimum(last)
        num_slots = int((last_slot - first_slot).max()) + 1 if len(count) else 1
        slot = first_slot[..., None] + torch.arange(max(num_slots, 1), device=low.device)
        used = slot <= last_slot[..., None]
        slot = slot.minimum(last_slot[..., None]).clamp(min=0)
    return left[..., None] + (slot + 0.5) * gap, used & (count[:, None, None] > 0), count


def _share(positions: Tensor, used: Tensor, count: Tensor, length: Tensor) -> Tensor:
    """Each sample's share of its bin's mean, [K, P, S]: 1 / count, or 0 where it reads nothing."""
    reads = used & (positions >= -1) & (positions <= length[:, None, None])
    return reads.to(positions.dtype) / count.clamp(min=1)[:, None, None]


def _validity(positions: Tensor, count: Tensor, length: Tensor) -> Tensor:
    """1 for samples that read the map, 0 for the others, [K, P, S]; used or not makes no difference to a maximum."""
    inside = (positions >= -1) & (positions <= length[:, None, None])
    return (inside & (count > 0)[:, None, None]).to(positions.dtype)


def _neighbours(positions: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """The two cells beside each position [K, P, S] and their weights: int64 [K, P, S, 2] and [K, P, S, 2]."""
    last = (length - 1)[:, None, None]
    inside = positions.clamp(torch.zeros_like(last), last)
    below = inside.detach().floor().minimum((last - 1).clamp(min=0))
    above = inside - below
    cells = torch.stack([below, (below + 1).minimum(last)], dim=-1).long()
    return cells, torch.stack([1 - above, above], dim=-1)


def mean_pairs(axis: Axis) -> Pairs:
    """What the mean of each bin's samples reads: (cells, weights), each [K, P, N].

    N is two a sample, or the number of cells that the bins span where that is less. A cell may come twice.
    """
    positions, used, count = axis_samples(axis)
    length = axis.length
    cells, weights = _neighbours(positions, length)
    cells = cells.flatten(2)
    weights = (weights * _share(positions, used, count, length)[..., None]).flatten(2)
    # Positions run one way: a bin's lowest cell is that of its first or its last sample. amin takes ten times as long.
    first = torch.minimum(cells[:, :, :1], cells[:, :, -2:-1])
    span = int((cells.amax(dim=2, keepdim=True) - first).max()) + 1 if cells.numel() else 1
    if span >= cells.shape[2]:
        return cells, weights
    merged = weights.new_zeros(*weights.shape[:2], span).scatter_add(2, cells - first, weights)
    last = (length - 1).long()[:, None, None]
    return (first + torch.arange(span, device=cells.device)).minimum(last), merged


def sample_pairs(positions: Tensor, count: Tensor, length: Tensor) -> Pairs:
    """What each single sample reads: the two cells beside it and their weights, each [K, P * S, 2]."""
    cells, weights = _neighbours(positions, length)
    return cells.flatten(1, 2), (weights * _validity(positions, count, length)[..., None]).flatten(1, 2)
