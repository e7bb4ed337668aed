"""RoIAlign as separable weighted sums of a map's cells, by either of two backends.

Positions of samples become, axis by axis, the cells that each bin reads and their weights; `interpolate` sums them up.
The backends `compiled` (`compiled_sum.py`) and `pytorch` (`pytorch_sum.py`) differ in who computes the pairs and who
sums. Position-sensitive pooling uses the same sums.
Letters: B images, K RoIs, C channels, L levels, H and W sides of a map, P and Q pooled height and width.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from .. import sampling
from ..sampling import Axis, Pairs
from ..validate import PoolSpec, Rois, at_least_float32
from . import compiled_sum, pytorch_sum


class Sums(Protocol):
    """What a backend gives: pairs (cells, weights) of bins on one axis, and weighted sums over two axes' pairs."""

    def mean_pairs(self, axis: Axis, dtype: torch.dtype) -> Pairs:
        """What the mean of each bin's samples reads: (cells, weights), each [K, P, N]; dtype is the maps'."""
        ...

    def interpolate(
        self, maps: Sequence[Tensor], image: Tensor, level: Tensor, pairs_y: Pairs, pairs_x: Pairs, parts: int = 1
    ) -> Tensor:
        """RoIs' maps through (cells, weights) of rows [K, P, M] and columns [K, Q, N]: [K, C, P, Q], channels last.

        maps are [B, C * parts * parts, H_l, W_l] of one floating dtype, the result's, several only for `compiled`; sums
        are taken in float32, or float64 for such maps; image and level are [K]. With parts, a bin reads the channels of
        the part of its RoI, parts x parts, that it lies in.
        """
        ...


SUMS: dict[str, Sums] = {"compiled": compiled_sum, "pytorch": pytorch_sum}


def roi_align(maps: Sequence[Tensor], rois: Rois, level: Tensor, spec: PoolSpec, backend: str) -> Tensor:
    """RoIAlign at boxes already in cells of their level's map. [K, C, P, Q], channels last.

    maps are L of [B, C, H_l, W_l] of one floating dtype, the result's, and level is [K]; backend is "compiled" or, for
    a single map, "pytorch".
    """
    sums = SUMS[backend]
    # In float32, positions on a map of 300 cells are rounded by 3e-5 of a cell, more than all other errors together.
    x1, y1, x2, y2 = rois.boxes.double().t().contiguous()
    if len(maps) == 1:
        height, width = (torch.full_like(x1.detach(), side) for side in maps[0].shape[2:])
    else:
        sides = torch.tensor([feature.shape[2:] for feature in maps], dtype=torch.float64, device=level.device)
        height, width = sides.t()[:, level]
    axis_y = Axis(y1, y2, height, spec.output_size[0], spec.sampling_ratio, spec.aligned)
    axis_x = Axis(x1, x2, width, spec.output_size[1], spec.sampling_ratio, spec.aligned)
    if spec.reduce == "ave":
        pairs_y, pairs_x = (sums.mean_pairs(axis, maps[0].dtype) for axis in (axis_y, axis_x))
        return sums.interpolate(maps, rois.image, level, pairs_y, pairs_x)
    (rows, _, count_y), (columns, _, count_x) = sampling.axis_samples(axis_y), sampling.axis_samples(axis_x)
    pairs_y = sampling.sample_pairs(rows, count_y, height)
    pairs_x = sampling.sample_pairs(columns, count_x, width)
    # Rounded to half precision, samples that differ might be equal, and another one of them take the gradient.
    in_full = [at_least_float32(feature) for feature in maps]
    samples = sums.interpolate(in_full, rois.image, level, pairs_y, pairs_x)
    if not len(samples):
        return (samples.new_zeros(0, samples.shape[1], *spec.output_size) + samples.sum()).to(maps[0].dtype)
    return max_pool2d(samples, (rows.shape[2], columns.shape[2])).to(maps[0].dtype)
