"""Triton kernels of bilinear pooling (RoIAlign, RoIWarp), forward and backward, all levels of a pyramid in a launch.

A program serves one RoI and a block of channels; its tile is a row of Q bins by that block, so that loads run along
channels, 16 bytes a thread. Rows of the map, once interpolated along x, are kept while successive samples fall between
the same two: on small bins that is most of the work saved. The deterministic backward kernel turns the loops around: a
program owns a tile of the map's cells, walks over the RoIs of its image in order and writes every cell once.
Letters: K RoIs, C channels, H and W sides of a map, P and Q pooled height and width.
"""

import triton
import triton.language as tl

from ops.triton_geometry import AT_ONCE, axes_of, map_of, select, taps


@triton.jit
def _interpolated_row(row, left, step_x, samples_x, width, channels, c, q, Q: tl.constexpr):
    """The map's row at pointer `row`, sampled along x and summed per bin: float32 [q, c]."""
    total = tl.zeros([q.shape[0], c.shape[0]], tl.float32)
    for s in range(samples_x):
        lower, upper, weight, valid = taps(left + (q + (s + 0.5) / samples_x) * step_x, width)
        keep = ((q < Q) & (valid > 0))[:, None] & (c < channels)[None, :]
        a = tl.load(row + lower[:, None] * channels + c[None, :], keep, 0.0).to(tl.float32)
        b = tl.load(row + upper[:, None] * channels + c[None, :], keep, 0.0).to(tl.float32)
        total += a + (b - a) * weight[:, None]
    return total


