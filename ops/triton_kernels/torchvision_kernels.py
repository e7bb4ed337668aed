"""torchvision's RoIAlign and RoIPool by the Triton kernels, in torchvision's signatures and memory layout.

As `cpu/torchvision_kernels.py`, for `registration.py`. float64 is left to torchvision's own kernels.
"""

import torch
from torch import Tensor

from ..backends import TRITON_DTYPES
from ..cpu.torchvision_kernels import Unserved, in_cells
from ..sampling import pool_bins
from ..validate import PoolSpec, Rois
from . import launch


def roi_align(
    input: Tensor, rois: Tensor, spatial_scale: float, rows: int, columns: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """`torchvision::roi_align`: [K, C, P, Q] in contiguous memory, as torchvision's shape function promises."""
    boxes = _served(rois, spatial_scale, input.shape[0], input.dtype)
    spec = PoolSpec((rows, columns), sampling_ratio, aligned)
    image = boxes.image.int()
    table = input.permute(0, 2, 3, 1).contiguous()
    settings = (boxes.boxes, image, torch.zeros_like(image), [1.0], spec)
    return launch.bilinear_forward_of([table], *settings)[0].permute(0, 3, 1, 2).contiguous()


def roi_align_backward(
    grad: Tensor, rois: Tensor, spatial_scale: float, rows: int, columns: int,
    batch: int, channels: int, height: int, width: int, sampling_ratio: int, aligned: bool,
) -> Tensor:  # fmt: skip
    """`torchvision::_roi_align_backward`: the map's gradient [B, C, H, W]."""
    boxes = _served(rois, spatial_scale, batch, grad.dtype)
    deterministic = torch.are_deterministic_algorithms_enabled()
    spec = PoolSpec((rows, columns), sampling_ratio, aligned, deterministic=deterministic)
    image = boxes.image.int()
    settings = (boxes.boxes, image, torch.zeros_like(image), [1.0], spec)
    no_winners = grad.new_empty(0, dtype=torch.int8)
    shapes = [torch.Size((batch, height, width, channels))]
    (total,) = launch.bilinear_backward_of(grad.permute(0, 2, 3, 1), no_winners, shapes, *settings)
    return total.permute(0, 3, 1, 2).contiguous()


def roi_pool(input: Tensor, rois: Tensor, spatial_scale: float, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """`torchvision::roi_pool`: maxima and their cells y * W + x (int32, -1 for none), both [K, C, P, Q]."""
    boxes = _served(rois, spatial_scale, input.shape[0], input.dtype)
    bins = _bins(boxes.boxes, (rows, columns), (input.shape[2], input.shape[3]))
    results = launch.pool_forward_of(input.permute(0, 2, 3, 1).contiguous(), boxes.image.int(), *bins)
    pooled, argmax = (result.permute(0, 3, 1, 2).contiguous() for result in results)
    return pooled, argmax


def roi_pool_backward(
    grad: Tensor, rois: Tensor, argmax: Tensor, spatial_scale: float, rows: int, columns: int,
    batch: int, channels: int, height: int, width: int,
) -> Tensor:  # fmt: skip
    """`torchvision::_roi_pool_backward`: the map's gradient [B, C, H, W]; `argmax` is what `roi_pool` gave."""
    boxes = _served(rois, spatial_scale, batch, grad.dtype)
    bins = _bins(boxes.boxes, (rows, columns), (height, width))
    upstream, winners = (values.permute(0, 2, 3, 1).contiguous() for values in (grad, argmax))
    deterministic = torch.are_deterministic_algorithms_enabled()
    shape = torch.Size((batch, height, width, channels))
    total = launch.pool_backward_of(upstream, winners, shape, boxes.image.int(), bins, deterministic)
    return total.permute(0, 3, 1, 2).contiguous()


def _served(rois: Tensor, spatial_scale: float, num_images: int, dtype: torch.dtype) -> Rois:
    if dtype not in TRITON_DTYPES:
        raise Unserved
    boxes = in_cells(rois, spatial_scale, num_images, dtype)
    return Rois(boxes.boxes.float().contiguous(), boxes.image)


def _bins(boxes: Tensor, output_size: tuple[int, int], sides: tuple[int, int]) -> list[Tensor]:
    """Starts and ends of RoIPool's bins in cells: of rows [K, P], then of columns [K, Q], int32."""
    x1, y1, x2, y2 = boxes.unbind(1)
    ends = (*pool_bins(y1, y2, output_size[0], sides[0]), *pool_bins(x1, x2, output_size[1], sides[1]))
    return [values.int().contiguous() for values in ends]
