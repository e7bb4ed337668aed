"""RoIAlign on a CPU: positions, then cells and weights, then weighted sums of cells.

Letters: B images, K RoIs, C channels, L levels, H and W sides of a map, P and Q pooled height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ops import sampling, separable
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

    maps are L of [B, C, H_l, W_l]; level is [K]. Several maps are for where `separable.takes_levels`.
    """
    sides = torch.tensor([each.shape[2:] for each in maps], dtype=torch.float64, device=level.device)[level]
    height, width = sides.unbind(1)
    # In float32, positions on a map of 300 cells are rounded by 3e-5 of a cell, more than all other errors together.
    x1, y1, x2, y2 = rois.boxes.double().unbind(1)
    rows = sampling.axis_samples(y1, y2, output_size[0], sampling_ratio, aligned, height)
    columns = sampling.axis_samples(x1, x2, output_size[1], sampling_ratio, aligned, width)
    if reduce == "ave":
        along_y, along_x = sampling.mean_pairs(*rows, height), sampling.mean_pairs(*columns, width)
        return separable.interpolate(maps, rois.image, level, along_y, along_x)
    along_y = sampling.sample_pairs(rows[0], rows[2], height)
    along_x = sampling.sample_pairs(columns[0], columns[2], width)
    samples = separable.interpolate(maps, rois.image, level, along_y, along_x)
    if not len(samples):
        return samples.new_zeros(0, samples.shape[1], *output_size) + samples.sum()
    return max_pool2d(samples, (rows[0].shape[2], columns[0].shape[2]))
