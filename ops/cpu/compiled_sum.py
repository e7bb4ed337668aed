"""RoIAlign's samples, and weighted sums of cells, by C kernels: what `sampling.py` and `gathered.py` compute.

Letters: B images, K RoIs, C channels, L levels, H and W sides of a map, P and Q pooled height and width, S samples of a
bin on one axis, M and N pairs of a bin on the vertical and the horizontal axis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ops.cpu.compiled import Size, call, locate, room
from ops.sampling import Pairs


def mean_pairs(
    low: Tensor, high: Tensor, num_bins: int, sampling_ratio: int, aligned: bool, length: Tensor, dtype: torch.dtype
) -> Pairs:
    """`sampling.mean_pairs` of `sampling.axis_samples`, to the bit: (cells, weights), each [K, P, N].

    low, high and length are float64 [K]; sampling_ratio is S, 1 or more; dtype is the map's.
    """
    cells = room(len(low) * num_bins * 2 * sampling_ratio)
    weights, total = room(len(cells), dtype=torch.float64), room(2 * sampling_ratio, dtype=torch.float64)
    ends = [each.contiguous() for each in (low, high, length)]
    pairs = call("mean_pairs", dtype, *ends, cells, weights, total, len(low), num_bins, sampling_ratio, bool(aligned))
    cells, weights = (each[: len(low) * num_bins * pairs].view(-1, num_bins, pairs) for each in (cells, weights))
    return cells, weights


def interpolate(
    maps: Sequence[Tensor], image: Tensor, level: Tensor, pairs_y: Pairs, pairs_x: Pairs, parts: int = 1
) -> Tensor:
    """Each RoI's map through (cells, weights) of rows [K, P, M] and columns [K, Q, N]: [K, C, P, Q].

    maps are L of [B, C * parts * parts, H_l, W_l], float32 or float64, on a CPU; image and level are [K]. A bin reads
    the channels of the part that it lies in, of parts x parts. No gradient for weights.
    """
    assert len({(each.shape[:2], each.dtype) for each in maps}) == 1
    (rows, row_weights), (columns, column_weights) = pairs_y, pairs_x
    weights = [each.to(maps[0].dtype).contiguous() for each in (row_weights, column_weights)]
    tables = [each.permute(0, 2, 3, 1).contiguous() for each in maps]
    out = _Sum.apply(parts, image, level, rows.contiguous(), weights[0], columns.contiguous(), weights[1], *tables)
    return out.permute(0, 3, 1, 2)


class _Sum(torch.autograd.Function):
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
        owner, threads = room(ctx.size.lines), torch.get_num_threads()
        located = locate(totals, image, level)
        call("sum_backward", grad.dtype, grad.resolve_neg().contiguous(), *located, *bins, ctx.size, owner, threads)
        return *[None] * 7, *totals
