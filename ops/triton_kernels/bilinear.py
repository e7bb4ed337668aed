"""Triton kernels of bilinear pooling (RoIAlign, RoIWarp), forward and backward, all levels of a pyramid in a launch.

A bin is the mean or the maximum of its samples. They are numbered by row, then column; the maximum's forward kernel
keeps the number of the sample that won, and the backward kernels, which serve both, give one sample at a time its
share of the gradient where a mean's samples are taken together (MAX).

A program serves one RoI and a block of channels; its tile is a row of Q bins by that block, so that loads run along
channels, 16 bytes per thread. Rows of the map, once interpolated along x, are kept while successive samples fall
between the same two: on small bins that is most of the work saved. The deterministic backward kernel turns the loops
around: a program owns a tile of the map's cells, walks over the RoIs of its image in order and writes every cell once.
Letters: K RoIs, C channels, H and W sides of a map, P and Q pooled height and width.
"""

import triton
import triton.language as tl

from .geometry import AT_ONCE, axes_of, map_of, next_near, select, taps, tile_of

REACH = tl.constexpr(1.0625)  # cells that a sample reads on either side, and a little for rounding


@triton.jit
def _roi_of_program(
    map0, map1, map2, map3, height0, height1, height2, height3,
    width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The program's RoI: its map, its axes, its bins q and channels c, and where its first row [q, c] of outputs is."""
    k = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.arange(0, BLOCK_Q)
    plane, height, width = map_of(
        k, map0, map1, map2, map3, height0, height1, height2, height3, width0, width1, width2, width3,
        images, levels, channels, LEVELS,
    )  # fmt: skip
    scale = select(tl.load(levels + k), scale0, scale1, scale2, scale3, LEVELS)
    left, step_x, samples_x, top, step_y, samples_y = axes_of(boxes, k, scale, P, Q, SAMPLING, ALIGNED)
    place = k.to(tl.int64) * P * Q * channels + q[:, None] * channels + c[None, :]
    keep = (q < Q)[:, None] & (c < channels)[None, :]
    return plane, height, width, left, step_x, samples_x, top, step_y, samples_y, q, c, place, keep


@triton.jit
def _interpolated_row(row, first, last, left, step_x, samples_x, width, channels, c, q, Q: tl.constexpr):
    """The map's row at pointer `row`, the samples [first, last) along x summed per bin: float32 [q, c]."""
    total = tl.zeros([q.shape[0], c.shape[0]], tl.float32)
    for s in range(first, last):
        lower, upper, weight, valid = taps(left + (q + (s + 0.5) / samples_x) * step_x, width)
        keep = ((q < Q) & (valid > 0))[:, None] & (c < channels)[None, :]
        a = tl.load(row + lower[:, None] * channels + c[None, :], keep, 0.0).to(tl.float32)
        b = tl.load(row + upper[:, None] * channels + c[None, :], keep, 0.0).to(tl.float32)
        total += a + (b - a) * weight[:, None]
    return total


@triton.jit
def bilinear_forward(
    out, map0, map1, map2, map3, height0, height1, height2, height3,
    width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Means: out [K, P, Q, C] from maps [B, H, W, C]; grid (K, blocks of channels)."""
    plane, height, width, left, step_x, samples_x, top, step_y, samples_y, q, c, place, keep = _roi_of_program(
        map0, map1, map2, map3, height0, height1, height2, height3,
        width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
        LEVELS, P, Q, SAMPLING, ALIGNED, BLOCK_Q, BLOCK_C,
    )  # fmt: skip
    share = 1.0 / tl.maximum(samples_x * samples_y, 1)
    held = -2
    above = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
    below = above
    target = out + place
    stride = width * channels
    for p in range(P):
        total = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
        for s in range(samples_y):
            lower, upper, weight, valid = taps(top + (p + (s + 0.5) / samples_y) * step_y, height)
            if valid > 0:
                if lower != held:
                    if lower == held + 1:
                        above = below
                    else:
                        row = plane + lower.to(tl.int64) * stride
                        above = _interpolated_row(row, 0, samples_x, left, step_x, samples_x, width, channels, c, q, Q)
                    row = plane + upper.to(tl.int64) * stride
                    below = _interpolated_row(row, 0, samples_x, left, step_x, samples_x, width, channels, c, q, Q)
                    held = lower
                total += above + (below - above) * weight
        tl.store(target, (total * share).to(out.dtype.element_ty), keep, eviction_policy="evict_first")
        target += Q * channels


@triton.jit
def _in_fours(place):
    """Places [q, c] of winners: a thread moves four bytes beside its four floats, not sixteen that others need."""
    return tl.max_contiguous(place, (1, 4))


@triton.jit
def maximum_forward(
    out, winner, map0, map1, map2, map3, height0, height1, height2, height3,
    width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Maxima: out and the first maximal sample's number [K, P, Q, C]; else as `bilinear_forward`.

    Samples outside the map are 0, NaN is larger than any number, and a bin without samples is 0.
    """
    plane, height, width, left, step_x, samples_x, top, step_y, samples_y, q, c, place, keep = _roi_of_program(
        map0, map1, map2, map3, height0, height1, height2, height3,
        width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
        LEVELS, P, Q, SAMPLING, ALIGNED, BLOCK_Q, BLOCK_C,
    )  # fmt: skip
    stride = width * channels
    for p in range(P):
        best = tl.full([BLOCK_Q, BLOCK_C], float("-inf"), tl.float32)
        best_sample = tl.zeros([BLOCK_Q, BLOCK_C], tl.int32)
        for i in range(samples_y):
            lower, upper, weight, valid = taps(top + (p + (i + 0.5) / samples_y) * step_y, height)
            for j in range(samples_x):
                value = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
                if valid > 0:
                    row = plane + lower.to(tl.int64) * stride
                    above = _interpolated_row(row, j, j + 1, left, step_x, samples_x, width, channels, c, q, Q)
                    row = plane + upper.to(tl.int64) * stride
                    below = _interpolated_row(row, j, j + 1, left, step_x, samples_x, width, channels, c, q, Q)
                    value = above + (below - above) * weight
                better = (value > best) | ((value != value) & (best == best))
                best = tl.where(better, value, best)
                best_sample = tl.where(better, i * samples_x + j, best_sample)
        best = tl.where(samples_x * samples_y > 0, best, 0.0)
        tl.store(out + place, best.to(out.dtype.element_ty), keep, eviction_policy="evict_first")
        number = best_sample.to(winner.dtype.element_ty)
        tl.store(winner + _in_fours(place), number, keep, eviction_policy="evict_first")
        place += Q * channels


@triton.jit
def _spread_row(row, grad, first, last, left, step_x, samples_x, width, channels, c, q, Q: tl.constexpr):
    """The transpose of `_interpolated_row`: adds `grad` [q, c] to the gradient's row at pointer `row`."""
    for s in range(first, last):
        lower, upper, weight, valid = taps(left + (q + (s + 0.5) / samples_x) * step_x, width)
        keep = ((q < Q) & (valid > 0))[:, None] & (c < channels)[None, :]
        high = grad * weight[:, None]
        tl.atomic_add(row + lower[:, None] * channels + c[None, :], grad - high, keep, sem="relaxed")
        tl.atomic_add(row + upper[:, None] * channels + c[None, :], high, keep, sem="relaxed")


@triton.jit
def bilinear_backward_atomic(
    grad, winner, map0, map1, map2, map3, height0, height1, height2, height3,
    width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr,
    MAX: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Adds the forward kernels' gradient to float32 maps map0.. [B, H, W, C]; the order of sums is not fixed.

    A mean walks down the box once. A maximum does so for each column of samples, as its rows hold what that column won;
    the grid's third axis shares the columns out.
    """
    plane, height, width, left, step_x, samples_x, top, step_y, samples_y, q, c, place, keep = _roi_of_program(
        map0, map1, map2, map3, height0, height1, height2, height3,
        width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
        LEVELS, P, Q, SAMPLING, ALIGNED, BLOCK_Q, BLOCK_C,
    )  # fmt: skip
    share = 1.0 if MAX else 1.0 / tl.maximum(samples_x * samples_y, 1)
    stride = width * channels
    for j in range(tl.program_id(2) if MAX else 0, samples_x if MAX else 1, tl.num_programs(2) if MAX else 1):
        first = j if MAX else 0
        last = j + 1 if MAX else samples_x
        held = -2
        above = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
        below = above
        source = place
        for p in range(P):
            upstream = tl.load(grad + source, keep, 0.0).to(tl.float32) * share
            if MAX:
                best_sample = tl.load(winner + _in_fours(source), keep, 0).to(tl.int32)
            source += Q * channels
            for i in range(samples_y):
                lower, upper, weight, valid = taps(top + (p + (i + 0.5) / samples_y) * step_y, height)
                if valid > 0:
                    if lower != held:
                        if held >= 0:
                            row = plane + tl.cast(held, tl.int64) * stride
                            _spread_row(row, above, first, last, left, step_x, samples_x, width, channels, c, q, Q)
                        if lower == held + 1:
                            above = below
                        else:
                            if held >= 0:
                                row = plane + tl.minimum(held + 1, height - 1).to(tl.int64) * stride
                                _spread_row(row, below, first, last, left, step_x, samples_x, width, channels, c, q, Q)
                            above = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
                        below = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
                        held = lower
                    part = upstream
                    if MAX:
                        part = tl.where(best_sample == i * samples_x + j, upstream, 0.0)
                    above += part * (1.0 - weight)
                    below += part * weight
        if held >= 0:
            row = plane + tl.cast(held, tl.int64) * stride
            _spread_row(row, above, first, last, left, step_x, samples_x, width, channels, c, q, Q)
            row = plane + tl.minimum(held + 1, height - 1).to(tl.int64) * stride
            _spread_row(row, below, first, last, left, step_x, samples_x, width, channels, c, q, Q)


@triton.jit
def _bin_weights(cells, first, last, start, step, samples, p, length):
    """How much the samples [first, last) of bin p read each of `cells` along one axis, the sum over them."""
    total = tl.zeros(cells.shape, tl.float32)
    for s in range(first, last):
        position = start + (p + (s + 0.5) / samples) * step
        valid = (position >= -1.0) & (position <= length)
        inside = tl.minimum(tl.maximum(position, 0.0), length - 1.0)
        total += tl.where(valid, tl.maximum(1.0 - tl.abs(inside - cells), 0.0), 0.0)
    return total


@triton.jit
def _bins_near(first, last, start, step, P: tl.constexpr):
    """Bins [low, high) with samples that can read cells first to last; all of them where bins have no size."""
    low = tl.where(step > 0, tl.floor((first - REACH - start) / step), 0.0)
    high = tl.where(step > 0, tl.ceil((last + REACH - start) / step), P * 1.0)
    low = tl.minimum(tl.maximum(low, 0.0), P * 1.0)
    high = tl.minimum(tl.maximum(high, 0.0), P * 1.0)
    return low.to(tl.int32), high.to(tl.int32)


@triton.jit
def _near(ends, ks, scale, first, TILE: tl.constexpr):
    """Whether the RoIs `ks` can read the tile's cells on one axis; `ends` points at the axis's low ends.

    `interval` may move a RoI by half a cell to the left, or stretch it to one cell to the right.
    """
    low = tl.load(ends + 4 * ks) * scale
    high = tl.load(ends + 4 * ks + 2) * scale
    return (tl.minimum(low, high) - 0.5 - REACH < first + TILE) & (tl.maximum(low, high) + 1.0 + REACH > first)


@triton.jit
def bilinear_backward_gather(
    grad, winner, out, height, width, scale, boxes, order, starts, channels,
    P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr, MAX: tl.constexpr,
    TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out [B, H, W, C] of one level, each cell written once; grid (B * tiles of TILE x TILE cells, channel blocks).

    `order` lists RoIs by image, `starts` [B + 1] says where each image's RoIs begin in it.
    """
    image, first_y, first_x, y, x = tile_of(height, width, TILE)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([TILE * TILE, BLOCK_C], tl.float32)
    stop = tl.load(starts + image + 1)
    for first in range(tl.load(starts + image), stop, AT_ONCE):
        candidates = first + tl.arange(0, AT_ONCE)
        ks = tl.load(order + candidates, candidates < stop, 0)
        near = _near(boxes, ks, scale, first_x, TILE) & _near(boxes + 1, ks, scale, first_y, TILE)
        waiting, index = next_near(candidates, near, stop)
        while index < stop:
            k = tl.load(order + index)
            left, step_x, samples_x, top, step_y, samples_y = axes_of(boxes, k, scale, P, Q, SAMPLING, ALIGNED)
            share = 1.0 if MAX else 1.0 / tl.maximum(samples_x * samples_y, 1)
            low_p, high_p = _bins_near(first_y, first_y + TILE - 1, top, step_y, P)
            low_q, high_q = _bins_near(first_x, first_x + TILE - 1, left, step_x, Q)
            for p in range(low_p, high_p):
                for i in range(samples_y if MAX else 1):
                    last_i = i + 1 if MAX else samples_y
                    weight_y = _bin_weights(y, i, last_i, top, step_y, samples_y, p, height) * share
                    for q in range(low_q, high_q):
                        place = ((k.to(tl.int64) * P + p) * Q + q) * channels + c
                        upstream = tl.load(grad + place, c < channels, 0.0).to(tl.float32)
                        if MAX:
                            best_sample = tl.load(winner + place, c < channels, 0).to(tl.int32)
                        for j in range(samples_x if MAX else 1):
                            last_j = j + 1 if MAX else samples_x
                            weight = weight_y * _bin_weights(x, j, last_j, left, step_x, samples_x, q, width)
                            part = upstream
                            if MAX:
                                part = tl.where(best_sample == i * samples_x + j, upstream, 0.0)
                            total += weight[:, None] * part[None, :]
            waiting, index = next_near(waiting, waiting > index, stop)
    place = ((image.to(tl.int64) * height + y) * width + x)[:, None] * channels + c[None, :]
    keep = ((y < height) & (x < width))[:, None] & (c < channels)[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), keep)