@triton.jit
def bilinear_forward(
    out, m0, m1, m2, m3, h0, h1, h2, h3, w0, w1, w2, w3, s0, s1, s2, s3, boxes, images, levels,
    channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out [K, P, Q, C] from maps [B, H, W, C]; grid (K, blocks of channels)."""
    k = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.arange(0, BLOCK_Q)
    plane, height, width = map_of(k, m0, m1, m2, m3, h0, h1, h2, h3, w0, w1, w2, w3, images, levels, channels, LEVELS)
    scale = select(tl.load(levels + k), s0, s1, s2, s3, LEVELS)
    left, step_x, samples_x, top, step_y, samples_y = axes_of(boxes, k, scale, P, Q, SAMPLING, ALIGNED)
    share = 1.0 / tl.maximum(samples_x * samples_y, 1)
    held = -2
    above = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
    below = above
    target = out + k.to(tl.int64) * P * Q * channels + q[:, None] * channels + c[None, :]
    keep = (q < Q)[:, None] & (c < channels)[None, :]
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
                        above = _interpolated_row(row, left, step_x, samples_x, width, channels, c, q, Q)
                    row = plane + upper.to(tl.int64) * stride
                    below = _interpolated_row(row, left, step_x, samples_x, width, channels, c, q, Q)
                    held = lower
                total += above + (below - above) * weight
        tl.store(target, (total * share).to(out.dtype.element_ty), keep, eviction_policy="evict_first")
        target += Q * channels


@triton.jit
def _spread_row(row, grad, left, step_x, samples_x, width, channels, c, q, Q: tl.constexpr):
    """The transpose of `_interpolated_row`: adds `grad` [q, c] to the gradient's row at pointer `row`."""
    for s in range(samples_x):
        lower, upper, weight, valid = taps(left + (q + (s + 0.5) / samples_x) * step_x, width)
        keep = ((q < Q) & (valid > 0))[:, None] & (c < channels)[None, :]
        high = grad * weight[:, None]
        tl.atomic_add(row + lower[:, None] * channels + c[None, :], grad - high, keep, sem="relaxed")
        tl.atomic_add(row + upper[:, None] * channels + c[None, :], high, keep, sem="relaxed")


@triton.jit
def bilinear_backward_atomic(
    grad, m0, m1, m2, m3, h0, h1, h2, h3, w0, w1, w2, w3, s0, s1, s2, s3, boxes, images, levels,
    channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Adds the gradient of `bilinear_forward` to float32 maps m0.. [B, H, W, C]; the order of sums is not fixed."""
    k = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.arange(0, BLOCK_Q)
    plane, height, width = map_of(k, m0, m1, m2, m3, h0, h1, h2, h3, w0, w1, w2, w3, images, levels, channels, LEVELS)
    scale = select(tl.load(levels + k), s0, s1, s2, s3, LEVELS)
    left, step_x, samples_x, top, step_y, samples_y = axes_of(boxes, k, scale, P, Q, SAMPLING, ALIGNED)
    share = 1.0 / tl.maximum(samples_x * samples_y, 1)
    held = -2
    above = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
    below = above
    source = grad + k.to(tl.int64) * P * Q * channels + q[:, None] * channels + c[None, :]
    keep = (q < Q)[:, None] & (c < channels)[None, :]
    stride = width * channels
    for p in range(P):
        given = tl.load(source, keep, 0.0).to(tl.float32) * share
        source += Q * channels
        for s in range(samples_y):
            lower, upper, weight, valid = taps(top + (p + (s + 0.5) / samples_y) * step_y, height)
            if valid > 0:
                if lower != held:
                    if held >= 0:
                        row = plane + tl.cast(held, tl.int64) * stride
                        _spread_row(row, above, left, step_x, samples_x, width, channels, c, q, Q)
                    if lower == held + 1:
                        above = below
                    else:
                        if held >= 0:
                            row = plane + tl.minimum(held + 1, height - 1).to(tl.int64) * stride
                            _spread_row(row, below, left, step_x, samples_x, width, channels, c, q, Q)
                        above = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
                    below = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
                    held = lower
                above += given * (1.0 - weight)
                below += given * weight
    if held >= 0:
        _spread_row(plane + tl.cast(held, tl.int64) * stride, above, left, step_x, samples_x, width, channels, c, q, Q)
        row = plane + tl.minimum(held + 1, height - 1).to(tl.int64) * stride
        _spread_row(row, below, left, step_x, samples_x, width, channels, c, q, Q)


@triton.jit
def _bin_weights(cells, start, step, samples, p, length):
    """How much bin p reads each of `cells` along one axis, before the division by the number of samples."""
    total = tl.zeros(cells.shape, tl.float32)
    for s in range(samples):
        position = start + (p + (s + 0.5) / samples) * step
        valid = (position >= -1.0) & (position <= length)
        inside = tl.minimum(tl.maximum(position, 0.0), length - 1.0)
        total += tl.where(valid, tl.maximum(1.0 - tl.abs(inside - cells), 0.0), 0.0)
    return total


@triton.jit
def _bins_near(first, last, start, step, P: tl.constexpr):
    """Bins [low, high) that can read cells first to last, a margin included; all of them where bins have no size."""
    low = tl.where(step > 0, tl.floor((first - 2.0 - start) / step), 0.0)
    high = tl.where(step > 0, tl.ceil((last + 2.0 - start) / step), P * 1.0)
    low = tl.minimum(tl.maximum(low, 0.0), P * 1.0)
    high = tl.minimum(tl.maximum(high, 0.0), P * 1.0)
    return low.to(tl.int32), high.to(tl.int32)


@triton.jit
def _near(ends, order, several, stop, scale, first, TILE: tl.constexpr):
    """Whether RoIs can read the tile's cells on one axis, a margin included; `ends` points at the axis's low ends."""
    k = tl.load(order + several, several < stop, 0)
    low = tl.load(ends + 4 * k) * scale
    high = tl.load(ends + 4 * k + 2) * scale
    touches = (tl.minimum(low, high) - 3.0 <= first + TILE) & (tl.maximum(low, high) + 3.0 >= first)
    return touches & (several < stop)


@triton.jit
def bilinear_backward_gather(
    grad, out, height, width, scale, boxes, order, starts, channels,
    P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr,
    TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out [B, H, W, C] of one level, each cell written once; grid (B * tiles of TILE x TILE cells, channel blocks).

    `order` lists RoIs by image, `starts` [B + 1] says where each image's RoIs begin in it.
    """
    tiles_x = tl.cdiv(width, TILE)
    tiles = tl.cdiv(height, TILE) * tiles_x
    image = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    first_y = tile // tiles_x * TILE
    first_x = tile % tiles_x * TILE
    cell = tl.arange(0, TILE * TILE)
    y = first_y + cell // TILE
    x = first_x + cell % TILE
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([TILE * TILE, BLOCK_C], tl.float32)
    stop = tl.load(starts + image + 1)
    for first in range(tl.load(starts + image), stop, AT_ONCE):
        several = first + tl.arange(0, AT_ONCE)
        near_x = _near(boxes, order, several, stop, scale, first_x, TILE)
        near_y = _near(boxes + 1, order, several, stop, scale, first_y, TILE)
        if tl.max((near_x & near_y).to(tl.int32), 0) > 0:
            for index in range(first, tl.minimum(first + AT_ONCE, stop)):
                k = tl.load(order + index)
                left, step_x, samples_x, top, step_y, samples_y = axes_of(boxes, k, scale, P, Q, SAMPLING, ALIGNED)
                share = 1.0 / tl.maximum(samples_x * samples_y, 1)
                low_p, high_p = _bins_near(first_y, first_y + TILE - 1, top, step_y, P)
                low_q, high_q = _bins_near(first_x, first_x + TILE - 1, left, step_x, Q)
                for p in range(low_p, high_p):
                    weight_y = _bin_weights(y, top, step_y, samples_y, p, height) * share
                    for q in range(low_q, high_q):
                        weight = weight_y * _bin_weights(x, left, step_x, samples_x, q, width)
                        source = grad + ((k.to(tl.int64) * P + p) * Q + q) * channels + c
                        given = tl.load(source, c < channels, 0.0).to(tl.float32)
                        total += weight[:, None] * given[None, :]
    place = ((image.to(tl.int64) * height + y) * width + x)[:, None] * channels + c[None, :]
    keep = ((y < height) & (x < width))[:, None] & (c < channels)[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), keep)
