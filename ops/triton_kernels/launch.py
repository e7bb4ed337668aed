"""Launches of the Triton kernels, their autograd functions, and their registration for `torch.compile`.

Eager code goes through `torch.autograd.Function`, a few microseconds a call; under `torch.compile` the same launches
are custom operators, `roi_ops::bilinear` and `roi_ops::pool`, with shapes and gradients that a compiler can trace.
Letters: B images, K RoIs, C channels, H and W sides of a map, P and Q pooled height and width, L levels (1 to 4).
"""

import torch
import triton
from torch import Tensor

from ..autograd import differentiable_once
from ..validate import PoolSpec
from . import MAX_LEVELS
from .bilinear import (
    bilinear_backward_atomic,
    bilinear_backward_gather,
    bilinear_forward,
    maximum_forward,
)
from .pool import pool_backward_atomic, pool_backward_gather, pool_forward

TILE_ELEMENTS = (
    2048  # of a row of bins by a block of channels: four warps load float32 in four times 16 bytes per thread
)
WINNERS_ELEMENTS = 1024  # where the winners are held beside the gradient
TILE = 4  # the deterministic backward's tiles are 4 x 4 cells ...
BILINEAR_CHANNELS, POOL_CHANNELS = 64, 128  # ... by this many channels
WARPS = 4  # of a program, in the forward and the atomic backward passes
# The most registers of a thread in the bilinear one and in RoIPool's forward pass. Left alone, ptxas aims at more warps
# and spills: it takes 48 to 64 where 72 to 93 spill nothing, and in RoIPool 72 or 80 where 78 to 92 spill nothing.
REGISTERS = {} if torch.version.hip else {"maxnreg": 128}


def bilinear(
    maps: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: list[float], spec: PoolSpec
) -> Tensor:
    """RoIAlign of each box on its level's map.

    maps [B, C, H_l, W_l] of one dtype; boxes [K, 4] float32 in image pixels; image and level [K] int32; one scale a
    level. Returns [K, C, P, Q], channels last, in the maps' dtype. No gradient for boxes.
    """
    tables = [feature.permute(0, 2, 3, 1).contiguous() for feature in maps]
    if torch.compiler.is_compiling():
        size, ratio = spec.output_size, spec.sampling_ratio
        settings = (*size, ratio, spec.aligned, spec.reduce, spec.deterministic)
        out = torch.ops.roi_ops.bilinear(tables, boxes, image, level, scales, *settings)[0]
    else:
        out = _Bilinear.apply(boxes, image, level, scales, spec, *tables)
    return out.permute(0, 3, 1, 2)


