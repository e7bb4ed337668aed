"""Triton kernels of RoIPool, forward and backward; programs and tiles as in `bilinear.py`.

The forward pass keeps the place of each maximum, and the backward passes bring the gradient there.
Letters: K RoIs, C channels, H and W sides of a map, P and Q pooled height and width.
"""

import triton
import triton.language as tl

from .geometry import AT_ONCE, map_of, next_near, tile_of


@triton.jit
def pool_forward(
    out, argmax, map0, map1, map2, map3, height0, height1, height2, height3, width0, width1, width2, width3,
    tops, bottoms, lefts, rights, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """RoIPool: out and argmax (cell y * W + x, -1 for none) [K, P, Q, C] from bins [K, P] and [K, Q] in cells."""
    k = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.arange(0, BLOCK_Q)
    plane, height, width = map_of(
        k, map0, map1, map2, map3, height0, height1, height2, height3, width0, width1, width2, width3,
        images, levels, channels, LEVELS,
    )  # fmt: skip
    left = tl.load(lefts + k * Q + q, q < Q, 0)
    wide = tl.load(rights + k * Q + q, q < Q, 0) - left
    widest = tl.max(wide, 0)
    for p in range(P):
        best = tl.full([BLOCK_Q, BLOCK_C], float("-inf"), tl.float32)
        where = tl.full([BLOCK_Q, BLOCK_C], -1, tl.int32)
        for y in range(tl.load(tops + k * P + p), tl.load(bottoms + k * P + p)):
            for across in range(widest):
                x = left + across
                keep = (across < wide)[:, None] & (c < channels)[None, :]
                cell = y * width + x
                place = cell.to(tl.int64)[:, None] * channels + c[None, :]
                value = tl.load(plane + place, keep, float("-inf")).to(tl.float32)
                better = keep & ((value > best) | (where < 0))
                best = tl.where(better, value, best)
                where = tl.where(better, cell[:, None], where)
        best = tl.where(where < 0, 0.0, best)
        target = ((k.to(tl.int64) * P + p) * Q + q)[:, None] * channels + c[None, :]
        inside = (q < Q)[:, None] & (c < channels)[None, :]
        tl.store(out + target, best.to(out.dtype.element_ty), inside, eviction_policy="evict_first")
        tl.store(argmax + target, where, inside, eviction_policy="evict_first")


@triton.jit
def pool_backward_atomic(
    grad, argmax, map0, map1, map2, map3, height0, height1, height2, height3, width0, width1, width2, width3,
    images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Adds the gradient of `pool_forward` to float32 maps; the order of sums is not fixed."""
    k = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.arange(0, BLOCK_Q)
    plane, height, width = map_of(
        k, map0, map1, map2, map3, height0, height1, height2, height3, width0, width1, width2, width3,
        images, levels, channels, LEVELS,
    )  # fmt: skip
    keep = (q < Q)[:, None] & (c < channels)[None, :]
    for p in range(P):
        source = ((k.to(tl.int64) * P + p) * Q + q)[:, None] * channels + c[None, :]
        cell = tl.load(argmax + source, keep, -1)
        upstream = tl.load(grad + source, keep, 0.0).to(tl.float32)
        place = cell.to(tl.int64) * channels + c[None, :]
        tl.atomic_add(plane + place, upstream, keep & (cell >= 0), sem="relaxed")


@triton.jit
def pool_backward_gather(
    grad, argmax, out, height, width, tops, bottoms, lefts, rights, order, starts, channels,
    P: tl.constexpr, Q: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out [B, H, W, C] of one level, each cell written once in RoI order; grid as `bilinear_backward_gather`."""
    image, first_y, first_x, y, x = tile_of(height, width, TILE)
    number = y * width + x
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([TILE * TILE, BLOCK_C], tl.float32)
    stop = tl.load(starts + image + 1)
    for first in range(tl.load(starts + image), stop, AT_ONCE):
        candidates = first + tl.arange(0, AT_ONCE)
        ks = tl.load(order + candidates, candidates < stop, 0)
        near_y = (tl.load(tops + ks * P) < first_y + TILE) & (tl.load(bottoms + ks * P + P - 1) > first_y)
        near_x = (tl.load(lefts + ks * Q) < first_x + TILE) & (tl.load(rights + ks * Q + Q - 1) > first_x)
        waiting, index = next_near(candidates, near_x & near_y, stop)
        while index < stop:
            k = tl.load(order + index)
            for p in range(P):
                if (tl.load(tops + k * P + p) < first_y + TILE) & (tl.load(bottoms + k * P + p) > first_y):
                    for q in range(Q):
                        if (tl.load(lefts + k * Q + q) < first_x + TILE) & (tl.load(rights + k * Q + q) > first_x):
                            source = ((k.to(tl.int64) * P + p) * Q + q) * channels + c
                            chosen = tl.load(argmax + source, c < channels, -1)
                            upstream = tl.load(grad + source, c < channels, 0.0).to(tl.float32)
                            total += tl.where(number[:, None] == chosen[None, :], upstream[None, :], 0.0)
            waiting, index = next_near(waiting, waiting > index, stop)
    place = ((image.to(tl.int64) * height + y) * width + x)[:, None] * channels + c[None, :]
    keep = ((y < height) & (x < width))[:, None] & (c < channels)[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), keep)
