"""What the Triton kernels share: a RoI's map among the levels, its axes, the cells beside a position, a tile of cells.

Import this module, as the kernels', only where Triton is installed. Maps and outputs are channels last: [B, H, W, C]
and [K, P, Q, C]. Boxes and sums are float32 whatever the map's dtype.
Letters: B images, K RoIs, C channels, H and W sides of a map, P and Q pooled height and width.
Of up to four levels of a pyramid, mapN points at the map of level N, heightN and widthN are its sides, scaleN its cells
per image pixel.
"""

# ruff: noqa: SIM102 (a condition on a constexpr is decided while compiling, one on a value while running)

import triton
import triton.language as tl

AT_ONCE = tl.constexpr(32)  # RoIs that a tile looks at together, one a lane of a warp


@triton.jit
def select(level, v0, v1, v2, v3, LEVELS: tl.constexpr):
    """The level's entry of up to four: a pointer or a number."""
    value = v0
    if LEVELS > 1:
        if level == 1:
            value = v1
    if LEVELS > 2:
        if level == 2:
            value = v2
    if LEVELS > 3:
        if level == 3:
            value = v3
    return value


@triton.jit
def interval(low, high, P: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr):
    """One axis of a box in cells: start, bin size, samples per bin (see geometry.align_interval, num_samples)."""
    size = high - low
    start = low
    if ALIGNED:
        start = low - 0.5
    else:
        size = tl.maximum(size, 1.0)
    step = size / P
    samples = SAMPLING if SAMPLING > 0 else tl.maximum(tl.ceil(step).to(tl.int32), 0)
    return start, step, samples


@triton.jit
def map_of(
    k, map0, map1, map2, map3, height0, height1, height2, height3, width0, width1, width2, width3,
    images, levels, channels, LEVELS: tl.constexpr,
):  # fmt: skip
    """The map of RoI k's level and image: pointer, height, width."""
    level = tl.load(levels + k)
    height = select(level, height0, height1, height2, height3, LEVELS)
    width = select(level, width0, width1, width2, width3, LEVELS)
    plane = select(level, map0, map1, map2, map3, LEVELS)
    return plane + tl.load(images + k).to(tl.int64) * height * width * channels, height, width


@triton.jit
def axes_of(boxes, k, scale, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr):
    """RoI k on both axes, `interval` along x and then along y."""
    ends = boxes + 4 * k
    left, step_x, samples_x = interval(tl.load(ends) * scale, tl.load(ends + 2) * scale, Q, SAMPLING, ALIGNED)
    top, step_y, samples_y = interval(tl.load(ends + 1) * scale, tl.load(ends + 3) * scale, P, SAMPLING, ALIGNED)
    return left, step_x, samples_x, top, step_y, samples_y


@triton.jit
def taps(position, length):
    """Linear interpolation: lower cell, upper cell, upper weight, and 1 or 0 for inside or out; NaN is out."""
    valid = (position >= -1.0) & (position <= length)
    inside = tl.minimum(tl.maximum(tl.where(valid, position, 0.0), 0.0), length - 1.0)
    lower = inside.to(tl.int32)
    upper = tl.minimum(lower + 1, length - 1)
    return lower, upper, inside - lower, valid.to(tl.float32)


@triton.jit
def tile_of(height, width, TILE: tl.constexpr):
    """The tile of TILE x TILE cells of a program: image, first row, first column, each cell's row and column."""
    tiles_x = tl.cdiv(width, TILE)
    tiles = tl.cdiv(height, TILE) * tiles_x
    tile = tl.program_id(0) % tiles
    first_y = tile // tiles_x * TILE
    first_x = tile % tiles_x * TILE
    cell = tl.arange(0, TILE * TILE)
    return tl.program_id(0) // tiles, first_y, first_x, first_y + cell // TILE, first_x + cell % TILE


@triton.jit
def next_near(places, near, stop):
    """The places [AT_ONCE] in a list of RoIs that are near, `stop` for the others, and the first of them.

    A tile so visits the RoIs that can touch it in the list's order, and passes over the others 32 at a time.
    """
    waiting = tl.where(near & (places < stop), places, stop)
    return waiting, tl.min(waiting, 0)