def pool(
    feature: Tensor, image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], deterministic: bool
) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] over bins with starts and ends [K, P] and [K, Q] in cells: [K, C, P, Q]."""
    table = feature.permute(0, 2, 3, 1).contiguous()
    bins = [ends.int().contiguous() for ends in (*rows, *columns)]
    if torch.compiler.is_compiling():
        out = torch.ops.roi_ops.pool(table, image, *bins, deterministic)[0]
    else:
        out = _Pool.apply(table, image, *bins, deterministic)
    return out.permute(0, 3, 1, 2)


def _blocks(channels: int, columns: int, elements: int = TILE_ELEMENTS) -> dict[str, int]:
    """The sides of a tile of bins by channels, of about so many elements."""
    block_q = triton.next_power_of_2(columns)
    return {"BLOCK_Q": block_q, "BLOCK_C": min(triton.next_power_of_2(channels), max(elements // block_q, 16))}


def _padded(values: list) -> list:
    """Four entries for kernels that take up to four levels; the surplus is never read."""
    return [*values, *values[:1] * (MAX_LEVELS - len(values))]


def _level_arguments(tables: list[Tensor]) -> list:
    return [
        *_padded(tables),
        *_padded([table.shape[1] for table in tables]),
        *_padded([table.shape[2] for table in tables]),
    ]


def new_pooled(table: Tensor, num_rois: int, spec: PoolSpec) -> tuple[Tensor, Tensor]:
    """Memory for the output and, for maxima, the numbers of the samples that won, both [K, P, Q, C]."""
    shape = (num_rois, *spec.output_size, table.shape[3])
    few = 0 < spec.sampling_ratio <= 11  # the largest of 11 x 11 samples is number 120
    number = torch.int8 if few else torch.int32
    return table.new_empty(shape), table.new_empty(shape if spec.reduce == "max" else 0, dtype=number)


def _constants(spec: PoolSpec) -> dict[str, int | bool]:
    """What the bilinear kernels know of the settings when they are compiled."""
    rows, columns = spec.output_size
    return {"P": rows, "Q": columns, "SAMPLING": max(spec.sampling_ratio, 0), "ALIGNED": spec.aligned}


def bilinear_forward_of(tables, boxes, image, level, scales, spec) -> tuple[Tensor, Tensor]:
    """Output and winners [K, P, Q, C] of maps [B, H, W, C]; the other arguments as for `bilinear`. No gradient."""
    boxes, image, level = boxes.contiguous(), image.contiguous(), level.contiguous()  # kernels know no strides of them
    channels = tables[0].shape[3]
    out, winners = new_pooled(tables[0], len(boxes), spec)
    if out.numel():
        blocks = _blocks(channels, spec.output_size[1])
        kernel, results = (maximum_forward, (out, winners)) if spec.reduce == "max" else (bilinear_forward, (out,))
        kernel[(len(boxes), triton.cdiv(channels, blocks["BLOCK_C"]))](
            *results, *_level_arguments(tables), *_padded(scales), boxes, image, level, channels,
            LEVELS=len(tables), **_constants(spec), **blocks, num_warps=WARPS,
        )  # fmt: skip
    return out, winners


def bilinear_backward_of(grad, winners, shapes, boxes, image, level, scales, spec) -> list[Tensor]:
    """Gradients of maps of the given shapes [B, H, W, C], in the gradient's dtype."""
    grad, boxes, image, level = grad.contiguous(), boxes.contiguous(), image.contiguous(), level.contiguous()
    channels, is_max = grad.shape[3], spec.reduce == "max"
    constants = _constants(spec) | {"MAX": is_max}
    if not grad.numel():
        return [grad.new_zeros(shape) for shape in shapes]
    if not spec.deterministic:
        totals = [torch.zeros(shape, dtype=torch.float32, device=grad.device) for shape in shapes]
        blocks = _blocks(channels, spec.output_size[1], WINNERS_ELEMENTS if is_max else TILE_ELEMENTS)
        at_once = max(spec.sampling_ratio, 1) if is_max else 1
        bilinear_backward_atomic[(len(boxes), triton.cdiv(channels, blocks["BLOCK_C"]), at_once)](
            grad, winners, *_level_arguments(totals), *_padded(scales), boxes, image, level, channels,
            LEVELS=len(shapes), **constants, **blocks, num_warps=WARPS,
        )  # fmt: skip
        return [total.to(grad.dtype) for total in totals]
    results = []
    block_c = min(triton.next_power_of_2(channels), BILINEAR_CHANNELS)
    for index, shape in enumerate(shapes):
        out = grad.new_empty(shape)
        order, starts = _by_image(image, level == index, shape[0])
        bilinear_backward_gather[_tile_grid(shape, block_c)](
            grad, winners, out, shape[1], shape[2], scales[index], boxes, order, starts, channels,
            **constants, **REGISTERS, TILE=TILE, BLOCK_C=block_c,
        )  # fmt: skip
        results.append(out)
    return results


def _tile_grid(shape, block_c: int) -> tuple[int, int]:
    batch, height, width, channels = shape
    return batch * triton.cdiv(height, TILE) * triton.cdiv(width, TILE), triton.cdiv(channels, block_c)


def _by_image(image: Tensor, chosen: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """The chosen RoIs in order of image: their numbers (others at the end), and where each image's begin [B + 1]."""
    key = torch.where(chosen, image, batch)
    ordered, order = key.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(batch + 1, device=image.device, dtype=ordered.dtype))
    return order.int(), starts.int()


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, boxes, image, level, scales, spec, *tables):
        out, winners = bilinear_forward_of(tables, boxes, image, level, scales, spec)
        ctx.save_for_backward(winners, boxes, image, level)
        ctx.scales, ctx.spec, ctx.shapes = scales, spec, [table.shape for table in tables]
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        winners, boxes, image, level = ctx.saved_tensors
        grads = bilinear_backward_of(grad, winners, ctx.shapes, boxes, image, level, ctx.scales, ctx.spec)
        return *[None] * 5, *grads


def pool_forward_of(table, image, top, bottom, left, right) -> tuple[Tensor, Tensor]:
    """Maxima and their cells y * W + x (-1 for none), both [K, P, Q, C], of a map [B, H, W, C]. No gradient."""
    image = image.contiguous()
    (num_rois, rows), columns, channels = top.shape, left.shape[1], table.shape[3]
    out = table.new_empty(num_rois, rows, columns, channels)
    argmax = torch.empty(out.shape, dtype=torch.int32, device=table.device)
    if out.numel():
        blocks = _blocks(channels, columns)
        pool_forward[(num_rois, triton.cdiv(channels, blocks["BLOCK_C"]))](
            out, argmax, *_level_arguments([table]), top, bottom, left, right, image, image, channels,
            LEVELS=1, P=rows, Q=columns, **REGISTERS, **blocks, num_warps=WARPS,
        )  # fmt: skip
    return out, argmax


