"""Separable weighted sums of a map's cells: what RoIAlign, RoIWarp and position-sensitive pooling come down to.

The kernels of `compiled.c` take them where there are any and no box waits for a gradient, PyTorch's operators
elsewhere.
"""

from collections.abc import Sequence

from torch import Tensor

from ops import compiled, compiled_sum, gathered

Pairs = tuple[Tensor, Tensor]


def takes_levels(maps: Sequence[Tensor], for_boxes: bool) -> bool:
    """Whether `interpolate` takes all of these maps at once; it always takes one. for_boxes: gradients of boxes too."""
    return len(maps) == 1 or _by_kernels(maps, for_boxes)


def interpolate(maps: Sequence[Tensor], image: Tensor, level: Tensor, pairs_y: Pairs, pairs_x: Pairs) -> Tensor:
    """RoIs' maps through (cells, weights) of rows [K, P, M] and columns [K, Q, N]: [K, C, P, Q], channels last.

    maps are L of [B, C, H_l, W_l], float32 or float64; image and level are [K].
    """
    for_boxes = pairs_y[1].requires_grad or pairs_x[1].requires_grad
    if _by_kernels(maps, for_boxes):
        return compiled_sum.interpolate(maps, image, level, pairs_y, pairs_x)
    (feature,) = maps
    return gathered.interpolate(feature, image, pairs_y, pairs_x)


def _by_kernels(maps: Sequence[Tensor], for_boxes: bool) -> bool:
    return not for_boxes and all(compiled.serves(each) for each in maps)
