"""Position-sensitive RoI pooling: each part of a box reads channels of its own.

R-FCN section 2 (https://arxiv.org/abs/1605.06409), FCIS section 2.1 (https://arxiv.org/abs/1611.07709). A box is cut
into k x k parts, each part into cells, and a cell is the average of the map's cells that it touches, taken from the
channels of its part. FCIS pools 7 x 7 parts of 3 x 3 cells: 21 x 21.
"""

import torch
from torch import Tensor

from . import autograd, reference
from .backends import choose, need_of
from .cpu import bilinear
from .sampling import Pairs, hide_nonfinite, part_cells, share_pairs
from .validate import (
    Boxes,
    Rois,
    check_backend,
    check_boxes,
    check_map,
    check_parts,
    check_scale,
    check_spec,
)


def ps_roi_pool(
    input: Tensor,
    boxes: Boxes,
    output_size: int,
    parts: int,
    spatial_scale: float = 1.0,
    *,
    backend: str = "auto",
) -> Tensor:
    """Pool each box to P x P cells, each from the channels of the part that it lies in.

    Letters: B images, K boxes in all, D maps of k * k channels each, k parts along an axis, P pooled side, H and W
    sides of the map.

    Coordinates are rounded to whole image pixels, halves away from zero, before they are scaled; the edges of cells
    are rounded outwards to whole cells of the map, so that neighbours overlap; a box of no size is a tenth of a map
    cell wide. FCIS's release ends a box at (round(x2) + 1) * scale because its boxes name their last pixel; ours end
    where that pixel ends, and the same box reads the same cells. (torchvision's operator of this name rounds to cells
    of the map instead, and pools one cell a part.)

    Args:
        input: [B, D * k * k, H, W] floating; channel (d * k + row) * k + column is map d of the part (row, column).
        boxes: xyxy in image pixels, in any of the forms that `ops.roi_align.roi_align` takes.
        output_size: P, a multiple of k.
        parts: k.
        spatial_scale: feature cells per image pixel: 1 / stride of the map.
        backend: "auto", or "reference", "compiled" or "pytorch": see `ops/backends.py`.

    Returns:
        [K, D, P, P] in the input's dtype and in channels-last memory, in the order of the boxes. Gradients flow to the
        input, none to the boxes. A cell outside the map and a box with NaN or infinity give 0.

    Raises:
        ValueError: for arguments that do not fit together, and for a backend that cannot serve the call.

    Example:
        >>> maps = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 6, 6)  # channel c holds c everywhere
        >>> ps_roi_pool(maps, [torch.tensor([[0.0, 0.0, 6.0, 6.0]])], output_size=2, parts=2).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    check_map(input)
    spatial_scale = check_scale(spatial_scale)
    check_backend(backend)
    output_size, parts = check_parts(input, output_size, parts)
    rois = check_boxes(boxes, input.shape[0], input.device)
    rois = Rois(rois.boxes.detach(), rois.image)
    if autograd.recordable(input, rois.boxes):
        settings = {"parts": parts, "spatial_scale": spatial_scale, "backend": backend}
        return autograd.call("ps_roi_pool", [input], rois, output_size=(output_size, output_size), **settings)
    name = choose(need_of("ps_roi_pool", [input], rois, check_spec(output_size)), backend)
    with torch.autocast(input.device.type, enabled=False):
        if name == "reference":
            return reference.ps_roi_pool(input, rois, output_size, parts, spatial_scale)
        x1, y1, x2, y2 = hide_nonfinite(rois.boxes).unbind(1)
        rows = _mean_pairs(y1, y2, output_size, spatial_scale, input.shape[2])
        columns = _mean_pairs(x1, x2, output_size, spatial_scale, input.shape[3])
        level = torch.zeros_like(rois.image)
        return bilinear.SUMS[name].interpolate([input], rois.image, level, rows, columns, parts)


autograd.functions["ps_roi_pool"] = lambda maps, rois, output_size, **settings: ps_roi_pool(
    maps[0], rois, output_size[0], **settings
)


def _mean_pairs(low: Tensor, high: Tensor, num_cells: int, scale: float, length: int) -> Pairs:
    """On one axis of the map, what each of P cells reads and its shares of the average: two of [K, P, N]."""
    return share_pairs(*part_cells(low, high, num_cells, scale, length), length)
