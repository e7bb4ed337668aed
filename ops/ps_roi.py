"""Position-sensitive RoI pooling (R-FCN section 2, FCIS section 2.1): each part of a box reads maps of its own.

A box is cut into k x k parts, each part into cells, and a cell is the average of the map's cells that it touches, taken
from the channels of its part. FCIS pools 7 x 7 parts of 3 x 3 cells: 21 x 21.

Letters: B images, K RoIs, D maps (each k * k channels), k parts along an axis, P pooled side, H and W sides of the map.
"""

import torch
from torch import Tensor

from ops import reference
from ops.backends import Need, choose
from ops.cpu import compiled_sum, gathered, separable
from ops.sampling import Pairs, hide_nonfinite, round_half_away
from ops.validate import Boxes, check_boxes, check_map, check_options, check_parts


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

    input          [B, D * k * k, H, W] floating; channel (d * k + row) * k + column is map d of the part (row, column)
    boxes          xyxy in image pixels, in any of the forms that `roi_align` takes
    output_size    P, a multiple of k
    parts          k
    spatial_scale  feature cells per image pixel, 1 / stride
    backend        "reference", or "cpu": separable sums, on CPUs and NVIDIA GPUs alike; see `backends.py`

    Coordinates are rounded to whole image pixels, halves away from zero, before they are scaled; the edges of cells
    are rounded outwards to whole cells of the map, so that neighbours overlap; a box of no size is a tenth of a map
    cell wide. The original release ends a box at (round(x2) + 1) * scale because its boxes name their last pixel;
    ours end where that pixel ends, and the same box reads the same cells.

    Returns [K, D, P, P] in the input's dtype, in channels-last memory. Gradients flow to the input, none to the
    boxes. A cell outside the map and boxes with NaN or infinity give 0. ValueError for arguments that make no sense.
    """
    check_map(input)
    check_options(spatial_scale, 0, "ave", backend)
    check_parts(input, output_size, parts)
    rois = check_boxes(boxes, input.shape[0], input.device)
    name = choose(Need("ps_roi_pool", input.device, input.dtype), backend)
    wide = input if input.dtype == torch.float64 else input.float()
    with torch.autocast(input.device.type, enabled=False):
        if name == "reference":
            return reference.ps_roi_pool(input, rois, output_size, parts, spatial_scale)
        x1, y1, x2, y2 = hide_nonfinite(rois.boxes.detach()).unbind(1)
        rows = _pairs(y1, y2, output_size, spatial_scale, input.shape[2])
        columns = _pairs(x1, x2, output_size, spatial_scale, input.shape[3])
        if separable.by_kernels([wide], for_boxes=False):
            level = torch.zeros_like(rois.image)
            return compiled_sum.interpolate([wide], rois.image, level, rows, columns, parts).to(input.dtype)
        return _on_mosaic(wide, rois.image, rows, columns, parts).to(input.dtype)


def _pairs(low: Tensor, high: Tensor, num_cells: int, scale: float, length: int) -> Pairs:
    """On one axis of the map, what each of P cells reads and its shares of the average: two of [K, P, N]."""
    start, end = part_cells(low, high, num_cells, scale, length)
    count = (end - start).clamp(min=0)
    span = max(int(count.max()), 1) if count.numel() else 1
    steps = torch.arange(span, device=low.device)
    cells = (start[..., None] + steps).clamp(0, length - 1)
    return cells, (steps < count[..., None]).double() / count.clamp(min=1)[..., None]


def _on_mosaic(feature: Tensor, image: Tensor, rows: Pairs, columns: Pairs, parts: int) -> Tensor:
    """The parts' maps side by side as one mosaic [B, D, k * H, k * W]: pooled from it, cells are separable sums."""
    height, width = feature.shape[2:]
    tiles = feature.unflatten(1, (-1, parts, parts)).permute(0, 2, 4, 3, 5, 1)  # [B, k, H, k, W, D]
    mosaic = tiles.reshape(-1, parts * height, parts * width, feature.shape[1] // parts**2).permute(0, 3, 1, 2)
    rows, columns = _on_tiles(*rows, parts, height), _on_tiles(*columns, parts, width)
    return gathered.interpolate(mosaic, image, rows, columns)


def _on_tiles(cells: Tensor, weights: Tensor, parts: int, length: int) -> Pairs:
    """Pairs [K, P, N] on one axis, each moved to the tile of its part."""
    tile = torch.arange(parts, device=cells.device).repeat_interleave(cells.shape[1] // parts)
    return cells + tile[:, None] * length, weights


def part_cells(low: Tensor, high: Tensor, num_cells: int, scale: float, length: int) -> tuple[Tensor, Tensor]:
    """`geometry.part_cells` for ends [K] in image pixels: (start, end), each [K, P] int64 in [0, L]."""
    low, high = (round_half_away(end).double()[:, None] for end in (low, high))
    size = (high - low).clamp(min=0.1 / scale)
    edges = torch.arange(num_cells + 1, device=low.device)
    edges = (num_cells * low + edges * size) * scale / num_cells  # [K, P + 1]
    return edges[:, :-1].floor().clamp(0, length).long(), edges[:, 1:].ceil().clamp(0, length).long()
