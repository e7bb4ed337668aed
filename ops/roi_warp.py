"""RoIWarp as Mask R-CNN's table 2c uses it: the box rounded like RoIPool's, then sampled bilinearly.

Rounding without alignment: it separates the two differences between RoIPool and RoIAlign. The original was never
released; here it is RoIAlign on the rounded box.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops.roi_align import roi_align
from ops.sampling import round_half_away
from ops.validate import Boxes, check_boxes, check_map, check_options


def roi_warp(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    *,
    reduce: str = "ave",
    backend: str = "auto",
    deterministic: bool = False,
) -> Tensor:
    """Pool each box, its ends rounded to whole cells, by averaging (or maximising) bilinear samples.

    Arguments and result as for `roi_align`; the rounded box has no gradient.
    """
    check_map(input)
    check_options(spatial_scale, sampling_ratio, reduce, backend)
    rois = check_boxes(boxes, input.shape[0], input.device)
    rounded = round_half_away(rois.boxes.detach() * spatial_scale)
    if rois.per_image is not None:
        boxes = rounded.view(input.shape[0], rois.per_image, 4)
    else:
        boxes = torch.cat([rois.image[:, None].to(rounded.dtype), rounded], dim=1)
    return roi_align(
        input,
        boxes,
        output_size,
        1.0,
        sampling_ratio,
        False,
        reduce=reduce,
        backend=backend,
        deterministic=deterministic,
    )