def pool_backward_of(grad, argmax, shape, image, bins, deterministic) -> Tensor:
    """The gradient of a map of `shape` [B, H, W, C]; bins are starts and ends of rows [K, P] and columns [K, Q]."""
    grad, image = grad.contiguous(), image.contiguous()
    num_rois, rows, columns, channels = grad.shape
    if not grad.numel():
        return grad.new_zeros(shape)
    if not deterministic:
        total = torch.zeros(shape, dtype=torch.float32, device=grad.device)
        blocks = _blocks(channels, columns)
        pool_backward_atomic[(num_rois, triton.cdiv(channels, blocks["BLOCK_C"]))](
            grad, argmax, *_level_arguments([total]), image, image, channels,
            LEVELS=1, P=rows, Q=columns, **blocks, num_warps=WARPS,
        )  # fmt: skip
        return total.to(grad.dtype)
    out = grad.new_empty(shape)
    order, starts = _by_image(image, image >= 0, shape[0])
    block_c = min(triton.next_power_of_2(channels), POOL_CHANNELS)
    pool_backward_gather[_tile_grid(shape, block_c)](
        grad, argmax, out, shape[1], shape[2], *bins, order, starts, channels,
        P=rows, Q=columns, TILE=TILE, BLOCK_C=block_c,
    )  # fmt: skip
    return out


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, image, top, bottom, left, right, deterministic):
        out, argmax = pool_forward_of(table, image, top, bottom, left, right)
        ctx.save_for_backward(argmax, image, top, bottom, left, right)
        ctx.shape, ctx.deterministic = table.shape, deterministic
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        argmax, image, *bins = ctx.saved_tensors
        return pool_backward_of(grad, argmax, ctx.shape, image, bins, ctx.deterministic), *[None] * 6


# The schema of a custom operator knows no dataclass: there the settings are listed one by one.


@torch.library.custom_op("roi_ops::bilinear", mutates_args=())
def _bilinear_op(
    tables: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: list[float], rows: int, columns: int,
    sampling_ratio: int, aligned: bool, reduce: str, deterministic: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    spec = PoolSpec((rows, columns), sampling_ratio, aligned, reduce, deterministic)
    return bilinear_forward_of(tables, boxes, image, level, scales, spec)


@_bilinear_op.register_fake
def _(tables, boxes, image, level, scales, rows, columns, *settings):
    return new_pooled(tables[0], boxes.shape[0], PoolSpec((rows, columns), *settings))


@torch.library.custom_op("roi_ops::bilinear_backward", mutates_args=())
def _bilinear_backward_op(
    grad: Tensor, winners: Tensor, tables: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor,
    scales: list[float], rows: int, columns: int, sampling_ratio: int, aligned: bool, reduce: str, deterministic: bool,
) -> list[Tensor]:  # fmt: skip
    spec = PoolSpec((rows, columns), sampling_ratio, aligned, reduce, deterministic)
    return bilinear_backward_of(grad, winners, [table.shape for table in tables], boxes, image, level, scales, spec)


@_bilinear_backward_op.register_fake
def _(grad, winners, tables, *_):
    return [grad.new_empty(table.shape) for table in tables]


def _bilinear_setup(ctx, inputs, output):
    tables, boxes, image, level, *settings = inputs
    ctx.save_for_backward(output[1], *tables, boxes, image, level)
    ctx.settings = settings
    ctx.set_materialize_grads(False)


def _bilinear_autograd(ctx, grad, _winners_grad):
    winners, *tables, boxes, image, level = ctx.saved_tensors
    grads = torch.ops.roi_ops.bilinear_backward(grad, winners, tables, boxes, image, level, *ctx.settings)
    return grads, *[None] * 10


_bilinear_op.register_autograd(_bilinear_autograd, setup_context=_bilinear_setup)


@torch.library.custom_op("roi_ops::pool", mutates_args=())
def _pool_op(
    table: Tensor, image: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, deterministic: bool
) -> tuple[Tensor, Tensor]:
    return pool_forward_of(table, image, top, bottom, left, right)


@_pool_op.register_fake
def _(table, image, top, bottom, left, right, deterministic):
    shape = (top.shape[0], top.shape[1], left.shape[1], table.shape[3])
    return table.new_empty(shape), table.new_empty(shape, dtype=torch.int32)


@torch.library.custom_op("roi_ops::pool_backward", mutates_args=())
def _pool_backward_op(
    grad: Tensor, argmax: Tensor, table: Tensor, image: Tensor, top: Tensor, bottom: Tensor, left: Tensor,
    right: Tensor, deterministic: bool,
) -> Tensor:  # fmt: skip
    return pool_backward_of(grad, argmax, table.shape, image, (top, bottom, left, right), deterministic)


@_pool_backward_op.register_fake
def _(grad, argmax, table, image, top, bottom, left, right, deterministic):
    return grad.new_empty(table.shape)


def _pool_setup(ctx, inputs, output):
    table, *bins, ctx.deterministic = inputs
    ctx.save_for_backward(output[1], table, *bins)
    ctx.set_materialize_grads(False)


def _pool_autograd(ctx, grad, _argmax_grad):
    grads = torch.ops.roi_ops.pool_backward(grad, *ctx.saved_tensors, ctx.deterministic)
    return grads, *[None] * 6


_pool_op.register_autograd(_pool_autograd, setup_context=_pool_setup)
