"""RoIPool as four look-ups a bin in tables of windowed maxima; the argmax rides along in an integer key.

A bin of h x w cells is the union of at most four windows whose sides are powers of two, so with one table per
window size the maximum over any bin is the maximum of four table entries, whatever its size. For the backward pass
the tables hold 64-bit keys: the float32 value's bits above, the cell's number below (inverted, so that the first of
equal values wins). One integer maximum then finds value and argmax at once, and the gradient is one scatter, summed
in a fixed order.
Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width, N = K * P * Q bins.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ops.sampling import round_half_away
from ops.validate import Rois

BINS_AT_ONCE = 2048  # times 64 channels of 8 bytes: 1 MiB, which stays in a core's cache
CHANNELS_AT_ONCE = 64
LOW_BITS = 0xFFFFFFFF


def roi_pool(feature: Tensor, rois: Rois, output_size: tuple[int, int]) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] (float32, float64) at boxes in feature cells. [K, C, P, Q], channels last."""
    x1, y1, x2, y2 = rois.boxes.detach().unbind(1)
    rows = pool_bins(y1, y2, output_size[0], feature.shape[2])
    columns = pool_bins(x1, x2, output_size[1], feature.shape[3])
    out = _RangeMax.apply(feature, rois.image, *rows, *columns)
    return out.view(len(rois.image), *output_size, -1).permute(0, 3, 1, 2)


def pool_bins(low: Tensor, high: Tensor, num_bins: int, length: int) -> tuple[Tensor, Tensor]:
    """RoIPool's bins on one axis for ends [K] in feature cells: (start, end), each [K, P] int64 in [0, L]."""
    low, high = (round_half_away(end).clamp(-(2**30), 2**30).long()[:, None] for end in (low, high))
    size = (high - low + 1).clamp(min=1)
    bins = torch.arange(num_bins, device=low.device)
    start = low + (bins * size).div(num_bins, rounding_mode="floor")
    end = low - (-(bins + 1) * size).div(num_bins, rounding_mode="floor")
    return start.clamp(0, length), end.clamp(0, length)


class _Axis(NamedTuple):
    """Where two windows of 2 ** level cells cover each bin of one axis; all [K, P], and the number of levels."""

    level: Tensor
    first: Tensor
    second: Tensor
    empty: Tensor
    num_levels: int

    @staticmethod
    def of(start: Tensor, end: Tensor, length: int) -> "_Axis":
        levels = torch.tensor([max((size - 1).bit_length() - 1, 0) for size in range(length + 1)], device=start.device)
        empty = end <= start
        level = levels[(end - start).clamp(min=0)]
        first = start.masked_fill(empty, 0)
        second = (end - (1 << level)).masked_fill(empty, 0)
        return _Axis(level, first, second, empty, int(level.max()) + 1 if level.numel() else 1)


class _RangeMax(torch.autograd.Function):
    """Maxima [N, C] over bins given by image [K] and starts and ends [K, P], [K, Q]."""

    @staticmethod
    def forward(ctx, feature, image, top, bottom, left, right):
        batch, channels, height, width = feature.shape
        rows, columns = _Axis.of(top, bottom, height), _Axis.of(left, right, width)
        entries = _table_entries(image, rows, columns, feature.shape)
        empty = (rows.empty[:, :, None] | columns.empty[:, None, :]).view(-1)
        values = feature.new_empty(len(empty), channels)
        need_argmax = ctx.needs_input_grad[0]
        source = torch.empty_like(values, dtype=torch.int64) if need_argmax else None
        for first in range(0, channels, CHANNELS_AT_ONCE):
            part = slice(first, first + CHANNELS_AT_ONCE)
            plane = feature[:, part].permute(0, 2, 3, 1).contiguous()
            if not need_argmax:
                for bins, best in _maxima(_tables(plane, rows.num_levels, columns.num_levels), entries):
                    values[bins, part] = best
                continue
            number = _cell_numbers(batch * height * width, channels, feature.device)[:, part].view(plane.shape)
            find = _by_bits if plane.dtype == torch.float32 else _by_rank
            find(plane, number, (rows.num_levels, columns.num_levels), entries, values[:, part], source[:, part])
        if empty.any():
            values[empty] = 0
        if need_argmax:
            ctx.save_for_backward(source, empty)
            ctx.feature_shape = feature.shape
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        source, empty = ctx.saved_tensors
        batch, channels, height, width = ctx.feature_shape
        if empty.any():
            grad = grad.masked_fill(empty[:, None], 0)
        total = grad.new_zeros(batch * height * width * channels)
        total.scatter_add_(0, source.view(-1), grad.reshape(-1))
        return total.view(batch, height, width, channels).permute(0, 3, 1, 2), None, None, None, None, None


