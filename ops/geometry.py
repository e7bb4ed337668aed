"""The definition of the RoI operators, one axis at a time, in plain Python numbers (no torch).

A box is cut into P bins along each axis on its own; everything that tells RoIPool, RoIWarp and RoIAlign apart
happens here. Positions are in feature cells: cell i has its sample point at i. The functions only add, multiply
and compare, so that `reference.py` can also pass them 0-dimensional tensors and differentiate through them.

Letters: P bins along the axis, S samples in a bin, L cells along the axis of the feature map.
"""

import math
from typing import Any


def round_half_away(value: float) -> int:
    """Round to the nearest integer, halves away from zero (C's `round`; Python's own rounds halves to even)."""
    whole = math.trunc(value)
    return whole + int(math.copysign(1, value)) if abs(value - whole) >= 0.5 else whole


def pool_bins(low: float, high: float, num_bins: int, length: int) -> list[tuple[int, int]]:
    """RoIPool's bins on one axis: P pairs (start, end) of cells, end excluded; empty where end <= start.

    `low` and `high` are the box's ends in feature cells (image pixels times the spatial scale), not yet rounded.
    Fast R-CNN section 2.1: both ends are rounded to whole cells, both end cells belong to the RoI, and the bins'
    own edges are rounded outwards, so that neighbouring bins overlap. The edges are computed in whole numbers:
    in float32, as torchvision does it, 7 * (57 / 7) exceeds 57 and the last bin reads a cell outside the RoI.
    """
    first, last = round_half_away(low), round_half_away(high)
    size = max(last - first + 1, 1)
    bins = []
    for p in range(num_bins):
        start = first + (p * size) // num_bins
        end = first - (-(p + 1) * size) // num_bins
        bins.append((min(max(start, 0), length), min(max(end, 0), length)))
    return bins


def part_cells(low: float, high: float, num_cells: int, scale: float, length: int) -> list[tuple[int, int]]:
    """Position-sensitive pooling's cells on one axis: P pairs (start, end) of the map's cells, end excluded.

    `low` and `high` are the box's ends in image pixels. FCIS rounds them to whole pixels before scaling, and each
    cell's edges outwards to whole cells of the map. All products come before the one division, so that an edge that
    falls on a whole cell is found there exactly (for scales that are powers of two, as 1 / 16).
    """
    first = round_half_away(low)
    size = max(round_half_away(high) - first, 0.1 / scale)
    edges = [(num_cells * first + p * size) * scale / num_cells for p in range(num_cells + 1)]
    clamp = lambda edge: min(max(edge, 0), length)  # noqa: E731
    return [(clamp(math.floor(a)), clamp(math.ceil(b))) for a, b in zip(edges, edges[1:], strict=False)]


def align_interval(low: Any, high: Any, aligned: bool) -> tuple[Any, Any]:
    """RoIAlign's interval on one axis as (start, size), nothing rounded (Mask R-CNN section 3).

    With `aligned`, cell i is taken to be centred on i + 1/2, so the interval moves by half a cell; without, an
    interval shorter than one cell is stretched to one cell, as in the original release.
    """
    if aligned:
        return low - 0.5, high - low
    size = high - low
    return low, size if size > 1 else size * 0 + 1


def warp_interval(low: float, high: float) -> tuple[float, float]:
    """RoIWarp's interval on one axis as (start, size): RoIAlign's, of the box rounded to whole cells."""
    return align_interval(float(round_half_away(low)), float(round_half_away(high)), aligned=False)


def num_samples(size: Any, num_bins: int, sampling_ratio: int) -> int:
    """Samples in a bin along one axis: `sampling_ratio`, or about one a cell where that is 0 or less (adaptive).

    An adaptive count is 0 for an interval of no length, and the RoI's output is then 0.
    """
    return sampling_ratio if sampling_ratio > 0 else max(math.ceil(size / num_bins), 0)


def sample_positions(start: Any, size: Any, num_bins: int, samples: int) -> list[list[Any]]:
    """The P x S positions sampled along one axis: S points spread evenly in each of P equal bins."""
    step = size / num_bins
    return [[start + p * step + (s + 0.5) * step / samples for s in range(samples)] for p in range(num_bins)]


def hat_weights(position: Any, length: int) -> list[tuple[int, Any]]:
    """Linear interpolation at a position: pairs (cell, weight), one or two of them.

    Further than one cell outside [0, L - 1] nothing is read (an empty list); nearer, the position is moved to the
    border cell. NaN reads nothing.
    """
    if not -1 <= position <= length:
        return []
    if position <= 0:
        return [(0, position * 0 + 1)]
    cell = int(position)
    if cell >= length - 1:
        return [(length - 1, position * 0 + 1)]
    return [(cell, 1 - (position - cell)), (cell + 1, position - cell)]
