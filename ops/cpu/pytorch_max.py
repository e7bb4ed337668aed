"""RoIPool of the backend `pytorch`: a RoI's cells are copied together, adaptive pooling finds maxima and their cells.

The bins of `adaptive_max_pool2d` are RoIPool's: floor(p h / P) to ceil((p + 1) h / P). Its channels-last kernel keeps
the position of every maximum in vector registers, the first of equals. A table turns positions in the copy into
positions in the map, for the gradient's one scatter, which adds in the order of RoIs.
Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import reference
from ..autograd import differentiable_once
from ..sampling import pool_bins, round_interval
from ..validate import Rois

LARGE = 2  # RoIs of more than so many times the map's height or width are left to the reference
ELEMENTS_AT_ONCE = 1 << 18  # what stays in a core's cache

Spans = tuple[Tensor, Tensor]
"""RoIs on one axis: their first cells and how many cells they span, int64 [K]."""


def roi_pool(feature: Tensor, rois: Rois, output_size: tuple[int, int]) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] (float32, float64) at boxes in feature cells. [K, C, P, Q], channels last."""
    batch, channels, height, width = feature.shape
    x1, y1, x2, y2 = rois.boxes.detach().unbind(1)
    large = (round_interval(y1, y2)[1] > LARGE * height) | (round_interval(x1, x2)[1] > LARGE * width)
    table = feature.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    others = Rois(rois.boxes.detach().masked_fill(large[:, None], 0), rois.image)
    out = _CropMax.apply(table, feature.shape, others, output_size).permute(0, 3, 1, 2)
    if large.any():
        index = large.nonzero().squeeze(1)
        pooled = reference.roi_pool(feature, Rois(rois.boxes[index], rois.image[index]), output_size, 1.0)
        out = out.index_copy(0, index, pooled)
    return out


class _CropMax(torch.autograd.Function):
    """Maxima [K, P, Q, C] over the bins of RoIs; the rows of `table` are the cells of a map of `shape` [B, C, H, W]."""

    @staticmethod
    def forward(ctx, table, shape, rois, output_size):
        x1, y1, x2, y2 = rois.boxes.unbind(1)
        rows, columns = round_interval(y1, y2), round_interval(x1, x2)
        cells = _crop_cells(rois.image, rows, columns, *shape[2:])
        sides = list(zip(rows[1].tolist(), columns[1].tolist(), strict=True))
        out, source = _pool_crops(table, cells, sides, output_size)
        tops, bottoms = pool_bins(y1, y2, output_size[0], shape[2])
        lefts, rights = pool_bins(x1, x2, output_size[1], shape[3])
        empty = ((bottoms <= tops)[:, :, None] | (rights <= lefts)[:, None, :]).view(-1).nonzero().squeeze(1)
        out.view(-1, shape[1]).index_fill_(0, empty, 0)
        source.index_fill_(0, empty, table.numel())  # one element more, for the gradient of empty bins
        ctx.save_for_backward(source)
        ctx.table_shape = table.shape
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        source, grad = ctx.saved_tensors[0].view(-1), grad.reshape(-1)
        total = grad.new_zeros(ctx.table_shape.numel() + 1)
        for first in range(0, len(grad), ELEMENTS_AT_ONCE):
            chunk = slice(first, first + ELEMENTS_AT_ONCE)
            total.scatter_add_(0, source[chunk].long(), grad[chunk])
        return total[:-1].view(ctx.table_shape), None, None, None


def _crop_cells(image: Tensor, rows: Spans, columns: Spans, height: int, width: int) -> Tensor:
    """The cells of all RoIs, one RoI after another in raster order; `rows` and `columns` are first cells and counts.

    Cells outside the map are replaced by the nearest on its border. That changes no maximum: a bin that reaches over
    the border holds that cell too, and of bins that lie outside nothing is kept.
    """
    (top, tall), (left, wide) = rows, columns
    roi = torch.repeat_interleave(tall)
    down = torch.arange(len(roi)) - (tall.cumsum(0) - tall)[roi]
    line = (image[roi] * height + (top[roi] + down).clamp_(0, height - 1)) * width
    row = torch.repeat_interleave(wide[roi])
    before = left[roi] - (wide[roi].cumsum(0) - wide[roi])
    return torch.arange(len(row)).add_(before[row]).clamp_(0, width - 1).add_(line[row])


def _pool_crops(
    table: Tensor, cells: Tensor, sides: list[tuple[int, int]], output_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Maxima [K, P, Q, C] of crops of the given sides, and where they lie in the table's storage [K * P * Q, C].

    `cells` are all crops' cells, as rows of the table.
    """
    channels, num_bins = table.shape[1], output_size[0] * output_size[1]
    index_type = torch.int32 if table.numel() < 2**31 else torch.int64
    names, channel = (cells * channels).to(index_type), torch.arange(channels, dtype=index_type)
    out = table.new_empty(len(sides), *output_size, channels)
    source = names.new_empty(len(sides) * num_bins, channels)
    if not out.numel():
        return out, source
    portions = list(_portions(sides, num_bins, channels))
    # Room that all portions use again stays in the cache; new memory for each would cost as much as the pooling.
    crops = table.new_empty(max(end - begin for *_, begin, end in portions), channels)
    argmax = cells.new_empty(max(after - first for first, after, *_ in portions), *output_size, channels)
    targets, argmax_of = (values.permute(0, 3, 1, 2).split(1) for values in (out, argmax))
    pool = torch.ops.aten.adaptive_max_pool2d.out
    for first, after, begin, end in portions:
        torch.index_select(table, 0, cells[begin:end], out=crops[: end - begin])
        starts = [0]
        for k, where in zip(range(first, after), argmax_of, strict=False):
            height, width = sides[k]
            strides = (height * width * channels, 1, width * channels, channels)
            crop = crops.as_strided((1, channels, height, width), strides, starts[-1] * channels)
            pool(crop, output_size, out=targets[k], indices=where)
            starts.append(starts[-1] + height * width)
        inside = argmax[: after - first]
        inside += inside.new_tensor(starts[:-1])[:, None, None, None]
        part = source[first * num_bins : after * num_bins]
        torch.index_select(names[begin:end], 0, inside.view(-1), out=part.view(-1))
        part += channel
    return out, source


def _portions(sides: list[tuple[int, int]], num_bins: int, channels: int) -> Iterator[tuple[int, int, int, int]]:
    """Runs of RoIs that fit a cache, or single ones: (first, after, first crop's first cell, last crop's end)."""
    first = begin = end = size = 0
    for k, (height, width) in enumerate(sides):
        elements = max(height * width, num_bins) * channels
        if k > first and size + elements > ELEMENTS_AT_ONCE:
            yield first, k, begin, end
            first, begin, size = k, end, 0
        size += elements
        end += height * width
    yield first, len(sides), begin, end