def _cell_numbers(cells: int, channels: int, device: torch.device) -> Tensor:
    """The place [cells, C] of every value in channels-last storage, in raster order within a channel."""
    return torch.arange(cells * channels, device=device).view(cells, channels)


def _table_entries(image: Tensor, rows: _Axis, columns: _Axis, shape: torch.Size) -> list[Tensor]:
    """The rows of the joined tables (levels of y, levels of x, B, H, W) that cover each bin: four times [N]."""
    batch, _, height, width = shape
    level = rows.level[:, :, None] * columns.num_levels + columns.level[:, None, :]
    base = (level * batch + image[:, None, None]) * height
    return [
        ((base + y[:, :, None]) * width + x[:, None, :]).view(-1)
        for y in (rows.first, rows.second)
        for x in (columns.first, columns.second)
    ]


def _tables(plane: Tensor, levels_y: int, levels_x: int) -> Tensor:
    """Maxima of `plane` [B, H, W, C] over windows of 2^i x 2^j cells that start at each cell: [i * j * B * H * W, C].

    Windows that would leave the map are cut at its border; no bin asks for one.
    """
    tables = plane.new_empty(levels_y, levels_x, *plane.shape)
    for i in range(levels_y):
        for j in range(levels_x):
            table = tables[i, j]
            if i == j == 0:
                table.copy_(plane)
                continue
            half = 1 << (j - 1 if j else i - 1)
            before = tables[i, j - 1] if j else tables[i - 1, j]
            axis = 2 if j else 1
            size = plane.shape[axis] - half
            table.copy_(before)
            if size > 0:
                window = table.narrow(axis, 0, size)
                torch.maximum(before.narrow(axis, 0, size), before.narrow(axis, half, size), out=window)
    return tables.view(-1, plane.shape[3])


def _maxima(tables: Tensor, entries: list[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """The maxima of four table entries each, a cacheful of bins at a time: pairs (bins, maxima [n, C])."""
    for first in range(0, len(entries[0]), BINS_AT_ONCE):
        bins = slice(first, first + BINS_AT_ONCE)
        best = tables.index_select(0, entries[0][bins])
        for each in entries[1:]:
            torch.maximum(best, tables.index_select(0, each[bins]), out=best)
        yield bins, best


def _by_bits(plane, number, levels, entries, out, source) -> None:
    """Maxima into `out` and the places of the first of them into `source`, both [N, C], for float32."""
    bits = (plane + 0.0).view(torch.int32)  # adding zero turns -0 into 0, which must tie with it
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    for bins, best in _maxima(_tables((ordered.long() << 32) | (LOW_BITS - number), *levels), entries):
        source[bins] = LOW_BITS - (best & LOW_BITS)
        bits = (best >> 32).int()
        out[bins] = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _by_rank(plane, number, levels, entries, out, source) -> None:
    """The same for float64, whose bits leave no room for a place: every channel's cells are ranked by sorting."""
    flat, number = plane.flatten(0, 2), number.flatten(0, 2)
    order = flat.sort(dim=0, stable=True, descending=True).indices
    places = torch.arange(len(flat), device=flat.device)[:, None].expand_as(order)
    rank = torch.empty_like(order).scatter_(0, order, -places).view(plane.shape)
    for bins, best in _maxima(_tables(rank, *levels), entries):
        cells = order.gather(0, -best)
        source[bins] = number.gather(0, cells)
        out[bins] = flat.gather(0, cells)
