"""RoIPool as maxima over bags of cells; for the gradient, integer keys carry the argmax through the same maximum.

`torch.sparse.mm(..., reduce="amax")` takes the maximum over the rows of a channels-last map that a sparse matrix
names, in vector registers and in parallel. Its variant that returns the argmax is ten times slower, so where a
gradient is needed the maximum is taken a second time over keys: whole numbers in float64, the value's place in the
order of float32 above, the cell's number counted downwards below. The largest key is that of the first of the
largest values. The gradient is then one scatter, summed in a fixed order.
Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width, N = K * P * Q bins.
"""

import warnings

import torch
from torch import Tensor

from ops.sampling import round_half_away
from ops.validate import Rois

CELL_BITS = 21  # 32 bits of value and 21 of cell are the whole numbers that float64 holds
CELLS_AT_ONCE = 1 << 23  # bounds the index buffers to some 100 MB where boxes are large
ELEMENTS_AT_ONCE = 1 << 18  # of 8 bytes: what stays in a core's cache


def roi_pool(feature: Tensor, rois: Rois, output_size: tuple[int, int]) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] (float32, float64) at boxes in feature cells. [K, C, P, Q], channels last."""
    batch, channels, height, width = feature.shape
    x1, y1, x2, y2 = rois.boxes.detach().unbind(1)
    rows = pool_bins(y1, y2, output_size[0], height)
    columns = pool_bins(x1, x2, output_size[1], width)
    table = feature.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    parts = []
    for some in _portions(rows, columns):
        tall, wide = ((start[some], end[some]) for start, end in (rows, columns))
        parts.append(_BagMax.apply(table, *_bags(rois.image[some], tall, wide, height, width), height * width))
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out.view(len(rois.image), *output_size, channels).permute(0, 3, 1, 2)


def pool_bins(low: Tensor, high: Tensor, num_bins: int, length: int) -> tuple[Tensor, Tensor]:
    """RoIPool's bins on one axis for ends [K] in feature cells: (start, end), each [K, P] int64 in [0, L]."""
    low, high = (round_half_away(end).clamp(-(2**30), 2**30).long()[:, None] for end in (low, high))
    size = (high - low + 1).clamp(min=1)
    bins = torch.arange(num_bins, device=low.device)
    start = low + (bins * size).div(num_bins, rounding_mode="floor")
    end = low - (-(bins + 1) * size).div(num_bins, rounding_mode="floor")
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


class _BagMax(torch.autograd.Function):
    """Maxima [N, C] over the rows of `table` [T, C] in each bag, 0 where a bag is empty.

    `image_cells` is the number of rows an image has: a bag never spans two images.
    """

    @staticmethod
    def forward(ctx, table, starts, cells, image_cells):
        out = _amax(starts, cells, table)
        if ctx.needs_input_grad[0]:
            float32 = table.dtype == torch.float32 and image_cells <= 1 << CELL_BITS
            source = (_first_by_bits if float32 else _first_by_rank)(table, starts, cells, image_cells)
            empty = (starts[1:] == starts[:-1]).nonzero().squeeze(1)
            source.index_fill_(0, empty, table.numel())  # one place more, for the gradient of empty bags
            ctx.save_for_backward(source)
            ctx.table_shape = table.shape
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (source,) = ctx.saved_tensors
        total = grad.new_zeros(ctx.table_shape.numel() + 1)
        total.scatter_add_(0, source.view(-1), grad.reshape(-1))
        return total[:-1].view(ctx.table_shape), None, None, None


def _amax(starts: Tensor, cells: Tensor, table: Tensor) -> Tensor:
    if not len(cells):
        return table.new_zeros(len(starts) - 1, table.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        ones = torch.ones(len(cells), dtype=table.dtype, device=table.device)
        matrix = torch.sparse_csr_tensor(starts, cells, ones, (len(starts) - 1, len(table)), check_invariants=False)
        return torch.sparse.mm(matrix, table, reduce="amax")


def _first_by_bits(table: Tensor, starts: Tensor, cells: Tensor, image_cells: int) -> Tensor:
    """Where in `table` [T, C] float32 each bag's first maximum lies, as places in flat storage: int64 [N, C]."""
    channels = table.shape[1]
    step = max(ELEMENTS_AT_ONCE // channels, 1)
    numbers = torch.arange(len(table), device=table.device)
    countdown = (image_cells - 1 - numbers % image_cells).double()[:, None]
    keys = torch.empty(table.shape, dtype=torch.float64, device=table.device)
    for first in range(0, len(table), step):
        some = slice(first, first + step)
        bits = (table[some] + 0.0).view(torch.int32)  # adding zero turns -0 into 0, which must tie with it
        ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
        keys[some].copy_(ordered).mul_(float(1 << CELL_BITS)).add_(countdown[some])
    source = torch.empty(len(starts) - 1, channels, dtype=torch.int64, device=table.device)
    # A bag's first cell tells its image; the key's low bits, which of the image's cells it is.
    origin = cells[starts[:-1].clamp(max=max(len(cells) - 1, 0))] if len(cells) else starts[:-1]
    last = (origin - origin % image_cells + image_cells - 1) * channels
    channel = torch.arange(channels, device=table.device)
    for first in range(0, len(source), step):
        some = slice(first, first + step)
        edges = starts[first : first + step + 1]
        best = _amax(edges - edges[0], cells[edges[0] : edges[-1]], keys)
        down = best.long().bitwise_and_((1 << CELL_BITS) - 1)
        torch.sub(last[some, None], down, alpha=channels, out=source[some]).add_(channel)
    return source


def _first_by_rank(table: Tensor, starts: Tensor, cells: Tensor, image_cells: int) -> Tensor:
    """The same for float64, whose bits leave no room for a cell: every channel's cells are ranked by sorting."""
    order = table.sort(dim=0, stable=True, descending=True).indices
    rank = torch.arange(len(table), device=table.device)[:, None].expand_as(order)
    keys = torch.empty_like(order).scatter_(0, order, -rank)
    cell = order.gather(0, -_amax(starts, cells, keys.double()).long())
    return cell * table.shape[1] + torch.arange(table.shape[1], device=table.device)
