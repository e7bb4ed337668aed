"""RoIPool (Fast R-CNN section 2.1, https://arxiv.org/abs/1504.08083): the maximum over each bin's whole cells."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from . import autograd, reference
from .backends import choose, need_of
from .cpu import compiled_max, pytorch_max
from .sampling import hide_nonfinite, largest_bin, pool_bins
from .validate import (
    Boxes,
    Rois,
    at_least_float32,
    check_backend,
    check_boxes,
    check_map,
    check_scale,
    check_spec,
)


def roi_pool(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    *,
    backend: str = "auto",
    deterministic: bool = False,
) -> Tensor:
    """Pool each box to a fixed size by the maximum over whole cells of the map; a drop-in for torchvision's.

    The box is rounded to whole cells and its bins outwards, so that neighbouring bins overlap (`geometry.pool_bins`).

    Args:
        input, boxes, output_size, spatial_scale, backend, deterministic: as for `ops.roi_align.roi_align`.

    Returns:
        [K, C, P, Q] in the input's dtype and in channels-last memory, in the order of the boxes. Gradients flow to the
        input, of equal maxima to the first in raster order; rounding leaves none for the boxes. A bin that holds no
        cell of the map gives 0, and so does a box with NaN or infinity.

    Raises:
        ValueError: for arguments that do not fit together, and for a backend that cannot serve the call.

    Example:
        >>> ramp = torch.arange(16.0).view(1, 1, 4, 4)
        >>> roi_pool(ramp, [torch.tensor([[0.0, 0.0, 1.0, 1.0]])], output_size=1).item()
        5.0
    """
    check_map(input)
    spatial_scale = check_scale(spatial_scale)
    check_backend(backend)
    spec = check_spec(output_size, reduce="max", deterministic=deterministic)
    size = spec.output_size
    rois = check_boxes(boxes, input.shape[0], input.device)
    if autograd.recordable(input, rois.boxes):
        settings = {"spatial_scale": spatial_scale, "backend": backend, "deterministic": spec.deterministic}
        return autograd.call("roi_pool", [input], rois, output_size=size, **settings)
    in_cells = Rois(hide_nonfinite(rois.boxes.detach() * spatial_scale), rois.image)
    need = need_of("roi_pool", [input], in_cells, spec, partial(largest_bin, in_cells.boxes, size, input.shape[2:]))
    name = choose(need, backend)
    with torch.autocast(input.device.type, enabled=False):
        if name == "reference":
            return reference.roi_pool(input, rois, size, spatial_scale)
        if name == "triton":
            x1, y1, x2, y2 = in_cells.boxes.unbind(1)
            rows, columns = pool_bins(y1, y2, size[0], input.shape[2]), pool_bins(x1, x2, size[1], input.shape[3])
            from .triton_kernels import launch

            return launch.pool(input, rois.image.int(), rows, columns, spec.deterministic)
        if name == "compiled":
            return compiled_max.roi_pool(input, in_cells, size)
        feature_fp32 = at_least_float32(input)
        if name == "torchvision":
            from torchvision.ops import roi_pool as torchvision_roi_pool

            listed = torch.cat([rois.image[:, None], in_cells.boxes.to(feature_fp32.dtype)], dim=1)
            return torchvision_roi_pool(feature_fp32, listed, size, 1.0).to(input.dtype)
        return pytorch_max.roi_pool(feature_fp32, in_cells, size).to(input.dtype)


autograd.functions["roi_pool"] = lambda maps, rois, **settings: roi_pool(maps[0], rois, **settings)
