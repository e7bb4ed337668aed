"""RoIAlign's samples and weighted sums of cells of the backend `compiled`, by C kernels.

They are what `sampling.py` and `pytorch_sum.py` compute: the samples to the bit, the sums except for rounding.

Letters: B images, K RoIs, C channels, L levels, H and W sides of a map, P and Q pooled height and width, S samples of a
bin on one axis, M and N pairs of a bin on the vertical and the horizontal axis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..autograd import differentiable_once
from ..sampling import Axis, Pairs
from .compiled import Size, call, channels_last, locate, room, stored_as, summed_as, zeros


def mean_pairs(axis: Axis, dtype: torch.dtype) -> Pairs:
    """`sampling.mean_pairs`, to the bit: (cells, weights), each [K, P, N]; dtype is the map's."""
    ends = [values.contiguous() for values in (axis.low, axis.high, axis.length)]
    num_rois, bins, ratio, aligned = len(axis.low), axis.num_bins, max(axis.sampling_ratio, 0), bool(axis.aligned)
    samples = ratio or call("adaptive_slots", dtype, *ends, num_rois, bins, aligned)
    cells = room(num_rois * bins * 2 * samples)
    weights, total = room(len(cells), dtype=torch.float64), room(2 * samples, dtype=torch.float64)
    pairs = call("mean_pairs", dtype, *ends, cells, weights, total, num_rois, bins, samples, ratio, aligned)
    cells, weights = (values[: num_rois * bins * pairs].view(-1, bins, pairs) for values in (cells, weights))
    return cells, weights


def interpolate(
    maps: Sequence[Tensor], image: Tensor, level: Tensor, pairs_y: Pairs, pairs_x: Pairs, parts: int = 1
) -> Tensor:
    """Each RoI's map through (cells, weights) of rows [K, P, M] and columns [K, Q, N]: [K, C, P, Q].

    maps are L of [B, C * parts * parts, H_l, W_l] on a CPU, of a floating dtype, which is the result's; sums are taken
    in float32, or float64 for such maps. image and level are [K]. A bin reads the channels of the part that it lies in,
    of parts x parts. No gradient for weights.
    """
    dtype = maps[0].dtype
    assert len({(feature.shape[:2], feature.dtype) for feature in maps}) == 1
    maps, bins = [feature.to(stored_as(dtype)) for feature in maps], bins_of(pairs_y, pairs_x, dtype)
    if parts > 1 and maps[0].is_contiguous():  # a part's channels lie far apart, so that another layout gains nothing
        return _CompiledPlaneSum.apply(maps[0], image, parts, *bins).to(dtype)
    return _CompiledSum.apply(parts, image, level, *bins, *maps).to(dtype)


def bins_of(pairs_y: Pairs, pairs_x: Pairs, dtype: torch.dtype) -> list[Tensor]:
    """`Bins` from pairs (cells, weights) of rows and columns; dtype is the map's."""
    real = summed_as(dtype)
    return [values.contiguous() for cells, weights in (pairs_y, pairs_x) for values in (cells, weights.to(real))]


Bins = Sequence[Tensor]
"""rows [K, P, M], row_weights [K, P, M], columns [K, Q, N] and column_weights [K, Q, N], as the kernels take them."""


def forward(tables: Sequence[Tensor], image: Tensor, level: Tensor, bins: Bins, parts: int = 1) -> Tensor:
    """Sums [K, P, Q, C] over maps [B, H_l, W_l, C * parts * parts], in their dtype; no gradient."""
    size = _size([table.shape for table in tables], bins, parts)
    out = tables[0].new_empty(size.K, size.P, size.Q, size.C)
    plane, width, _ = locate(tables, image, level)
    call("sum_forward", out.dtype, out, plane, width, *bins, size, torch.get_num_threads())
    return out


