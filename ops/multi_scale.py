"""RoIAlign and RoIPool over the levels of a feature pyramid, each box from the level that its size asks for.

FPN section 4.2, equation 1 (https://arxiv.org/abs/1612.03144). All levels are served by one launch of a Triton kernel,
without waiting for the GPU, or by one call of a C kernel; RoIPool and other backends pool each level on its own.
Letters: B images, K boxes in all, C channels, L levels, P and Q pooled height and width.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from . import autograd
from .autograd import differentiable_once
from .backends import choose, need_of
from .cpu import bilinear
from .roi_align import align
from .roi_pool import roi_pool
from .sampling import hide_nonfinite
from .triton_kernels import MAX_LEVELS
from .validate import (
    Boxes,
    PoolSpec,
    Rois,
    check_backend,
    check_boxes,
    check_map,
    check_output_size,
    check_spec,
    describe,
)


def multi_scale_roi_align(
    maps: Sequence[Tensor],
    boxes: Boxes,
    output_size: int | Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int = -1,
    *,
    canonical_scale: float = 224,
    canonical_level: int = 4,
    backend: str = "auto",
    deterministic: bool = False,
) -> Tensor:
    """RoIAlign (averages, `aligned=False`) of each box from one of a pyramid's maps.

    Args:
        maps: L maps [B, C, H_l, W_l] from the finest to the coarsest, of one dtype and on one device.
        boxes: xyxy in image pixels, in any of the forms that `ops.roi_align.roi_align` takes.
        output_size, sampling_ratio, backend, deterministic: as for `roi_align`.
        scales: feature cells per image pixel of each map, a power of two, each half the one before.
        canonical_scale, canonical_level: a box of this side in pixels belongs on the map of scale
            2 ** -canonical_level: 224 and 4, ImageNet's size on C4.

    Returns:
        [K, C, P, Q] in the maps' dtype and in channels-last memory, in the order of the boxes. Gradients flow to the
        maps and, where they require one, to the boxes; the choice of level has none.

    Raises:
        ValueError: for arguments that do not fit together, and for a backend that cannot serve the call.

    Example:
        >>> maps = [torch.full((1, 1, 64 >> level, 64 >> level), float(level)) for level in range(4)]
        >>> boxes = [torch.tensor([[0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 224.0, 224.0]])]
        >>> multi_scale_roi_align(maps, boxes, 1, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 2).flatten().tolist()
        [0.0, 2.0]
    """
    check_backend(backend)
    spec = check_spec(output_size, sampling_ratio, deterministic=deterministic)
    rois, level = _levels(maps, boxes, scales, canonical_scale, canonical_level)
    if autograd.recordable(*maps, rois.boxes):
        settings: dict = {"output_size": spec.output_size, "sampling_ratio": spec.sampling_ratio}
        settings |= {"scales": list(scales), "canonical_scale": canonical_scale, "canonical_level": canonical_level}
        settings |= {"backend": backend, "deterministic": spec.deterministic}
        return autograd.call("multi_scale_roi_align", maps, rois, **settings)
    name = choose(need_of("roi_align", maps, rois, spec), backend)
    if name == "triton" and len(maps) <= MAX_LEVELS:
        from .triton_kernels import launch

        finite = hide_nonfinite(rois.boxes.float())
        return launch.bilinear(list(maps), finite, rois.image.int(), level.int(), list(scales), spec)
    if name == "compiled":
        return _in_one_call(maps, rois, level, scales, spec, name)

    def pool(index: int, chosen: Tensor) -> Tensor:
        level_rois = Rois(rois.boxes[chosen], rois.image[chosen])
        return align("roi_align", maps[index], level_rois, scales[index], spec, name)

    return pool_levels(level, len(maps), pool)


def multi_scale_roi_pool(
    maps: Sequence[Tensor],
    boxes: Boxes,
    output_size: int | Sequence[int],
    scales: Sequence[float],
    *,
    canonical_scale: float = 224,
    canonical_level: int = 4,
    backend: str = "auto",
    deterministic: bool = False,
) -> Tensor:
    """RoIPool of each box from one of a pyramid's maps.

    Args, returns and raises: as `multi_scale_roi_align`, without samples and without gradients for boxes.

    Example:
        >>> maps = [torch.full((1, 1, 64 >> level, 64 >> level), float(level)) for level in range(4)]
        >>> boxes = [torch.tensor([[0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 224.0, 224.0]])]
        >>> multi_scale_roi_pool(maps, boxes, 1, [1 / 4, 1 / 8, 1 / 16, 1 / 32]).flatten().tolist()
        [0.0, 2.0]
    """
    rois, level = _levels(maps, boxes, scales, canonical_scale, canonical_level)
    if autograd.recordable(*maps, rois.boxes):
        settings: dict = {"output_size": check_output_size(output_size), "scales": list(scales), "backend": backend}
        settings |= {"canonical_scale": canonical_scale, "canonical_level": canonical_level}
        return autograd.call("multi_scale_roi_pool", maps, rois, deterministic=deterministic, **settings)
    listed = torch.cat([rois.image[:, None].to(rois.boxes.dtype), rois.boxes], dim=1)
    options: dict = {"backend": backend, "deterministic": deterministic}
    return pool_levels(
        level,
        len(maps),
        lambda index, chosen: roi_pool(maps[index], listed[chosen], output_size, scales[index], **options),
    )


autograd.functions["multi_scale_roi_align"] = multi_scale_roi_align
autograd.functions["multi_scale_roi_pool"] = multi_scale_roi_pool


class _MultiScale(nn.Module):
    """What `MultiScaleRoIAlign` and `MultiScaleRoIPool` have in common."""

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        *,
        canonical_scale: float = 224,
        canonical_level: int = 4,
        backend: str = "auto",
        deterministic: bool = False,
    ):
        super().__init__()
        self.featmap_names = tuple(featmap_names)
        check_backend(backend)
        self.output_size = check_output_size(output_size)
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.backend = backend
        self.deterministic = deterministic

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool boxes from maps.

        Args:
            x: maps [B, C, H, W] by name.
            boxes: a list of B tensors [L, 4], xyxy in image pixels.
            image_shapes: (height, width) of each image; the scale of each map follows from the largest.

        Returns:
            [K, C, P, Q].
        """
        maps = [x[name] for name in self.featmap_names if name in x]
        if not maps:
            raise ValueError(f"x: expected some of the maps {list(self.featmap_names)}, got {list(x)}")
        _check_maps(maps)
        options = {
            "canonical_scale": self.canonical_scale,
            "canonical_level": self.canonical_level,
            "backend": self.backend,
            "deterministic": self.deterministic,
        }
        return self._pool(maps, boxes, _scales(maps, image_shapes), options)

    def _pool(self, maps: list[Tensor], boxes: list[Tensor], scales: list[float], options: dict) -> Tensor:
        raise NotImplementedError


