"""RoIAlign (Mask R-CNN section 3, https://arxiv.org/abs/1703.06870): bilinear samples at positions never rounded."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from . import autograd, reference
from .backends import choose, need_of
from .cpu import bilinear
from .sampling import hide_nonfinite
from .validate import (
    Boxes,
    PoolSpec,
    Rois,
    at_least_float32,
    check_backend,
    check_boxes,
    check_map,
    check_scale,
    check_spec,
)


def roi_align(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    reduce: str = "ave",
    backend: str = "auto",
    deterministic: bool = False,
) -> Tensor:
    """Pool each box to a fixed size by averaging (or maximising) bilinear samples; a drop-in for torchvision's.

    Letters: B images, K boxes in all, C channels, H and W sides of the map, P and Q pooled height and width.

    Args:
        input: feature map [B, C, H, W] of float16, bfloat16, float32 or float64; channels-last memory is the fast
            layout.
        boxes: corners (x1, y1, x2, y2) in image pixels, pixel i covering [i, i + 1), in any of three forms: a list of
            B tensors [L, 4]; a tensor [K, 5] whose first column is the image's index; a tensor [B, R, 4] with R boxes
            on every image.
        output_size: P for a square of P x P bins, or (P, Q).
        spatial_scale: feature cells per image pixel: 1 / stride of the map.
        sampling_ratio: samples per bin along each axis: 2 gives the paper's four points. 0 or less is adaptive, about
            one sample per cell of the map.
        aligned: False puts cell i on image pixel i / spatial_scale, which is right for maps made by 3x3 convolutions of
            stride 2 and padding 1; True centres it on (i + 1/2) / spatial_scale. ops/README.md shows why.
        reduce: "ave" averages the samples of a bin, "max" takes their maximum (table 2c of the paper).
        backend: "auto", or one of those that `ops/backends.py` lists.
        deterministic: ask for gradients with the same bits in every run. On a CPU they always have.

    Returns:
        [K, C, P, Q] in the input's dtype and in channels-last memory, in the order of the boxes. Gradients flow to the
        input and, where they require one, to the boxes. A box with NaN or infinity gives 0.

    Raises:
        ValueError: for arguments that do not fit together, and for a backend that cannot serve the call.

    Example:
        >>> ramp = torch.arange(16.0).view(1, 1, 4, 4)
        >>> roi_align(ramp, [torch.tensor([[0.0, 0.0, 2.0, 2.0]])], output_size=1, sampling_ratio=2).item()
        5.0
    """
    check_map(input)
    spatial_scale = check_scale(spatial_scale)
    check_backend(backend)
    spec = check_spec(output_size, sampling_ratio, aligned, reduce, deterministic)
    rois = check_boxes(boxes, input.shape[0], input.device)
    return align("roi_align", input, rois, spatial_scale, spec, backend)


def _of_one(operator: str, maps: list[Tensor], rois: Tensor, spatial_scale: float, backend: str, **settings) -> Tensor:
    spec = PoolSpec(**settings | {"output_size": tuple(settings["output_size"])})
    return align(operator, maps[0], check_boxes(rois, maps[0].shape[0], rois.device), spatial_scale, spec, backend)


autograd.functions["roi_align"] = partial(_of_one, "roi_align")
autograd.functions["roi_warp"] = partial(_of_one, "roi_warp")


def align(
    operator: str, feature: Tensor, rois: Rois, spatial_scale: float, spec: PoolSpec, backend: str = "auto"
) -> Tensor:
    """RoIAlign with checked arguments, on behalf of `operator` ("roi_align" or "roi_warp"). [K, C, P, Q]."""
    if autograd.recordable(feature, rois.boxes):
        settings = {"spatial_scale": spatial_scale, "backend": backend, **asdict(spec)}
        return autograd.call(operator, [feature], rois, **settings)
    name = choose(need_of(operator, [feature], rois, spec), backend)
    with torch.autocast(feature.device.type, enabled=False):
        if name == "triton":
            from .triton_kernels import launch

            image = rois.image.int()
            boxes = hide_nonfinite(rois.boxes.detach().float())
            return launch.bilinear([feature], boxes, image, torch.zeros_like(image), [spatial_scale], spec)
        size, ratio = spec.output_size, spec.sampling_ratio
        if name == "reference":
            return reference.roi_align(feature, rois, size, spatial_scale, ratio, spec.aligned, spec.reduce)
        in_cells = Rois(hide_nonfinite(rois.boxes * spatial_scale), rois.image)
        if name == "torchvision":
            from torchvision.ops import roi_align as torchvision_roi_align

            feature_fp32 = at_least_float32(feature)
            listed = torch.cat([rois.image[:, None], in_cells.boxes.to(feature_fp32.dtype)], dim=1)
            return torchvision_roi_align(feature_fp32, listed, size, 1.0, ratio, spec.aligned).to(feature.dtype)
        level = torch.zeros_like(rois.image)
        return bilinear.roi_align([feature], in_cells, level, spec, name)
