"""RoIAlign on a CPU: positions, then cells and weights, then weighted sums of cells.

Letters: B images, K RoIs, C channels, L levels, H and W sides of a map, P and Q pooled height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ops import sampling
from ops.cpu import separable
from ops.validate import Rois


def roi_align(
    maps: Sequence[Tensor],
    rois: Rois,
    level: Tensor,
    output_size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    reduce: str,
) -> Tensor:
    """RoIAlign at boxes already in cells of their level's map. [K, C, P, Q], channels last.

    maps are L of [B, C, H_l, W_l]; level is [K]. Several maps are for where `separable.by_kernels`.
    """
    sides = torch.tensor([each.shape[2:] for each in maps], dtype=torch.float64, device=level.device)
    height, width = sides.t()[:, level]
    # In float32, positions on a map of 300 cells are rounded by 3e-5 of a cell, more than all other errors together.
    x1, y1, x2, y2 = rois.boxes.double().t().contiguous()
    on_y = y1, y2, output_size[0], sampling_ratio, aligned, height
    on_x = x1, x2, output_size[1], sampling_ratio, aligned, width
    if reduce == "ave":
        pairs_y, pairs_x = separable.mean_pairs(*on_y, maps), separable.mean_pairs(*on_x, maps)
        return separable.interpolate(maps, rois.image, level, pairs_y, pairs_x)
    (rows, _, count_y), (columns, _, count_x) = sampling.axis_samples(*on_y), sampling.axis_samples(*on_x)
    pairs_y = sampling.sample_pairs(rows, count_y, height)
    pairs_x = sampling.sample_pairs(columns, count_x, width)
    samples = separable.interpolate(maps, rois.image, level, pairs_y, pairs_x)
    if not len(samples):
        return samples.new_zeros(0, samples.shape[1], *output_size) + samples.sum()
    return max_pool2d(samples, (rows.shape[2], columns.shape[2]))
