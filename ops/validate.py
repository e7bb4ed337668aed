"""One check of the arguments for all operators and backends, and one form of boxes and settings for what follows.

Letters: B images, R RoIs per image, K RoIs in all, C channels, H and W sides of the map.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

BACKENDS = ("auto", "reference", "compiled", "pytorch", "triton", "torchvision")
REDUCTIONS = ("ave", "max")
BOXES_FORMS = "a list with one [L, 4] tensor per image, a [K, 5] tensor with the image index first, or [B, R, 4]"

Boxes = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Rois:
    """Boxes as every backend takes them, ordered as the output is.

    boxes  [K, 4] xyxy, float32 (float64 where float64 came); in image pixels as they come, in cells of the map where a
           function says so
    image  [K] int64, the image each box lies on
    """

    boxes: Tensor
    image: Tensor


@dataclass(frozen=True)
class PoolSpec:
    """How boxes are pooled: the settings that travel from an operator's arguments to the kernels, checked.

    output_size     (P, Q), the output's height and width in bins
    sampling_ratio  samples per bin along each axis; 0 or less: about one per cell of the map (adaptive)
    aligned         whether cell i is centred on i + 1/2 (True) or on i (False)
    reduce          "ave" or "max": what is made of a bin's samples
    deterministic   whether gradients must have the same bits in every run
    """

    output_size: tuple[int, int]
    sampling_ratio: int = -1
    aligned: bool = False
    reduce: str = "ave"
    deterministic: bool = False


def describe(value: object) -> str:
    """A tensor's shape, dtype and device, or a value's type, for error messages."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')} on {value.device}"
    return f"{type(value).__name__} {value!r}" if isinstance(value, int | float | str) else type(value).__name__


def check_map(feature: Tensor) -> None:
    """Refuse anything but a floating [B, C, H, W] tensor with at least one cell."""
    if not isinstance(feature, Tensor) or feature.dim() != 4 or not feature.is_floating_point():
        raise ValueError(f"input: expected a floating [B, C, H, W] feature map, got {describe(feature)}")
    if 0 in feature.shape[2:]:
        raise ValueError(f"input: expected a map of at least one cell, got {describe(feature)}")


def check_output_size(output_size: int | Sequence[int]) -> tuple[int, int]:
    """The output's (height, width) from one positive integer or two."""
    sides = tuple(output_size) if isinstance(output_size, Iterable) else (output_size, output_size)
    if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
        raise ValueError(f"output_size: expected a positive int or a pair of them, got {output_size!r}")
    return int(sides[0]), int(sides[1])


def check_spec(
    output_size: int | Sequence[int],
    sampling_ratio: int = -1,
    aligned: bool = False,
    reduce: str = "ave",
    deterministic: bool = False,
) -> PoolSpec:
    """The settings of a call; ValueError for invalid ones.

    Gradients are also deterministic where `torch.use_deterministic_algorithms` asks all of torch for it.
    """
    if not isinstance(sampling_ratio, Integral):
        raise ValueError(f"sampling_ratio: expected an int (0 or less is adaptive), got {sampling_ratio!r}")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    return PoolSpec(check_output_size(output_size), int(sampling_ratio), aligned, reduce, deterministic)


def check_scale(spatial_scale: float) -> float:
    """The scale as a float; ValueError where it is not a positive number."""
    if not (isinstance(spatial_scale, Real) and math.isfinite(spatial_scale) and spatial_scale > 0):
        raise ValueError(f"spatial_scale: expected a positive number such as 1/16, got {spatial_scale!r}")
    return float(spatial_scale)


def check_backend(backend: str) -> None:
    """Refuse a name that no backend has."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")


def check_parts(feature: Tensor, output_size: int, parts: int) -> tuple[int, int]:
    """The output's side and parts; ValueError where channels or cells cannot be dealt to k x k parts."""
    if not isinstance(parts, Integral) or parts < 1:
        raise ValueError(f"parts: expected a positive int, got {parts!r}")
    if not isinstance(output_size, Integral) or output_size < 1 or output_size % parts:
        raise ValueError(f"output_size: expected a positive multiple of parts = {parts}, got {output_size!r}")
    if feature.shape[1] == 0 or feature.shape[1] % parts**2:
        raise ValueError(
            f"input: expected a multiple of {parts**2} channels ({parts} x {parts} parts), got {describe(feature)}"
        )
    return int(output_size), int(parts)


