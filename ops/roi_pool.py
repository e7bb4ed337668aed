"""RoIPool (Fast R-CNN section 2.1): the box rounded to whole cells, the maximum over each bin."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_pool as torchvision_roi_pool

from ops import reference
from ops.backends import Need, choose
from ops.cpu import compiled_max, crop_max
from ops.sampling import hide_nonfinite, pool_bins
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
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    need = Need("roi_pool", input.device, input.dtype, "max", False, deterministic)
    name = choose(need, backend)
    scaled = Rois(hide_nonfinite(rois.boxes.detach() * spatial_scale), rois.image, rois.per_image)
    with torch.autocast(input.device.type, enabled=False):
        if name == "reference":
            return reference.roi_pool(input, rois, size, spatial_scale)
        wide = input if input.dtype == torch.float64 else input.float()
        if name == "torchvision":
            listed = torch.cat([rois.image[:, None], scaled.boxes.to(wide.dtype)], dim=1)
            return torchvision_roi_pool(wide, listed, size, 1.0).to(input.dtype)
        if name == "triton":
            x1, y1, x2, y2 = scaled.boxes.unbind(1)
            rows, columns = pool_bins(y1, y2, size[0], input.shape[2]), pool_bins(x1, x2, size[1], input.shape[3])
            from ops.triton_kernels import launch

            return launch.pool(input, rois.image.int(), rows, columns, deterministic)
        pooling = compiled_max if compiled_max.serves(wide, scaled, size) else crop_max
        return pooling.roi_pool(wide, scaled, size).to(input.dtype)