class MultiScaleRoIAlign(_MultiScale):
    """`multi_scale_roi_align` behind the interface of torchvision's module of this name: a drop-in for it.

    torchvision's models take it once they are built: `model.roi_heads.box_roi_pool = MultiScaleRoIAlign(...)`.

    Args:
        featmap_names: the entries of the feature dictionary to use, from the finest level on.
        output_size, sampling_ratio, canonical_scale, canonical_level, backend, deterministic: as for
            `multi_scale_roi_align`.

    Raises:
        ValueError: for invalid settings.

    Example:
        >>> pool = MultiScaleRoIAlign(["0", "1"], output_size=7, sampling_ratio=2)
        >>> maps = {"0": torch.zeros(1, 8, 64, 64), "1": torch.zeros(1, 8, 32, 32), "pool": torch.zeros(1, 8, 16, 16)}
        >>> pool(maps, [torch.tensor([[0.0, 0.0, 32.0, 32.0]])], [(256, 256)]).shape
        torch.Size([1, 8, 7, 7])
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: float = 224,
        canonical_level: int = 4,
        backend: str = "auto",
        deterministic: bool = False,
    ):
        super().__init__(
            featmap_names,
            output_size,
            canonical_scale=canonical_scale,
            canonical_level=canonical_level,
            backend=backend,
            deterministic=deterministic,
        )
        check_spec(output_size, sampling_ratio)
        self.sampling_ratio = sampling_ratio

    def _pool(self, maps: list[Tensor], boxes: list[Tensor], scales: list[float], options: dict) -> Tensor:
        return multi_scale_roi_align(maps, boxes, self.output_size, scales, self.sampling_ratio, **options)


class MultiScaleRoIPool(_MultiScale):
    """`multi_scale_roi_pool` behind the same interface: RoIPool in the place of torchvision's `MultiScaleRoIAlign`.

    Args:
        featmap_names, output_size, canonical_scale, canonical_level, backend, deterministic: as for
            `MultiScaleRoIAlign`.

    Raises:
        ValueError: for invalid settings.

    Example:
        >>> pool = MultiScaleRoIPool(["0", "1"], output_size=7)
        >>> maps = {"0": torch.zeros(1, 8, 64, 64), "1": torch.zeros(1, 8, 32, 32)}
        >>> pool(maps, [torch.tensor([[0.0, 0.0, 32.0, 32.0]])], [(256, 256)]).shape
        torch.Size([1, 8, 7, 7])
    """

    def _pool(self, maps: list[Tensor], boxes: list[Tensor], scales: list[float], options: dict) -> Tensor:
        return multi_scale_roi_pool(maps, boxes, self.output_size, scales, **options)


def _levels(
    maps: Sequence[Tensor], boxes: Boxes, scales: Sequence[float], canonical_scale: float, canonical_level: int
) -> tuple[Rois, Tensor]:
    """The boxes, in image pixels, and the map that each is pooled from, [K]; all of it checked."""
    _check_maps(maps)
    if any(a != 2 * b for a, b in zip(scales, scales[1:], strict=False)):
        raise ValueError(
            f"scales: expected maps from the finest to the coarsest, each half the last, got scales {list(scales)}"
        )
    rois = check_boxes(boxes, maps[0].shape[0], maps[0].device)
    return rois, level_of(rois.boxes.detach(), scales, canonical_scale, canonical_level)


def _check_maps(maps: Sequence[Tensor]) -> None:
    for feature in maps:
        check_map(feature)
        if (feature.shape[:2], feature.dtype, feature.device) != (maps[0].shape[:2], maps[0].dtype, maps[0].device):
            raise ValueError(
                "maps: expected maps of the same images, channels, dtype and device, "
                f"got {describe(maps[0])} and {describe(feature)}"
            )


def _in_one_call(
    maps: Sequence[Tensor], rois: Rois, level: Tensor, scales: Sequence[float], spec: PoolSpec, backend: str
) -> Tensor:
    in_cells = Rois(hide_nonfinite(rois.boxes * rois.boxes.new_tensor(scales)[level, None]), rois.image)
    with torch.autocast(maps[0].device.type, enabled=False):
        return bilinear.roi_align(maps, in_cells, level, spec, backend)


def pool_levels(level: Tensor, num_levels: int, pool: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Pools each level's boxes on their own: pool(index of the level, indices of its boxes) -> [k_l, C, P, Q].

    level [K] is each box's; returns [K, C, P, Q] in the order of the boxes.
    """
    indices = [(level == index).nonzero().squeeze(1) for index in range(num_levels)]
    rows = [pool(index, chosen).permute(0, 2, 3, 1) for index, chosen in enumerate(indices)]
    return _InBoxOrder.apply(indices, *rows).permute(0, 3, 1, 2)