def backward(
    grad: Tensor, shapes: Sequence[torch.Size], image: Tensor, level: Tensor, bins: Bins, parts: int = 1
) -> list[Tensor]:
    """Gradients of maps of the given shapes [B, H_l, W_l, C * parts * parts] from that of `forward`'s output.

    grad [K, P, Q, C] is contiguous. The results are at least float32, as sums are.
    """
    totals = [grad.new_zeros(shape, dtype=summed_as(grad.dtype)) for shape in shapes]
    size, threads = _size(shapes, bins, parts), torch.get_num_threads()
    located = locate(totals, image, level)
    call("sum_backward", grad.dtype, grad, *located, *bins, size, zeros(size.lines), threads)
    return totals


def forward_of_planes(feature: Tensor, image: Tensor, bins: Bins, parts: int) -> Tensor:
    """`forward` from one map [B, C * parts * parts, H, W] in contiguous memory: [K, P, Q, C]."""
    batch, channels, height, width = feature.shape
    size = _size([torch.Size((batch, height, width, channels))], bins, parts)
    out, used = feature.new_empty(size.K, size.P, size.Q, size.C), room(size.K * (size.P + size.Q))
    call("sum_planes", out.dtype, out, feature, image, *bins, size, height, width, used, 0, torch.get_num_threads())
    return out


def backward_of_planes(grad: Tensor, shape: torch.Size, image: Tensor, bins: Bins, parts: int) -> Tensor:
    """The gradient of a map of `shape` [B, C * parts * parts, H, W] from that of `forward_of_planes`, as `backward`."""
    total, (batch, channels, height, width) = grad.new_zeros(shape, dtype=summed_as(grad.dtype)), shape
    size = _size([torch.Size((batch, height, width, channels))], bins, parts)
    used = room(size.K * (size.P + size.Q))
    call("sum_planes", grad.dtype, grad, total, image, *bins, size, height, width, used, 1, torch.get_num_threads())
    return total


def _size(shapes: Sequence[torch.Size], bins: Bins, parts: int) -> Size:
    (num_rois, num_rows, m), (_, num_columns, n) = bins[0].shape, bins[2].shape
    lines = sum(shape[0] * shape[1] for shape in shapes)
    return Size(num_rois, num_rows, num_columns, shapes[0][3] // parts**2, lines, m, n, parts)


class _CompiledSum(torch.autograd.Function):
    """`forward` with its gradient, from maps [B, C * parts * parts, H_l, W_l] to [K, C, P, Q]."""

    @staticmethod
    def forward(ctx, parts, image, level, *bins_and_maps):
        bins, maps = bins_and_maps[:4], bins_and_maps[4:]
        ctx.parts, ctx.shapes = parts, [feature.permute(0, 2, 3, 1).shape for feature in maps]
        ctx.save_for_backward(image, level, *bins)
        # Of maps that no RoI reads the layout makes no difference.
        tables = [channels_last(feature) if len(image) else feature.permute(0, 2, 3, 1) for feature in maps]
        return forward(tables, image, level, bins, parts).permute(0, 3, 1, 2)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        image, level, *bins = ctx.saved_tensors
        totals = backward(channels_last(grad), ctx.shapes, image, level, bins, ctx.parts)
        return *[None] * 7, *(total.to(grad.dtype).permute(0, 3, 1, 2) for total in totals)


class _CompiledPlaneSum(torch.autograd.Function):
    """`forward_of_planes` with its gradient."""

    @staticmethod
    def forward(ctx, feature, image, parts, *bins):
        ctx.parts, ctx.shape = parts, feature.shape
        ctx.save_for_backward(image, *bins)
        return forward_of_planes(feature, image, bins, parts).permute(0, 3, 1, 2)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        image, *bins = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        table = torch.Size((batch, height, width, channels))  # autograd takes either layout; this one is faster
        (total,) = backward(channels_last(grad), [table], image, torch.zeros_like(image), bins, ctx.parts)
        return total.to(grad.dtype).permute(0, 3, 1, 2), *[None] * 6
