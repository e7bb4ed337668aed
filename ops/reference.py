"""The operators as their definition reads: one RoI, one bin, one sample at a time.

Slow, on any device, in any floating dtype (half precision is computed in float32), differentiable in features
and, for RoIAlign, in boxes. Every other backend is tested against this one.
Letters: B images, K RoIs, C channels, H and W sides of the map, P pooled height, Q pooled width;
for position-sensitive pooling D maps of k x k channels each.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import geometry
from .sampling import LARGEST
from .validate import Rois


def roi_pool(feature: Tensor, rois: Rois, output_size: tuple[int, int], spatial_scale: float) -> Tensor:
    """RoIPool of `feature` [B, C, H, W]: the maximum over each bin's cells, 0 where it has none. [K, C, P, Q]."""

    def one(plane: Tensor, box: Tensor) -> Tensor:
        x1, y1, x2, y2 = (box.detach() * spatial_scale).tolist()
        rows = geometry.pool_bins(y1, y2, output_size[0], plane.shape[1])
        columns = geometry.pool_bins(x1, x2, output_size[1], plane.shape[2])
        empty = plane.new_zeros(len(plane))
        bins = [
            _first_max(plane[:, top:bottom, left:right].flatten(1)) if top < bottom and left < right else empty
            for top, bottom in rows
            for left, right in columns
        ]
        return torch.stack(bins, dim=1)

    return _each_roi(feature, rois, output_size, one)


def roi_align(
    feature: Tensor,
    rois: Rois,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    reduce: str,
) -> Tensor:
    """RoIAlign of `feature` [B, C, H, W]: mean or maximum over each bin's bilinear samples. [K, C, P, Q]."""

    def one(plane: Tensor, box: Tensor) -> Tensor:
        x1, y1, x2, y2 = box * spatial_scale
        rows = _samples(*geometry.align_interval(y1, y2, aligned), output_size[0], sampling_ratio)
        columns = _samples(*geometry.align_interval(x1, x2, aligned), output_size[1], sampling_ratio)
        if not rows[0] or not columns[0]:
            return plane.new_zeros(len(plane), math.prod(output_size))
        bins = []
        for ys in rows:
            for xs in columns:
                values = torch.stack([_bilinear(plane, y, x) for y in ys for x in xs], dim=1)
                bins.append(values.mean(dim=1) if reduce == "ave" else _first_max(values))
        return torch.stack(bins, dim=1)

    return _each_roi(feature, rois, output_size, one)


def roi_warp(
    feature: Tensor, rois: Rois, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int, reduce: str
) -> Tensor:
    """RoIWarp of `feature` [B, C, H, W]: RoIAlign of the box rounded to whole cells. [K, C, P, Q]."""
    boxes = [
        [geometry.round_half_away(end) if math.isfinite(end) else end for end in box]
        for box in (rois.boxes.detach() * spatial_scale).tolist()
    ]
    rounded = Rois(rois.boxes.new_tensor(boxes).reshape(-1, 4), rois.image)
    return roi_align(feature, rounded, output_size, 1.0, sampling_ratio, False, reduce)


def ps_roi_pool(feature: Tensor, rois: Rois, output_size: int, parts: int, spatial_scale: float) -> Tensor:
    """Position-sensitive pooling of `feature` [B, D * k * k, H, W]: averages of a part's channels. [K, D, P, P]."""

    def one(plane: Tensor, box: Tensor) -> Tensor:
        maps = plane.unflatten(0, (-1, parts, parts))  # [D, k, k, H, W]
        x1, y1, x2, y2 = box.detach().tolist()
        rows = geometry.part_cells(y1, y2, output_size, spatial_scale, plane.shape[1])
        columns = geometry.part_cells(x1, x2, output_size, spatial_scale, plane.shape[2])
        cells = []
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                part_map = maps[:, i * parts // output_size, j * parts // output_size]  # [D, H, W]
                touched = part_map[:, top:bottom, left:right].flatten(1)
                cells.append(touched.mean(1) if touched.shape[1] else maps.new_zeros(len(maps)))
        return torch.stack(cells, dim=1)

    return _each_roi(feature, rois, (output_size, output_size), one, feature.shape[1] // parts**2)


def _each_roi(
    feature: Tensor,
    rois: Rois,
    output_size: tuple[int, int],
    one: Callable[[Tensor, Tensor], Tensor],
    num_channels: int | None = None,
) -> Tensor:
    """Apply `one` (plane [C, H, W], box [4] -> [C, P * Q]) to every RoI; a box with NaN or out of all bounds gives 0.

    num_channels: of the output, where it does not have the map's.
    """
    wide = feature if feature.dtype == torch.float64 else feature.float()
    zero = wide.new_zeros(num_channels or wide.shape[1], math.prod(output_size))
    pooled = [
        one(wide[image], box) if bool((box.abs() <= LARGEST).all()) else zero
        for box, image in zip(rois.boxes, rois.image.tolist(), strict=True)
    ]
    stacked = torch.stack(pooled) if pooled else zero.new_zeros(0, *zero.shape)
    # The empty sums are 0 and keep the result connected to its inputs where every RoI is empty.
    connected = stacked + wide[:0].sum() + rois.boxes[:0].sum().to(wide.dtype)
    return connected.unflatten(2, output_size).to(feature.dtype)


def _samples(start: Tensor, size: Tensor, num_bins: int, sampling_ratio: int) -> list[list[Tensor]]:
    return geometry.sample_positions(
        start, size, num_bins, geometry.num_samples(size.detach(), num_bins, sampling_ratio)
    )


def _bilinear(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """`plane` [C, H, W] at (y, x), [C]; 0 further than a cell outside."""
    value = plane.new_zeros(len(plane))
    for row, row_weight in geometry.hat_weights(y, plane.shape[1]):
        for column, column_weight in geometry.hat_weights(x, plane.shape[2]):
            value = value + plane[:, row, column] * (row_weight * column_weight)
    return value


def _first_max(values: Tensor) -> Tensor:
    """Maximum along dim 1 of [C, N]; its gradient goes to the first of equal values, as torchvision's does."""
    return values.gather(1, values.detach().argmax(dim=1, keepdim=True)).squeeze(1)
