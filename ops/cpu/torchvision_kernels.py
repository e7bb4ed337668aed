"""torchvision's RoI operators by the C kernels, in torchvision's signatures and memory layout, for `registration.py`.

They run below autograd: torchvision's own registration of gradients calls the functions whose names end in "backward".
Bad arguments raise RuntimeError, as torchvision's kernels do, before any memory is read that is not theirs.
Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import sampling
from ..sampling import Axis, Pairs, hide_nonfinite, largest_bin
from ..validate import PoolSpec, Rois, check_boxes
from . import bilinear, compiled_max, compiled_sum
from .compiled import MAX_BIN_CELLS, call, channels_first, channels_last, stored_as, summed_as

Shape = tuple[int, int, int, int]


class Unserved(Exception):
    """The C kernels cannot serve this call; torchvision's own can."""


def roi_align(
    input: Tensor, rois: Tensor, spatial_scale: float, rows: int, columns: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """`torchvision::roi_align`: [K, C, P, Q] in contiguous memory, as torchvision's shape function promises."""
    boxes = _boxes_on(input, rois, spatial_scale)
    spec = PoolSpec((rows, columns), sampling_ratio, aligned)
    return channels_first(bilinear.roi_align([input], boxes, torch.zeros_like(boxes.image), spec, "compiled"))


def roi_align_backward(
    grad: Tensor, rois: Tensor, spatial_scale: float, rows: int, columns: int,
    batch: int, channels: int, height: int, width: int, sampling_ratio: int, aligned: bool,
) -> Tensor:  # fmt: skip
    """`torchvision::_roi_align_backward`: the map's gradient [B, C, H, W]."""
    _check_shape((len(rois), channels, rows, columns), grad=grad)
    boxes = in_cells(rois, spatial_scale, batch, grad.dtype)
    x1, y1, x2, y2 = boxes.boxes.double().t().contiguous()
    axes = [
        Axis(low, high, torch.full_like(low, length), bins, sampling_ratio, aligned)
        for low, high, length, bins in ((y1, y2, height, rows), (x1, x2, width, columns))
    ]
    pairs = [compiled_sum.mean_pairs(axis, grad.dtype) for axis in axes]
    return _map_gradient(grad, boxes.image, pairs, (batch, channels, height, width))


def roi_pool(input: Tensor, rois: Tensor, spatial_scale: float, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """`torchvision::roi_pool`: maxima and their cells y * W + x (int32, -1 for none), both [K, C, P, Q]."""
    boxes = _boxes_on(input, rois, spatial_scale)
    if largest_bin(boxes.boxes, (rows, columns), input.shape[2:]) > MAX_BIN_CELLS:
        raise Unserved
    table = channels_last(input.to(stored_as(input.dtype)))
    bins = compiled_max.bins_of(boxes.boxes, (rows, columns), table.shape[1:3], table.dtype)
    pooled, where = compiled_max.forward(table, boxes.image, *bins)
    cells = compiled_max.cells_of_map(where, *bins, input.shape[3])
    return channels_first(pooled.to(input.dtype).permute(0, 3, 1, 2)), channels_first(cells.permute(0, 3, 1, 2))


def roi_pool_backward(
    grad: Tensor, rois: Tensor, argmax: Tensor, spatial_scale: float, rows: int, columns: int,
    batch: int, channels: int, height: int, width: int,
) -> Tensor:  # fmt: skip
    """`torchvision::_roi_pool_backward`: the map's gradient [B, C, H, W]; `argmax` is what `roi_pool` gave."""
    _check_shape((len(rois), channels, rows, columns), grad=grad, argmax=argmax)
    if argmax.dtype != torch.int32:
        raise RuntimeError(f"argmax must be of int32, got {argmax.dtype}")
    _check_range(-1, height * width, argmax=argmax)
    image = in_cells(rois, spatial_scale, batch, grad.dtype).image
    given = grad.to(stored_as(grad.dtype)).contiguous()
    total = given.new_zeros(batch, channels, height, width, dtype=summed_as(grad.dtype))
    sizes = (len(image), channels, rows * columns, height * width)
    call("scatter", grad.dtype, given, argmax.contiguous(), image, total, *sizes, torch.get_num_threads())
    return total.to(grad.dtype)


def ps_roi_pool(input: Tensor, rois: Tensor, spatial_scale: float, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """`torchvision::ps_roi_pool`: averages and the channel that each was taken from (int32), both [K, D, P, P]."""
    boxes = _boxes_on(input, rois, spatial_scale)
    channels = input.shape[1]
    if channels % (rows * columns):
        raise RuntimeError(f"input channels must be a multiple of {rows} * {columns}, got {channels}")
    image, pairs = boxes.image, _part_pairs(boxes, rows, columns, input.shape[2:])
    pooled = compiled_sum.interpolate([input], image, torch.zeros_like(image), pairs[0], pairs[1], rows)
    mapping = torch.arange(channels, dtype=torch.int32).view(1, -1, rows, columns)
    return channels_first(pooled), mapping.expand(len(rois), -1, -1, -1).contiguous()


def ps_roi_pool_backward(
    grad: Tensor, rois: Tensor, mapping: Tensor, spatial_scale: float, rows: int, columns: int,
    batch: int, channels: int, height: int, width: int,
) -> Tensor:  # fmt: skip
    """`torchvision::_ps_roi_pool_backward`: the map's gradient [B, C, H, W]."""
    shape = (batch, channels, height, width)
    _check_shape((len(rois), channels // (rows * columns), rows, columns), grad=grad, channel_mapping=mapping)
    _check_range(0, channels, channel_mapping=mapping)
    boxes = in_cells(rois, spatial_scale, batch, grad.dtype)
    pairs = _part_pairs(boxes, rows, columns, shape[2:])
    return _map_gradient(grad, boxes.image, pairs, shape, parts=rows)


def _boxes_on(input: Tensor, rois: Tensor, spatial_scale: float) -> Rois:
    if input.dim() != 4 or 0 in input.shape[2:]:
        raise RuntimeError(
            f"input must have shape as Tensor[B, C, H, W], of at least one cell, got {list(input.shape)}"
        )
    return in_cells(rois, spatial_scale, input.shape[0], input.dtype)


def _check_shape(shape: tuple[int, ...], **tensors: Tensor) -> None:
    """Refuse what does not come from the forward pass."""
    for name, values in tensors.items():
        if values.shape != shape:
            raise RuntimeError(f"{name} must have shape {list(shape)}, got {list(values.shape)}")


def _check_range(low: int, high: int, **tensors: Tensor) -> None:
    """Refuse numbers that name no cell or channel and so are of no forward pass, as torchvision does from 0.29.2 on."""
    for name, values in tensors.items():
        if values.numel():
            least, most = values.aminmax()
            if least < low or most >= high:
                raise RuntimeError(f"{name} values must be in [{low}, {high}), got {int(least)} to {int(most)}")


def in_cells(rois: Tensor, spatial_scale: float, num_images: int, dtype: torch.dtype) -> Rois:
    """RoIs [K, 5] in cells of the map, checked as torchvision checks them, and image indices too."""
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise RuntimeError(f"rois must have shape as Tensor[K, 5], got {list(rois.shape)}")
    if rois.dtype != dtype:
        raise RuntimeError(f"input should have the same type as rois, got {dtype} and {rois.dtype}")
    try:
        checked = check_boxes(rois, num_images, rois.device)
    except ValueError as error:
        raise RuntimeError(str(error)) from None
    return Rois(hide_nonfinite(checked.boxes * spatial_scale), checked.image)


def _map_gradient(grad: Tensor, image: Tensor, pairs: list[Pairs], shape: Shape, parts: int = 1) -> Tensor:
    """The gradient of a map of `shape` [B, C, H, W] from that of sums over pairs of rows and columns."""
    given = channels_last(grad.to(stored_as(grad.dtype)))
    bins = compiled_sum.bins_of(pairs[0], pairs[1], given.dtype)
    if parts > 1:
        return compiled_sum.backward_of_planes(given, torch.Size(shape), image, bins, parts).to(grad.dtype)
    batch, channels, height, width = shape
    table = torch.Size((batch, height, width, channels))
    (total,) = compiled_sum.backward(given, [table], image, torch.zeros_like(image), bins)
    return channels_first(total.to(grad.dtype).permute(0, 3, 1, 2))


def _part_pairs(boxes: Rois, rows: int, columns: int, sides: Sequence[int]) -> list[Pairs]:
    """By torchvision's rule, the cells of each RoI's parts on a map of `sides` (H, W) and their shares of the average.

    Ends are rounded to cells of the map, parts outwards, and the map's last row and column are never read. Edges are
    taken in whole numbers: torchvision's, in float32, are off where RoIs span 57, 114 or some other numbers of cells.
    """
    if rows != columns:
        raise Unserved
    x1, y1, x2, y2 = boxes.boxes.unbind(1)
    pairs = []
    for low, high, length in ((y1, y2, sides[0]), (x1, x2, sides[1])):
        first, last = (sampling.round_half_away(end).clamp(-(2**30), 2**30).long()[:, None] for end in (low, high))
        edges = torch.arange(rows + 1) * (last - first).clamp(min=1)
        start = (first + edges[:, :-1].div(rows, rounding_mode="floor")).clamp(0, length - 1)
        end = (first - (-edges[:, 1:]).div(rows, rounding_mode="floor")).clamp(0, length - 1)
        pairs.append(sampling.share_pairs(start, end, length))
    return pairs
