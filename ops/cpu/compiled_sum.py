"""RoIAlign's samples and weighted sums of cells of the backend `compiled`, by C kernels.

They are what `sampling.py` and `pytorch_sum.py` compute: the samples to the bit, the sums but for rounding.

Letters: B images, K RoIs, C channels, L levels, H and W sides of a map, P and Q pooled height and width, S samples of a
bin on one axis, M and N pairs of a bin on the vertical and the horizontal axis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import sampling
from ..sampling import Axis, Pairs
from .compiled import Size, call, locate, zeros


def mean_pairs(axis: Axis, dtype: torch.dtype) -> Pairs:
    """`sampling.mean_pairs`, to the bit: (cells, weights), each [K, P, N]; dtype is the map's.

    An adaptive number of samples, which differs from RoI to RoI, is left to `sampling.py`.
    """
    if axis.sampling_ratio <= 0:
        return sampling.mean_pairs(axis)
    num_rois, bins, samples = len(axis.low), axis.num_bins, axis.sampling_ratio
    cells = zeros(num_rois * bins * 2 * samples)
    weights, total = zeros(len(cells), dtype=torch.float64), zeros(2 * samples, dtype=torch.float64)
    ends = [values.contiguous() for values in (axis.low, axis.high, axis.length)]
    pairs = call("mean_pairs", dtype, *ends, cells, weights, total, num_rois, bins, samples, bool(axis.aligned))
    cells, weights = (values[: num_rois * bins * pairs].view(-1, bins, pairs) for values in (cells, weights))
    return cells, weights


def interpolate(
    maps: Sequence[Tensor], image: Tensor, level: Tensor, pairs_y: Pairs, pairs_x: Pairs, parts: int = 1
) -> Tensor:
    """Each RoI's map through (cells, weights) of rows [K, P, M] and columns [K, Q, N]: [K, C, P, Q].

    maps are L of [B, C * parts * parts, H_l, W_l], float32 or float64, on a CPU; image and level are [K]. A bin reads
    the channels of the part that it lies in, of parts x parts. No gradient for weights.
    """
    assert len({(feature.shape[:2], feature.dtype) for feature in maps}) == 1
    rows, columns = pairs_y[0].contiguous(), pairs_x[0].contiguous()
    row_weights, column_weights = (pairs[1].to(maps[0].dtype).contiguous() for pairs in (pairs_y, pairs_x))
    tables = [feature.permute(0, 2, 3, 1).contiguous() for feature in maps]
    out = _CompiledSum.apply(parts, image, level, rows, row_weights, columns, column_weights, *tables)
    return out.permute(0, 3, 1, 2)


class _CompiledSum(torch.autograd.Function):
    """Sums [K, P, Q, C] over maps [B, H_l, W_l, C * parts * parts]."""

    @staticmethod
    def forward(ctx, parts, image, level, *bins_and_tables):
        bins, tables = bins_and_tables[:4], bins_and_tables[4:]
        rows, _, columns, _ = bins
        (num_rois, num_rows, m), (_, num_columns, n) = rows.shape, columns.shape
        channels, lines = tables[0].shape[3] // parts**2, sum(table.shape[0] * table.shape[1] for table in tables)
        ctx.size = Size(num_rois, num_rows, num_columns, channels, lines, m, n, parts)
        ctx.shapes = [table.shape for table in tables]
        ctx.save_for_backward(image, level, *bins)
        out = tables[0].new_empty(num_rois, num_rows, num_columns, channels)
        plane, width, _ = locate(tables, image, level)
        call("sum_forward", out.dtype, out, plane, width, *bins, ctx.size, torch.get_num_threads())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        image, level, *bins = ctx.saved_tensors
        totals = [grad.new_zeros(shape) for shape in ctx.shapes]
        owner, threads = zeros(ctx.size.lines), torch.get_num_threads()
        located = locate(totals, image, level)
        call("sum_backward", grad.dtype, grad.resolve_neg().contiguous(), *located, *bins, ctx.size, owner, threads)
        return *[None] * 7, *totals
