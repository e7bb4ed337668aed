"""One check of the arguments for all operators and backends, and one form of the boxes for what follows.

Letters: B images, R RoIs an image, K RoIs in all, C channels, H and W sides of the map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BACKENDS = ("auto", "reference", "cpu", "triton", "torchvision")
REDUCTIONS = ("ave", "max")
BOXES_FORMS = "a list with one [L, 4] tensor per image, a [K, 5] tensor with the image index first, or [B, R, 4]"

Boxes = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Rois:
    """Boxes as every backend takes them, ordered as the output is.

    boxes      [K, 4] xyxy in image pixels, float32 (float64 where float64 came)
    image      [K] int64, the image each box lies on
    per_image  R where the first R boxes lie on image 0, the next R on image 1, ...; None otherwise
    """

    boxes: Tensor
    image: Tensor
    per_image: int | None


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
    sides = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"output_size: expected a positive int or a pair of them, got {output_size!r}")
    return sides


def check_options(spatial_scale: float, sampling_ratio: int, reduce: str, backend: str) -> None:
    """Refuse a scale, sample count, reduction or backend name that means nothing."""
    if not (isinstance(spatial_scale, int | float) and math.isfinite(spatial_scale) and spatial_scale > 0):
        raise ValueError(f"spatial_scale: expected a positive number such as 1/16, got {spatial_scale!r}")
    if not isinstance(sampling_ratio, int):
        raise ValueError(f"sampling_ratio: expected an int (0 or less is adaptive), got {sampling_ratio!r}")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")


def check_parts(feature: Tensor, output_size: int, parts: int) -> None:
    """Refuse a map whose channels, or an output whose cells, cannot be dealt to k x k parts."""
    if not isinstance(parts, int) or parts < 1:
        raise ValueError(f"parts: expected a positive int, got {parts!r}")
    if not isinstance(output_size, int) or output_size < 1 or output_size % parts:
        raise ValueError(f"output_size: expected a positive multiple of parts = {parts}, got {output_size!r}")
    if feature.shape[1] == 0 or feature.shape[1] % parts**2:
        raise ValueError(
            f"input: expected a multiple of {parts**2} channels ({parts} x {parts} parts), got {describe(feature)}"
        )


def _check_tensor(name: str, boxes: Tensor, columns: int, device: torch.device) -> None:
    if not isinstance(boxes, Tensor) or boxes.shape[-1] != columns or not boxes.is_floating_point():
        raise ValueError(f"{name}: expected floating [..., {columns}], got {describe(boxes)}. Pass {BOXES_FORMS}")
    if boxes.device != device:
        raise ValueError(f"{name}: expected the input's device {device}, got {describe(boxes)}. Move one of them")


def _wide(boxes: Tensor) -> Tensor:
    """Half-precision coordinates are a sixth of a cell off at 1,000 pixels: boxes are never computed in them."""
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def check_boxes(boxes: Boxes, num_images: int, device: torch.device) -> Rois:
    """Bring any accepted form of boxes to `Rois`; ValueError where the form, device or image indices are wrong.

    Image indices are checked on a CPU only: elsewhere the check would make the caller wait for the device.
    """
    if isinstance(boxes, Tensor) and boxes.dim() == 3:
        _check_tensor("boxes", boxes, 4, device)
        if boxes.shape[0] != num_images:
            raise ValueError(f"boxes: expected [B, R, 4] with B = {num_images} images, got {describe(boxes)}")
        per_image = boxes.shape[1]
        image = torch.arange(num_images, device=device).repeat_interleave(per_image)
        return Rois(_wide(boxes).reshape(-1, 4), image, per_image)
    if isinstance(boxes, Tensor):
        if boxes.dim() != 2:
            raise ValueError(f"boxes: expected {BOXES_FORMS}, got {describe(boxes)}")
        _check_tensor("boxes", boxes, 5, device)
        image = boxes[:, 0].detach().long()
        if device.type == "cpu" and len(image) and (int(image.min()) < 0 or int(image.max()) >= num_images):
            raise ValueError(
                f"boxes: expected image indices from 0 to {num_images - 1} in column 0,"
                f" got {int(image.min())} to {int(image.max())}"
            )
        return Rois(_wide(boxes[:, 1:]), image, len(image) if num_images == 1 else None)
    return _check_list(boxes, num_images, device)


def _check_list(boxes: Sequence[Tensor], num_images: int, device: torch.device) -> Rois:
    if not isinstance(boxes, list | tuple) or len(boxes) != num_images:
        got = f"a list of {len(boxes)}" if isinstance(boxes, list | tuple) else describe(boxes)
        raise ValueError(f"boxes: expected {BOXES_FORMS} ({num_images} images), got {got}")
    for index, each in enumerate(boxes):
        _check_tensor(f"boxes[{index}]", each, 4, device)
        if each.dim() != 2:
            raise ValueError(f"boxes[{index}]: expected [L, 4], got {describe(each)}")
    lengths = [len(each) for each in boxes]
    joined = torch.cat([_wide(each) for each in boxes]) if boxes else torch.zeros(0, 4, device=device)
    numbers = [torch.full((length,), image, dtype=torch.int64, device=device) for image, length in enumerate(lengths)]
    image = torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.int64, device=device)
    return Rois(joined, image, lengths[0] if lengths and len(set(lengths)) == 1 else None)