def _check_tensor(name: str, boxes: Tensor, columns: int, device: torch.device) -> None:
    if not isinstance(boxes, Tensor) or boxes.shape[-1] != columns or not boxes.is_floating_point():
        raise ValueError(f"{name}: expected floating [..., {columns}], got {describe(boxes)}. Pass {BOXES_FORMS}")
    if boxes.device != device:
        raise ValueError(f"{name}: expected the input's device {device}, got {describe(boxes)}. Move one of them")


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32, float32 and float64 as they are.

    Sums of features are taken in float32 or float64, and half-precision coordinates are a sixth of a cell off at 1,000
    pixels: nothing is computed in them.
    """
    return values if values.dtype == torch.float64 else values.float()


def recorded(*tensors: Tensor) -> bool:
    """Whether a call with these tensors is recorded, or transformed, rather than run."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _get_current_dispatch_mode() is not None:
        return True
    return any(tensor.is_meta or transformed(tensor) for tensor in tensors)


def transformed(tensor: Tensor) -> bool:
    """Whether a tensor stands for something else: a subclass, or one that `torch.func` has wrapped."""
    return type(tensor) not in (Tensor, nn.Parameter) or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def check_boxes(boxes: Boxes, num_images: int, device: torch.device) -> Rois:
    """Bring any accepted form of boxes to `Rois`; ValueError where the form, device or image indices are wrong.

    Image indices are checked on a CPU only: elsewhere the check would make the caller wait for the device. Where a call
    is recorded there may be no numbers yet: `autograd.call` checks them when it is run.
    """
    if isinstance(boxes, Tensor) and boxes.dim() == 3:
        _check_tensor("boxes", boxes, 4, device)
        if boxes.shape[0] != num_images:
            raise ValueError(f"boxes: expected [B, R, 4] with B = {num_images} images, got {describe(boxes)}")
        # Sizes are not read as numbers here, nor below: whoever traces a call would keep them.
        image = torch.zeros_like(boxes[:, :, 0], dtype=torch.int64) + torch.arange(num_images, device=device)[:, None]
        return Rois(at_least_float32(boxes).reshape(-1, 4), image.reshape(-1))
    if isinstance(boxes, Tensor):
        if boxes.dim() != 2:
            raise ValueError(f"boxes: expected {BOXES_FORMS}, got {describe(boxes)}")
        _check_tensor("boxes", boxes, 5, device)
        image = boxes[:, 0].detach().long()
        if device.type == "cpu" and not recorded(boxes) and len(image):
            first, last = int(image.min()), int(image.max())
            if first < 0 or last >= num_images:
                raise ValueError(
                    f"boxes: expected image indices from 0 to {num_images - 1} in column 0, got {first} to {last}"
                )
        return Rois(at_least_float32(boxes[:, 1:]), image)
    return _check_list(boxes, num_images, device)


def _check_list(boxes: Sequence[Tensor], num_images: int, device: torch.device) -> Rois:
    if not isinstance(boxes, list | tuple) or len(boxes) != num_images:
        got = f"a list of {len(boxes)}" if isinstance(boxes, list | tuple) else describe(boxes)
        raise ValueError(f"boxes: expected {BOXES_FORMS} ({num_images} images), got {got}")
    for index, image_boxes in enumerate(boxes):
        _check_tensor(f"boxes[{index}]", image_boxes, 4, device)
        if image_boxes.dim() != 2:
            raise ValueError(f"boxes[{index}]: expected [L, 4], got {describe(image_boxes)}")
    if not boxes:
        return Rois(torch.zeros(0, 4, device=device), torch.zeros(0, dtype=torch.int64, device=device))
    image = [torch.full_like(image_boxes[:, 0], index, dtype=torch.int64) for index, image_boxes in enumerate(boxes)]
    return Rois(torch.cat([at_least_float32(image_boxes) for image_boxes in boxes]), torch.cat(image))
