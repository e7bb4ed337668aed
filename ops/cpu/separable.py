"""Separable weighted sums of a map's cells: what RoIAlign, RoIWarp and position-sensitive pooling come down to.

The kernels of `compiled.c` take them where there are any and no box waits for a gradient, PyTorch's operators
elsewhere.
"""

from collections.abc import Sequence

from torch import Tensor

from ops import sampling
from ops.cpu import compiled, compiled_sum, gathered
from ops.sampling import Pairs


def by_kernels(maps: Sequence[Tensor], for_boxes: bool) -> bool:
    """Whether C kernels serve, which take several maps at once; for_boxes: whether boxes want a gradient."""
    return not for_boxes and all(compiled.serves(each) for each in maps)


def mean_pairs(
    low: Tensor, high: Tensor, num_bins: int, sampling_ratio: int, aligned: bool, length: Tensor, maps: Sequence[Tensor]
) -> Pairs:
    """What RoIAlign's averages read on one axis: (cells, weights) for `interpolate`, each [K, P, N].

    low and high [K] are the ends of RoIs in cells of an axis of `length` [K]; all are float64.
    """
    ends_and_bins = low, high, num_bins, sampling_ratio, aligned, length
    if sampling_ratio > 0 and by_kernels(maps, low.requires_grad):
        return compiled_sum.mean_pairs(*ends_and_bins, maps[0].dtype)
    return sampling.mean_pairs(*sampling.axis_samples(*ends_and_bins), length)


def interpolate(maps: Sequence[Tensor], image: Tensor, level: Tensor, pairs_y: Pairs, pairs_x: Pairs) -> Tensor:
    """RoIs' maps through (cells, weights) of rows [K, P, M] and columns [K, Q, N]: [K, C, P, Q], channels last.

    maps are L of [B, C, H_l, W_l], float32 or float64; image and level are [K]. Without
    C kernels there is one map: see `by_kernels`.
    """
    for_boxes = pairs_y[1].requires_grad or pairs_x[1].requires_grad
    if by_kernels(maps, for_boxes):
        return compiled_sum.interpolate(maps, image, level, pairs_y, pairs_x)
    (feature,) = maps
    return gathered.interpolate(feature, image, pairs_y, pairs_x)
