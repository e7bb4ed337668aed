"""RoIAlign over the levels of a feature pyramid: a drop-in for torchvision's MultiScaleRoIAlign.

Each box is pooled from the level that its size asks for (FPN equation 1). All levels are served by one launch of a
Triton kernel, without waiting for the GPU, or one call of a C kernel; elsewhere each level is pooled on its own.
Letters: B images, K RoIs in all, C channels, P pooled side.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ops.backends import Need, choose
from ops.cpu import bilinear, separable
from ops.roi_align import align
from ops.sampling import hide_nonfinite
from ops.validate import Rois, check_boxes, check_map, check_options, check_output_size, describe


class MultiScaleRoIAlign(nn.Module):
    """Constructor and forward arguments as torchvision's; `backend` and `deterministic` as for `roi_align`.

    featmap_names    the entries of the feature dictionary to use, from the finest level on
    canonical_scale  side of a box in pixels that belongs on level `canonical_level` (224 and 4: ImageNet's size on C4)
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        backend: str = "auto",
        deterministic: bool = False,
    ):
        super().__init__()
        self.featmap_names = tuple(featmap_names)
        check_options(1.0, sampling_ratio, "ave", backend)
        self.output_size = check_output_size(output_size)
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.backend = backend
        self.deterministic = deterministic

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool boxes, a list of [L, 4] in pixels of images of `image_shapes` (h, w), from maps x. [K, C, P, P]."""
        maps = [x[name] for name in self.featmap_names if name in x]
        if not maps:
            raise ValueError(f"x: expected some of the maps {list(self.featmap_names)}, got {list(x)}")
        for each in maps:
            check_map(each)
            if (each.shape[:2], each.dtype, each.device) != (maps[0].shape[:2], maps[0].dtype, maps[0].device):
                raise ValueError(
                    "x: expected maps of the same images, channels, dtype and device, "
                    f"got {describe(maps[0])} and {describe(each)}"
                )
        rois = check_boxes(boxes, maps[0].shape[0], maps[0].device)
        scales = _scales(maps, image_shapes)
        level = level_of(rois.boxes.detach(), scales, self.canonical_scale, self.canonical_level)
        deterministic = self.deterministic or torch.are_deterministic_algorithms_enabled()
        box_gradient = rois.boxes.requires_grad and torch.is_grad_enabled()
        need = Need("roi_align", maps[0].device, maps[0].dtype, "ave", box_gradient, deterministic)
        name = choose(need, self.backend)
        if name == "triton" and len(maps) <= 4:
            from ops.triton_kernels import launch

            finite = hide_nonfinite(rois.boxes.float())
            settings = (scales, self.output_size, self.sampling_ratio, False, "ave", deterministic)
            return launch.bilinear(maps, finite, rois.image.int(), level.int(), *settings)
        wide = [each if each.dtype == torch.float64 else each.float() for each in maps]
        if name == "cpu" and separable.by_kernels(wide, box_gradient):
            cells = hide_nonfinite(rois.boxes * rois.boxes.new_tensor(scales)[level, None])
            some = Rois(cells, rois.image, None)
            with torch.autocast(maps[0].device.type, enabled=False):
                out = bilinear.roi_align(wide, some, level, self.output_size, self.sampling_ratio, False, "ave")
            return out.to(maps[0].dtype)
        return self._level_by_level(maps, rois, level, scales, name)

    def _level_by_level(self, maps, rois: Rois, level: Tensor, scales: list[float], backend: str) -> Tensor:
        parts, places = [], []
        for index, (feature, scale) in enumerate(zip(maps, scales, strict=True)):
            place = (level == index).nonzero().squeeze(1)
            some = Rois(rois.boxes[place], rois.image[place], None)
            size, ratio = self.output_size, self.sampling_ratio
            parts.append(
                align("roi_align", feature, some, size, scale, ratio, False, "ave", backend, self.deterministic)
            )
            places.append(place)
        return in_order(parts, places)


def in_order(parts: list[Tensor], places: list[Tensor]) -> Tensor:
    """What was pooled level by level, in the order of the boxes: parts[l] [k_l, C, P, Q] goes to the rows places[l]."""
    rows = [part.permute(0, 2, 3, 1) for part in parts]
    return _InOrder.apply(places, *rows).permute(0, 3, 1, 2)


class _InOrder(torch.autograd.Function):
    """Each row is copied once in either direction; joining the parts and indexing them would take twice as many."""

    @staticmethod
    def forward(ctx, places, *parts):
        ctx.places = places
        out = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
        for place, part in zip(places, parts, strict=True):
            out.flatten(1).index_copy_(0, place, part.flatten(1))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return None, *(grad.index_select(0, place) for place in ctx.places)


def level_of(boxes: Tensor, scales: list[float], canonical_scale: float = 224, canonical_level: int = 4) -> Tensor:
    """Which of the maps, of `scales` cells a pixel, each box [K, 4] is pooled from: an index into them, [K].

    floor(canonical_level + log2(sqrt(area) / canonical_scale)), FPN equation 1, as far as there is such a map.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(canonical_level + torch.log2(side / canonical_scale) + 1e-6)
    finest, coarsest = -math.log2(scales[0]), -math.log2(scales[-1])
    return (level.nan_to_num(nan=finest).clamp(finest, coarsest) - finest).long()


def _scales(maps: list[Tensor], image_shapes: list[tuple[int, int]]) -> list[float]:
    """Cells a pixel of each map, a power of two, from the largest image's sides."""
    largest = max(shape[0] for shape in image_shapes), max(shape[1] for shape in image_shapes)
    scales = [2.0 ** round(math.log2(each.shape[2] / largest[0])) for each in maps]
    if any(a != 2 * b for a, b in zip(scales, scales[1:], strict=False)):
        raise ValueError(f"x: expected maps from the finest to the coarsest, each half the last, got scales {scales}")
    return scales
