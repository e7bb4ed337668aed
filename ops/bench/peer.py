"""RoIAlign over a feature pyramid as good CUDA code of the field does it: the benchmark's yardstick on a GPU.

One thread per output element, channels last, four levels in one launch, a box's level chosen in the kernel, as in the
MLPerf entries for Mask R-CNN. Every element computes its positions for itself and loads one number at a time, and
nothing is kept from one row to the next: what `triton_kernels/bilinear.py` gains over this is what its design gains.
float32 or half precision maps, boxes [K, 4] float32 in pixels, a fixed number of samples, at most four levels.
Letters: K RoIs, C channels, H and W sides of a map, P and Q pooled height and width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..triton_kernels.geometry import axes_of, map_of, select, taps
from ..triton_kernels.launch import _level_arguments, _padded

BLOCK = 128  # elements of a program: one a thread


@triton.jit
def _bin_of_thread(
    map0, map1, map2, map3, height0, height1, height2, height3,
    width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Each thread's element of [K, P, Q, C], whether there is one, its channel of the map, and its bin on both axes."""
    k = tl.program_id(0)
    plane, height, width = map_of(
        k, map0, map1, map2, map3, height0, height1, height2, height3, width0, width1, width2, width3,
        images, levels, channels, LEVELS,
    )  # fmt: skip
    scale = select(tl.load(levels + k), scale0, scale1, scale2, scale3, LEVELS)
    left, step_x, _sx, top, step_y, _sy = axes_of(boxes, k, scale, P, Q, SAMPLING, False)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < P * Q * channels
    c, q, p = element % channels, element // channels % Q, element // channels // Q
    place = k.to(tl.int64) * P * Q * channels + element
    return place, inside, plane + c, height, width, top + p * step_y, step_y, left + q * step_x, step_x


@triton.jit
def scalar_forward(
    out, map0, map1, map2, map3, height0, height1, height2, height3,
    width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [K, P, Q, C] from maps [B, H, W, C]; grid (K, blocks of P * Q * C)."""
    place, inside, cells, height, width, top, step_y, left, step_x = _bin_of_thread(
        map0, map1, map2, map3, height0, height1, height2, height3,
        width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
        LEVELS, P, Q, SAMPLING, BLOCK,
    )  # fmt: skip
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(SAMPLING):
        y, above_y, weight_y, valid_y = taps(top + (i + 0.5) / SAMPLING * step_y, height)
        for j in range(SAMPLING):
            x, above_x, weight_x, valid_x = taps(left + (j + 0.5) / SAMPLING * step_x, width)
            keep = inside & (valid_y * valid_x > 0)
            a = tl.load(cells + (y * width + x) * channels, keep, 0.0).to(tl.float32)
            b = tl.load(cells + (y * width + above_x) * channels, keep, 0.0).to(tl.float32)
            d = tl.load(cells + (above_y * width + x) * channels, keep, 0.0).to(tl.float32)
            e = tl.load(cells + (above_y * width + above_x) * channels, keep, 0.0).to(tl.float32)
            total += (1 - weight_y) * ((1 - weight_x) * a + weight_x * b)
            total += weight_y * ((1 - weight_x) * d + weight_x * e)
    total = total / (SAMPLING * SAMPLING)
    tl.store(out + place, total.to(out.dtype.element_ty), inside)


@triton.jit
def scalar_backward(
    grad, map0, map1, map2, map3, height0, height1, height2, height3,
    width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
    LEVELS: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, SAMPLING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the gradient of `scalar_forward` to float32 maps, 16 atomic additions an element."""
    place, inside, cells, height, width, top, step_y, left, step_x = _bin_of_thread(
        map0, map1, map2, map3, height0, height1, height2, height3,
        width0, width1, width2, width3, scale0, scale1, scale2, scale3, boxes, images, levels, channels,
        LEVELS, P, Q, SAMPLING, BLOCK,
    )  # fmt: skip
    given = tl.load(grad + place, inside, 0.0).to(tl.float32)
    given = given / (SAMPLING * SAMPLING)
    for i in range(SAMPLING):
        y, above_y, weight_y, valid_y = taps(top + (i + 0.5) / SAMPLING * step_y, height)
        for j in range(SAMPLING):
            x, above_x, weight_x, valid_x = taps(left + (j + 0.5) / SAMPLING * step_x, width)
            keep = inside & (valid_y * valid_x > 0)
            upper, lower = given * (1 - weight_y), given * weight_y
            near, far = cells + y * width * channels, cells + above_y * width * channels
            tl.atomic_add(near + x * channels, upper * (1 - weight_x), keep, sem="relaxed")
            tl.atomic_add(near + above_x * channels, upper * weight_x, keep, sem="relaxed")
            tl.atomic_add(far + x * channels, lower * (1 - weight_x), keep, sem="relaxed")
            tl.atomic_add(far + above_x * channels, lower * weight_x, keep, sem="relaxed")


def scalar_align(
    maps: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    output_size: tuple[int, int],
    sampling: int,
) -> Tensor:
    """RoIAlign (ave) as `launch.bilinear`, for `sampling` > 0 and `aligned=False`. [K, C, P, Q], channels last."""
    tables = [feature.permute(0, 2, 3, 1).contiguous() for feature in maps]
    return _Scalar.apply(boxes, image, level, (scales, *output_size, sampling), *tables).permute(0, 3, 1, 2)


class _Scalar(torch.autograd.Function):
    @staticmethod
    def forward(ctx, boxes, image, level, settings, *tables):
        ctx.save_for_backward(boxes, image, level)
        ctx.settings, ctx.shapes = settings, [table.shape for table in tables]
        out = tables[0].new_empty(len(boxes), *settings[1:3], tables[0].shape[3])
        _launch(scalar_forward, out, tables, boxes, image, level, *settings)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        totals = [torch.zeros(shape, dtype=torch.float32, device=grad.device) for shape in ctx.shapes]
        _launch(scalar_backward, grad.contiguous(), totals, *ctx.saved_tensors, *ctx.settings)
        return None, None, None, None, *[total.to(grad.dtype) for total in totals]


def _launch(kernel, pooled, tables, boxes, image, level, scales, rows, columns, sampling) -> None:
    channels = pooled.shape[3]
    kernel[(len(boxes), triton.cdiv(rows * columns * channels, BLOCK))](
        pooled, *_level_arguments(tables), *_padded(list(scales)), boxes, image, level, channels,
        LEVELS=len(tables), P=rows, Q=columns, SAMPLING=sampling, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