class _InBoxOrder(torch.autograd.Function):
    """Puts the rows of pooled[l] [k_l, P, Q, C] at indices[l] of [K, P, Q, C].

    Each row is copied once in either direction; joining the levels and indexing them would take twice as many copies.
    """

    @staticmethod
    def forward(ctx, indices, *pooled):
        ctx.indices = indices
        out = pooled[0].new_empty(sum(map(len, pooled)), *pooled[0].shape[1:])
        for index, rows in zip(indices, pooled, strict=True):
            out.flatten(1).index_copy_(0, index, rows.flatten(1))
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        return None, *(grad.index_select(0, index) for index in ctx.indices)


def level_of(boxes: Tensor, scales: Sequence[float], canonical_scale: float = 224, canonical_level: int = 4) -> Tensor:
    """Which of the maps, of `scales` cells per pixel, each box [K, 4] is pooled from: an index into them, [K].

    floor(canonical_level + log2(sqrt(area) / canonical_scale)), FPN equation 1, as far as there is such a map.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(canonical_level + torch.log2(side / canonical_scale) + 1e-6)
    finest, coarsest = -math.log2(scales[0]), -math.log2(scales[-1])
    return (level.nan_to_num(nan=finest).clamp(finest, coarsest) - finest).long()


def _scales(maps: list[Tensor], image_shapes: list[tuple[int, int]]) -> list[float]:
    """Cells per pixel of each map, a power of two, from the largest image's height."""
    tallest = max(shape[0] for shape in image_shapes)
    return [2.0 ** round(math.log2(feature.shape[2] / tallest)) for feature in maps]
