"""RoIAlign on small maps as two batched matrix products: the interpolation of rows, then of columns.

out[k, p, q, c] = sum_y Ay[k, p, y] sum_x Ax[k, q, x] F[b, y, x, c]: bilinear samples and their mean are products
of one-dimensional weights. On a map of some hundreds of cells the dense matrices are tiny, nothing is gathered or
scattered, and the backward pass is the transposed products, hence deterministic. Plain autograd, gradients of the
boxes included.
Letters: B images, K RoIs, R RoIs an image, C channels, H and W sides of the map, P and Q pooled height and width.
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ops.sampling import axis_samples, mean_weights, sample_weights
from ops.validate import Rois


def roi_align(
    feature: Tensor, rois: Rois, output_size: tuple[int, int], sampling_ratio: int, aligned: bool, reduce: str
) -> Tensor:
    """RoIAlign of `feature` [B, C, H, W] at boxes already in feature cells. [K, C, P, Q], channels last."""
    pooled_height, pooled_width = output_size
    height, width = feature.shape[2:]
    x1, y1, x2, y2 = rois.boxes.unbind(1)
    rows = axis_samples(y1, y2, pooled_height, sampling_ratio, aligned, height)
    columns = axis_samples(x1, x2, pooled_width, sampling_ratio, aligned, width)
    if reduce == "ave":
        return _interpolate(feature, rois, mean_weights(*rows, height), mean_weights(*columns, width))
    weights_y = sample_weights(rows[0], rows[2], height)
    weights_x = sample_weights(columns[0], columns[2], width)
    samples = _interpolate(feature, rois, weights_y, weights_x)
    return max_pool2d(samples, (rows[0].shape[2], columns[0].shape[2]))


def _interpolate(feature: Tensor, rois: Rois, weights_y: Tensor, weights_x: Tensor) -> Tensor:
    """`feature` [B, C, H, W] through row weights [K, P, H] and column weights [K, Q, W]: [K, C, P, Q]."""
    batch, channels, height, width = feature.shape
    num_rois, rows = weights_y.shape[:2]
    table = feature.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    weights_y, weights_x = weights_y.to(table.dtype), weights_x.to(table.dtype)
    if rois.per_image is not None:
        reduced = torch.bmm(weights_y.reshape(batch, -1, height), table)  # [B, R * P, W * C]
    else:
        slot, capacity = _slots(rois.image, batch)
        padded = weights_y.new_zeros(batch * capacity, rows, height).index_copy(0, slot, weights_y)
        reduced = torch.bmm(padded.view(batch, -1, height), table).view(batch * capacity, -1).index_select(0, slot)
    reduced = reduced.view(num_rois * rows, width, channels)
    out = torch.bmm(weights_x.repeat_interleave(rows, dim=0), reduced)  # [K * P, Q, C]
    return out.view(num_rois, rows, -1, channels).permute(0, 3, 1, 2)


def _slots(image: Tensor, batch: int) -> tuple[Tensor, int]:
    """A place for each RoI in [B, R]: its image's row, in order, padded to the fullest image. (slot [K], R)."""
    counts = torch.bincount(image, minlength=batch)
    capacity = int(counts.max()) if len(image) else 0
    order = torch.argsort(image, stable=True)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(image)
    rank[order] = torch.arange(len(image), device=image.device) - starts[image[order]]
    return image * capacity + rank, capacity
