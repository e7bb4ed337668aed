"""RoIPool of the backend `compiled`, by C kernels.

Results are those of `pytorch_max.py` to the bit; gradients too, for boxes of up to twice the map's size.

Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..autograd import differentiable_once
from ..validate import Rois
from .compiled import Size, call, channels_last, locate, room, stored_as, summed_as, zeros


def roi_pool(feature: Tensor, rois: Rois, output_size: tuple[int, int]) -> Tensor:
    """RoIPool of `feature` [B, C, H, W], floating, at boxes in feature cells; gradients are summed in float32 at least.

    No bin has more than `compiled.MAX_BIN_CELLS` cells. Returns [K, C, P, Q] in the map's dtype, channels last.
    """
    rows, columns = bins_of(rois.boxes, output_size, feature.shape[2:], feature.dtype)
    return _CompiledMax.apply(feature.to(stored_as(feature.dtype)), rois.image, rows, columns).to(feature.dtype)


def bins_of(
    boxes: Tensor, output_size: Sequence[int], sides: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`sampling.pool_bins` of boxes [K, 4] on a map of `sides` (H, W): rows [K, P, 2] and columns [K, Q, 2].

    Each bin has its first cell and the one after its last; dtype is the map's.
    """
    x1, y1, x2, y2 = boxes.double().t().contiguous()
    rows, columns = (room(len(boxes), num_bins, 2) for num_bins in output_size)
    for low, high, bins, length in ((y1, y2, rows, sides[0]), (x1, x2, columns, sides[1])):
        call("pool_bins", dtype, low, high, bins, len(boxes), bins.shape[1], length)
    return rows, columns


def forward(table: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima of a map [B, H, W, C] in bins of rows [K, P, 2] and columns [K, Q, 2], and where in its bin each lies.

    Both are [K, P, Q, C], the latter uint16, counted row by row. No gradient.
    """
    size = _size(table.shape, rows, columns)
    out = table.new_empty(size.K, size.P, size.Q, size.C)
    where = out.new_empty(out.shape, dtype=torch.uint16)
    plane, width, _ = locate([table], image, torch.zeros_like(image))
    call("max_forward", out.dtype, out, where, plane, width, rows, columns, size, torch.get_num_threads())
    return out, where


def backward(grad: Tensor, where: Tensor, shape: torch.Size, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The gradient of a map of `shape` [B, H, W, C] from that of `forward`'s maxima, grad [K, P, Q, C], contiguous.

    It is at least float32, as sums are.
    """
    total = grad.new_zeros(shape, dtype=summed_as(grad.dtype))
    size, threads = _size(shape, rows, columns), torch.get_num_threads()
    located = locate([total], image, torch.zeros_like(image))
    call("max_backward", grad.dtype, grad, where, *located, rows, columns, size, zeros(size.lines), threads)
    return total


def cells_of_map(where: Tensor, rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """The cells y * W + x of a map of this width that `forward`'s maxima lie in, int32 [K, P, Q, C]; -1 for none."""
    cells = where.new_empty(where.shape, dtype=torch.int32)
    call("cells_of_map", torch.float32, cells, where, rows, columns, _size(where.shape, rows, columns), width)
    return cells


def _size(shape: torch.Size, rows: Tensor, columns: Tensor) -> Size:
    return Size(*rows.shape[:2], columns.shape[1], shape[3], lines=shape[0] * shape[1], parts=1)


class _CompiledMax(torch.autograd.Function):
    """`forward`'s maxima of a map [B, C, H, W] with their gradient: [K, C, P, Q]."""

    @staticmethod
    def forward(ctx, feature, image, rows, columns):
        table = channels_last(feature)
        out, where = forward(table, image, rows, columns)
        ctx.shape = table.shape
        ctx.save_for_backward(where, image, rows, columns)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        where, *bins = ctx.saved_tensors
        total = backward(channels_last(grad), where, ctx.shape, *bins)
        return total.to(grad.dtype).permute(0, 3, 1, 2), None, None, None
