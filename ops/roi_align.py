"""RoIAlign (Mask R-CNN section 3): bilinear samples at positions that are never rounded."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops import bilinear, reference
from ops.backends import accumulation_dtype, choose
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
                    [B, R, 4] (R boxes on every image: the fastest form)
    output_size     P or (P, Q)
    spatial_scale   feature cells per image pixel, 1 / stride
    sampling_ratio  samples a bin along each axis; 0 or less takes about one a cell (adaptive)
    aligned         False: cell i lies on pixel i / spatial_scale, which is right after 3x3 stride-2 pad-1
                    convolutions; True: cell i is centred on pixel (i + 1/2) / spatial_scale
    reduce          "ave" or "max" over the samples of a bin (table 2c)

    Returns [K, C, P, Q] in the input's dtype, in channels-last memory. Gradients flow to the input and, where they
    require one, to the boxes. Boxes with NaN or infinity give 0. ValueError for arguments that make no sense.
    """
    check_map(input)
    check_options(spatial_scale, sampling_ratio, reduce, backend)
    size = check_output_size(output_size)
    rois = check_boxes(boxes, input.shape[0], input.device)
    name = choose("roi_align", input, backend)
    with torch.autocast(input.device.type, enabled=False):
        if name == "reference":
            return reference.roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned, reduce)
        scaled = Rois(hide_nonfinite(rois.boxes * spatial_scale), rois.image, rois.per_image)
        wide = input.to(accumulation_dtype(input.dtype))
        return bilinear.roi_align(wide, scaled, size, sampling_ratio, aligned, reduce).to(input.dtype)
