"""Weighted sums of cells of the backend `pytorch`: each output bin is a bag of (cell, weight) pairs.

`torch.nn.functional.embedding_bag` sums weighted rows of a channels-last map in vector registers, in parallel over
bags. Its own backward pass is not used: transposed, each cell of the map is a bag of (bin, weight) pairs, and the
same operator writes every cell's gradient once, in a fixed order, without atomics. Dense matrix products were tried
for small maps: they were slower from 100 channels or 12 x 12 cells on.
Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width, M and N pairs of a
bin on the vertical and the horizontal axis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .. import sampling
from ..autograd import differentiable_once
from ..sampling import Axis, Pairs
from ..validate import at_least_float32

PAIRS_AT_ONCE = 1 << 23  # bounds the index and weight buffers to about 100 MB where bins hold many samples


def mean_pairs(axis: Axis, dtype: torch.dtype) -> Pairs:
    """`sampling.mean_pairs`: (cells, weights), each [K, P, N], float64 whatever the map's dtype."""
    return sampling.mean_pairs(axis)


def interpolate(
    maps: Sequence[Tensor], image: Tensor, level: Tensor, pairs_y: Pairs, pairs_x: Pairs, parts: int = 1
) -> Tensor:
    """Each RoI's map through (cells, weights) of rows [K, P, M] and columns [K, Q, N]: [K, C, P, Q].

    maps holds one of [B, C * parts * parts, H, W], so that every level is 0; image is [K]. The map's floating dtype is
    the result's; sums are taken in float32, or float64 for such a map. A bin reads the channels of the part that it
    lies in, of parts x parts. Gradients flow to the map and, where they require one, to the weights.
    """
    feature = at_least_float32(maps[0])
    if parts > 1:
        height, width = feature.shape[2:]
        feature = _mosaic(feature, parts)
        pairs_y, pairs_x = _on_tiles(pairs_y, parts, height), _on_tiles(pairs_x, parts, width)
    return _interpolate(feature, image, pairs_y, pairs_x).to(maps[0].dtype)


def _mosaic(feature: Tensor, parts: int) -> Tensor:
    """The parts' maps side by side, [B, C, parts * H, parts * W]: pooled from there, cells are separable sums."""
    height, width = feature.shape[2:]
    tiles = feature.unflatten(1, (-1, parts, parts)).permute(0, 2, 4, 3, 5, 1)  # [B, parts, H, parts, W, C]
    mosaic = tiles.reshape(-1, parts * height, parts * width, feature.shape[1] // parts**2)
    return mosaic.permute(0, 3, 1, 2)


def _on_tiles(pairs: Pairs, parts: int, length: int) -> Pairs:
    """Pairs [K, P, N] on one axis, each moved to the tile of its part."""
    cells, weights = pairs
    tile = torch.arange(parts, device=cells.device).repeat_interleave(cells.shape[1] // parts)
    return cells + tile[:, None] * length, weights


def _interpolate(feature: Tensor, image: Tensor, pairs_y: Pairs, pairs_x: Pairs) -> Tensor:
    """`interpolate` from one map [B, C, H, W]."""
    height, width = feature.shape[2:]
    table = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])
    (cells_y, weights_y), (cells_x, weights_x) = pairs_y, pairs_x
    shape = (cells_y.shape[1], cells_x.shape[1], feature.shape[1])
    index_type = torch.int32 if len(table) < 2**31 else torch.int64
    start_y = ((image[:, None, None] * height + cells_y) * width).to(index_type)
    cells_x = cells_x.to(index_type)
    weights_y, weights_x = weights_y.to(table.dtype), weights_x.to(table.dtype)
    per_roi = cells_y[:1].numel() * cells_x[:1].numel()
    step = max(PAIRS_AT_ONCE // max(per_roi, 1), 1)
    pooled = []
    for first in range(0, max(len(start_y), 1), step):
        rois = slice(first, first + step)
        cells = _outer(start_y[rois], cells_x[rois], torch.add)
        pooled.append(_BagSum.apply(table, cells, _outer(weights_y[rois], weights_x[rois], torch.mul)))
    out = pooled[0] if len(pooled) == 1 else torch.cat(pooled)
    return out.view(len(start_y), *shape).permute(0, 3, 1, 2)


def _outer(rows: Tensor, columns: Tensor, combine) -> Tensor:
    """All combinations of rows [K, P, M] and columns [K, Q, N], bin by bin: [K * P * Q, M * N]."""
    # Repeated first: the large operation then runs over M * N numbers in a row, not over N.
    rows = rows[:, :, :, None].expand(-1, -1, -1, columns.shape[2]).flatten(2)
    columns = columns[:, :, None].expand(-1, -1, rows.shape[2] // columns.shape[2], -1).flatten(2)
    return combine(rows[:, :, None], columns[:, None]).flatten(0, 2)


class _BagSum(torch.autograd.Function):
    """Rows of `table` [T, C] picked by `cells` [N, S], weighted by `weights` [N, S] and summed: [N, C]."""

    @staticmethod
    def forward(ctx, table, cells, weights):
        ctx.save_for_backward(table if ctx.needs_input_grad[2] else None, cells, weights)
        ctx.num_cells = len(table)
        if not len(cells):
            return table.new_zeros(0, table.shape[1])
        return embedding_bag(cells, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        table, cells, weights = ctx.saved_tensors
        for_table = for_weights = None
        if ctx.needs_input_grad[0]:
            for_table = _transposed_sum(grad.contiguous(), cells, weights, ctx.num_cells)
        if ctx.needs_input_grad[2] and len(cells):
            with torch.enable_grad():
                leaf = weights.detach().requires_grad_()
                again = embedding_bag(cells, table.detach(), mode="sum", per_sample_weights=leaf)
            (for_weights,) = torch.autograd.grad(again, leaf, grad.contiguous())
        return for_table, None, for_weights


def _transposed_sum(grad: Tensor, cells: Tensor, weights: Tensor, num_cells: int) -> Tensor:
    """For each of the table's cells the sum of weight times gradient over the bins that read it: [T, C]."""
    kept = weights.view(-1).nonzero().squeeze(1)
    if not len(kept):
        return grad.new_zeros(num_cells, grad.shape[1])
    # index_select on one dimension takes a quarter of the time that indexing in brackets takes.
    ordered, order = cells.view(-1).index_select(0, kept).sort(stable=True)
    kept = kept.index_select(0, order)
    starts = torch.searchsorted(ordered, torch.arange(num_cells, device=grad.device, dtype=ordered.dtype))
    bins = kept.div(cells.shape[1], rounding_mode="floor")
    weights = weights.view(-1).index_select(0, kept)
    return embedding_bag(bins.to(ordered.dtype), grad, starts.to(ordered.dtype), mode="sum", per_sample_weights=weights)
