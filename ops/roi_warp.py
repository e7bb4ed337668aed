"""RoIWarp as table 2c of Mask R-CNN uses it (https://arxiv.org/abs/1703.06870): RoIAlign's samples of a rounded box.

Proposed for multi-task network cascades (Dai et al. 2016, section 3.2, https://arxiv.org/abs/1512.04412); Mask R-CNN
keeps its bilinear sampling and RoIPool's rounding of the box, to tell apart what either does.
"""

from collections.abc import Sequence

from torch import Tensor

from .roi_align import align
from .sampling import round_half_away
from .validate import Boxes, Rois, check_backend, check_boxes, check_map, check_scale, check_spec


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
    """Pool each box, its ends rounded to whole cells of the map, by averaging (or maximising) bilinear samples.

    Args:
        input, boxes, output_size, spatial_scale, sampling_ratio, reduce, backend, deterministic: as for
            `ops.roi_align.roi_align`.

    Returns:
        [K, C, P, Q] as from `roi_align`. Gradients flow to the input; rounding leaves none for the boxes.

    Raises:
        ValueError: as `roi_align`.

    Example:
        >>> ramp = torch.arange(16.0).view(1, 1, 4, 4)
        >>> roi_warp(ramp, [torch.tensor([[0.3, 0.4, 2.4, 1.6]])], output_size=1, sampling_ratio=2).item()
        5.0
    """
    check_map(input)
    spatial_scale = check_scale(spatial_scale)
    check_backend(backend)
    spec = check_spec(output_size, sampling_ratio, False, reduce, deterministic)
    rois = check_boxes(boxes, input.shape[0], input.device)
    rounded = Rois(round_half_away(rois.boxes.detach() * spatial_scale), rois.image)
    return align("roi_warp", input, rounded, 1.0, spec, backend)
