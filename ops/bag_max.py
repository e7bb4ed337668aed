"""RoIPool without a gradient: maxima over bags of cells.

`torch.sparse.mm(..., reduce="amax")` takes the maximum over the rows of a channels-last map that a sparse matrix
names, in vector registers and in parallel, and copies nothing. Its variant that returns the argmax is ten times
slower: where a gradient is needed, `crop_max.py` serves.
Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width, N = K * P * Q bins.
"""

import warnings

import torch
from torch import Tensor

from ops.sampling import round_half_away
from ops.validate import Rois

CELLS_AT_ONCE = 1 << 23  # bounds the index buffers to some 100 MB where boxes are large


def roi_pool(feature: Tensor, rois: Rois, output_size: tuple[int, int]) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] (float32, float64) at boxes in feature cells. [K, C, P, Q], channels last."""
    batch, channels, height, width = feature.shape
    x1, y1, x2, y2 = rois.boxes.unbind(1)
    rows = pool_bins(y1, y2, output_size[0], height)
    columns = pool_bins(x1, x2, output_size[1], width)
    table = feature.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    parts = []
    for some in _portions(rows, columns):
        tall, wide = ((start[some], end[some]) for start, end in (rows, columns))
        parts.append(_amax(*_bags(rois.image[some], tall, wide, height, width), table))
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out.view(len(rois.image), *output_size, channels).permute(0, 3, 1, 2)


def rounded(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The first cell of RoIs on one axis and how many they span, int64 [K], for ends [K] in feature cells."""
    first, last = (round_half_away(end).clamp(-(2**30), 2**30).long() for end in (low, high))
    return first, (last - first + 1).clamp(min=1)


def pool_bins(low: Tensor, high: Tensor, num_bins: int, length: int) -> tuple[Tensor, Tensor]:
    """RoIPool's bins on one axis for ends [K] in feature cells: (start, end), each [K, P] int64 in [0, L]."""
    first, size = (each[:, None] for each in rounded(low, high))
    bins = torch.arange(num_bins, device=low.device)
    start = first + (bins * size).div(num_bins, rounding_mode="floor")
    end = first - (-(bins + 1) * size).div(num_bins, rounding_mode="floor")
    return start.clamp(0, length), end.clamp(0, length)


def _portions(rows, columns) -> list[slice]:
    """Runs of RoIs whose bags together hold at most `CELLS_AT_ONCE` cells, or a single RoI."""
    tall, wide = ((end - start).clamp(min=0).sum(dim=1) for start, end in (rows, columns))
    total = (tall * wide).cumsum(0)
    if not len(total) or int(total[-1]) <= CELLS_AT_ONCE:
        return [slice(None)]
    portions, first, taken = [], 0, 0
    while first < len(total):
        after = max(int(torch.searchsorted(total, taken + CELLS_AT_ONCE, right=True)), first + 1)
        portions.append(slice(first, after))
        first, taken = after, int(total[after - 1])
    return portions


def _bags(image: Tensor, rows, columns, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The cells of every bin, in raster order, as a sparse matrix has them: row starts [N + 1] and cells."""
    (top, bottom), (left, right) = rows, columns
    tall, wide = (bottom - top).clamp(min=0), (right - left).clamp(min=0)
    count = (tall[:, :, None] * wide[:, None, :]).view(-1)
    starts = torch.cat([count.new_zeros(1), count.cumsum(0)])
    bag = torch.repeat_interleave(count)
    inside = torch.arange(len(bag), device=image.device) - starts[bag]
    across = wide[:, None, :].expand(-1, top.shape[1], -1).reshape(-1)[bag]
    corner = ((image[:, None, None] * height + top[:, :, None]) * width + left[:, None, :]).view(-1)
    return starts, corner[bag] + inside + inside.div(across, rounding_mode="floor") * (width - across)


def _amax(starts: Tensor, cells: Tensor, table: Tensor) -> Tensor:
    if not len(cells):
        return table.new_zeros(len(starts) - 1, table.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        ones = torch.ones(len(cells), dtype=table.dtype, device=table.device)
        matrix = torch.sparse_csr_tensor(starts, cells, ones, (len(starts) - 1, len(table)), check_invariants=False)
        return torch.sparse.mm(matrix, table, reduce="amax")
