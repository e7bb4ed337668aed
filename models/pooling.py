"""RoI pooling as the heads ask for it: (features, boxes [B, R, 4] in image pixels) -> [B * R, C, P, P].

Letters: B images, R RoIs of an image, C channels, P pooled side.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ops.multi_scale import level_of, multi_scale_roi_align, pool_levels
from ops.sampling import round_half_away

RoIOperator = Callable[..., Tensor]
"""RoIPool, RoIWarp or RoIAlign: (features [B, C, h, w], boxes, P, cells per pixel) -> [number of boxes, C, P, P]"""


class Pooling:
    """From one map, [B, C, h, w]. step: image pixels that the boxes' ends are rounded to first; 0: not rounded."""

    def __init__(self, operator: RoIOperator, size: int, stride: int, step: int = 0) -> None:
        self.operator, self.size, self.stride, self.step = operator, size, stride, step

    def __call__(self, features: Tensor, boxes: Tensor) -> Tensor:
        if self.step:
            boxes = round_half_away(boxes.detach() / self.step) * self.step
        return self.operator(features, boxes, self.size, 1 / self.stride)


class PyramidPooling:
    """From a list of maps, each box from the one that its size asks for (FPN equation 1), with any operator."""

    def __init__(self, operator: RoIOperator, size: int, strides: Sequence[int]) -> None:
        self.operator, self.size, self.strides = operator, size, strides

    def __call__(self, features: list[Tensor], boxes: Tensor) -> Tensor:
        flat = boxes.flatten(0, 1)
        image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        rois = torch.cat([image[:, None].to(flat.dtype), flat], dim=1)
        level = level_of(flat, [1 / stride for stride in self.strides])

        def pool(index: int, chosen: Tensor) -> Tensor:
            return self.operator(features[index], rois[chosen], self.size, 1 / self.strides[index])

        return pool_levels(level, len(self.strides), pool)


class PyramidAlign:
    """PyramidPooling with RoIAlign, which serves all maps in one launch on a GPU.

    features may have coarser maps behind those that `strides` names.
    """

    def __init__(self, size: int, strides: Sequence[int], sampling_ratio: int, backend: str) -> None:
        self.size, self.sampling_ratio, self.backend = size, sampling_ratio, backend
        self.scales = [1 / stride for stride in strides]

    def __call__(self, features: list[Tensor], boxes: Tensor) -> Tensor:
        maps = features[: len(self.scales)]
        return multi_scale_roi_align(maps, boxes, self.size, self.scales, self.sampling_ratio, backend=self.backend)
