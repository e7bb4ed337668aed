"""RoIPool by C kernels, with the results of `crop_max.py` (gradients to the bit for boxes up to twice the map's size).

Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ops import compiled
from ops.compiled import Size, call, locate

CELLS_OF_A_BIN = 1 << 16  # that a place of 16 bits can tell apart


def serves(feature: Tensor, rows: Tensor, columns: Tensor) -> bool:
    """Whether there are kernels for a map, and the bins [K, P, 2] and [K, Q, 2] are not too large for them."""
    if not compiled.serves(feature):
        return False
    tall, wide = (int(bins.diff(dim=2).max()) if bins.numel() else 0 for bins in (rows, columns))
    return tall * wide <= CELLS_OF_A_BIN


def roi_pool(feature: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] (float32, float64) in bins that `serves` accepts. [K, C, P, Q], channels last.

    image is [K]; rows [K, P, 2] and columns [K, Q, 2] hold each bin's first cell and the one after its last.
    """
    table = feature.permute(0, 2, 3, 1).contiguous()
    return _Max.apply(table, image, rows.contiguous(), columns.contiguous()).permute(0, 3, 1, 2)


class _Max(torch.autograd.Function):
    """Maxima [K, P, Q, C] of a map [B, H, W, C]."""

    @staticmethod
    def forward(ctx, table, image, rows, columns):
        (num_rois, num_rows, _), num_columns, channels = rows.shape, columns.shape[1], table.shape[3]
        ctx.size = Size(num_rois, num_rows, num_columns, channels, table.shape[0] * table.shape[1])
        ctx.shape = table.shape
        out = table.new_empty(num_rois, num_rows, num_columns, channels)
        where = out.new_empty(out.shape, dtype=torch.uint16)
        plane, width, _ = locate([table], image, torch.zeros_like(image))
        call("max_forward", out.dtype, [out, where, plane, width, rows, columns], ctx.size)
        ctx.save_for_backward(where, image, rows, columns)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        where, image, rows, columns = ctx.saved_tensors
        total = grad.new_zeros(ctx.shape)
        located = locate([total], image, torch.zeros_like(image))
        call("max_backward", grad.dtype, [grad.contiguous(), where, *located, rows, columns], ctx.size)
        return total, None, None, None
