"""RoIAlign (Mask R-CNN section 3): bilinear samples at positions that are never rounded."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from ops import reference
from ops.backends import Need, choose
from ops.cpu import bilinear
from ops.sampling import hide_nonfinite
from ops.validate import Boxes, Rois, check_boxes, check_map, check_options, check_output_size


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
    """Pool each box to a fixed size by averaging (or maximising) bilinear samples.

    input           [B, C, H, W] float16, bfloat16, float32 or float64; channels last is the fast layout
    boxes           xyxy in image pixels: a list of B tensors [L, 4], or [K, 5] with the image index first, or
                    [B, R, 4] (R boxes on every image)
    output_size     P or (P, Q)
    spatial_scale   feature cells per image pixel, 1 / stride
    sampling_ratio  samples a bin along each axis; 0 or less takes about one a cell (adaptive)
    aligned         False: cell i lies on pixel i / spatial_scale, which is right after 3x3 stride-2 pad-1
                    convolutions; True: cell i is centred on pixel (i + 1/2) / spatial_scale
    reduce          "ave" or "max" over the samples of a bin (table 2c)
    backend         see `backends.py`
    deterministic   gradients bit-identical from run to run; always so on a CPU

    Returns [K, C, P, Q] in the input's dtype, in channels-last memory. Gradients flow to the input and, where they
    require one, to the boxes. Boxes with NaN or infinity give 0. ValueError for arguments that make no sense.
    """
    check_map(input)
    check_options(spatial_scale, sampling_ratio, reduce, backend)
    size = check_output_size(output_size)
    rois = check_boxes(boxes, input.shape[0], input.device)
    return align("roi_align", input, rois, size, spatial_scale, sampling_ratio, aligned, reduce, backend, deterministic)


def align(
    operator: str,
    feature: Tensor,
    rois: Rois,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    reduce: str,
    backend: str,
    deterministic: bool,
) -> Tensor:
    """RoIAlign with checked arguments, on behalf of `operator` ("roi_align" or "roi_warp")."""
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    box_gradient = rois.boxes.requires_grad and torch.is_grad_enabled()
    need = Need(operator, feature.device, feature.dtype, reduce, box_gradient, deterministic)
    name = choose(need, backend)
    wide = feature if feature.dtype == torch.float64 else feature.float()
    with torch.autocast(feature.device.type, enabled=False):
        if name == "triton":
            from ops.triton_kernels import launch

            image = rois.image.int()
            boxes = hide_nonfinite(rois.boxes.detach().float())
            settings = ([spatial_scale], size, sampling_ratio, aligned, reduce, deterministic)
            return launch.bilinear([feature], boxes, image, torch.zeros_like(image), *settings)
        if name == "reference":
            return reference.roi_align(feature, rois, size, spatial_scale, sampling_ratio, aligned, reduce)
        scaled = Rois(hide_nonfinite(rois.boxes * spatial_scale), rois.image, rois.per_image)
        if name == "torchvision":
            listed = torch.cat([rois.image[:, None], scaled.boxes.to(wide.dtype)], dim=1)
            return torchvision_roi_align(wide, listed, size, 1.0, sampling_ratio, aligned).to(feature.dtype)
        level = torch.zeros_like(rois.image)
        return bilinear.roi_align([wide], scaled, level, size, sampling_ratio, aligned, reduce).to(feature.dtype)
