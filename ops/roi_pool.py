"""RoIPool (Fast R-CNN section 2.1): the box rounded to whole cells, the maximum over each bin."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ops import bag_max, reference
from ops.backends import accumulation_dtype, choose
from ops.sampling import hide_nonfinite
from ops.validate import Boxes, Rois, check_boxes, check_map, check_options, check_output_size


def roi_pool(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    *,
    backend: str = "auto",
    deterministic: bool = False,
) -> Tensor:
    """Pool each box to a fixed size by the maximum over whole cells; arguments and result as for `roi_align`.

    The box is rounded to cells and has no gradient. A bin that holds no cell of the map gives 0. Of equal maxima
    the first in raster order takes the gradient.
    """
    check_map(input)
    check_options(spatial_scale, 0, "max", backend)
    size = check_output_size(output_size)
    rois = check_boxes(boxes, input.shape[0], input.device)
    name = choose("roi_pool", input, backend)
    with torch.autocast(input.device.type, enabled=False):
        if name == "reference":
            return reference.roi_pool(input, rois, size, spatial_scale)
        scaled = Rois(hide_nonfinite(rois.boxes * spatial_scale), rois.image, rois.per_image)
        wide = input.to(accumulation_dtype(input.dtype))
        return bag_max.roi_pool(wide, scaled, size).to(input.dtype)
