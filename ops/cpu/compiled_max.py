"""RoIPool of the backend `compiled`, by C kernels.

Results are those of `pytorch_max.py` to the bit; gradients too, for boxes of up to twice the map's size.

Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..validate import Rois
from .compiled import Size, call, locate, zeros


def roi_pool(feature: Tensor, rois: Rois, output_size: tuple[int, int]) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] (float32, float64) at boxes in feature cells.

    No bin has more than `compiled.MAX_BIN_CELLS` cells. Returns [K, C, P, Q], channels last.
    """
    x1, y1, x2, y2 = rois.boxes.double().t().contiguous()
    rows = bins(y1, y2, output_size[0], feature.shape[2], feature.dtype)
    columns = bins(x1, x2, output_size[1], feature.shape[3], feature.dtype)
    return _CompiledMax.apply(feature.permute(0, 2, 3, 1).contiguous(), rois.image, rows, columns).permute(0, 3, 1, 2)


def bins(low: Tensor, high: Tensor, num_bins: int, length: int, dtype: torch.dtype) -> Tensor:
    """`sampling.pool_bins` of ends [K]: each bin's first cell and the one after its last, [K, P, 2]."""
    out = zeros(len(low), num_bins, 2)
    call("pool_bins", dtype, low, high, out, len(low), num_bins, length)
    return out


class _CompiledMax(torch.autograd.Function):
    """Maxima [K, P, Q, C] of a map [B, H, W, C] in bins of rows [K, P, 2] and columns [K, Q, 2]."""

    @staticmethod
    def forward(ctx, table, image, rows, columns):
        (num_rois, num_rows, _), num_columns, channels = rows.shape, columns.shape[1], table.shape[3]
        ctx.size = Size(num_rois, num_rows, num_columns, channels, lines=table.shape[0] * table.shape[1], parts=1)
        ctx.shape = table.shape
        out = table.new_empty(num_rois, num_rows, num_columns, channels)
        where = out.new_empty(out.shape, dtype=torch.uint16)
        plane, width, _ = locate([table], image, torch.zeros_like(image))
        call("max_forward", out.dtype, out, where, plane, width, rows, columns, ctx.size, torch.get_num_threads())
        ctx.save_for_backward(where, image, rows, columns)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        where, image, rows, columns = ctx.saved_tensors
        total, grad = grad.new_zeros(ctx.shape), grad.resolve_neg().contiguous()
        owner, threads = zeros(ctx.size.lines), torch.get_num_threads()
        located = locate([total], image, torch.zeros_like(image))
        call("max_backward", grad.dtype, grad, where, *located, rows, columns, ctx.size, owner, threads)
        return total, None, None, None
