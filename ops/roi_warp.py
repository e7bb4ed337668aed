"""RoIWarp as Mask R-CNN's table 2c uses it: the box rounded like RoIPool's, then sampled bilinearly.

Rounding without alignment: it separates the two differences between RoIPool and RoIAlign. The original was never
released; here it is RoIAlign on the rounded box.
"""

from collections.abc import Sequence

from torch import Tensor

from ops.roi_align import align
from ops.sampling import round_half_away
from ops.validate import Boxes, Rois, check_boxes, check_map, check_options, check_output_size


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
    size = check_output_size(output_size)
    rois = check_boxes(boxes, input.shape[0], input.device)
    rounded = Rois(round_half_away(rois.boxes.detach() * spatial_scale), rois.image, rois.per_image)
    return align("roi_warp", input, rounded, size, 1.0, sampling_ratio, False, reduce, backend, deterministic)
