"""What the operator benchmark measures: shapes, boxes, and the implementations that are compared.

Letters: B images, R RoIs per image, C channels, P pooled side.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import ops as torchvision_ops

from ..multi_scale import MultiScaleRoIAlign, level_of
from ..ps_roi import ps_roi_pool
from ..roi_align import roi_align
from ..roi_pool import roi_pool
from ..validate import check_boxes


@dataclass(frozen=True)
class Case:
    """One shape. `strides` names the map's level, or a pyramid's; sides are in pixels; sizes are of boxes in pixels.

    sampling: samples per bin along each axis; 0 is adaptive, the default of torchvision and detectron2.
    """

    name: str
    operator: str  # roi_align, roi_pool, multi_scale or ps_roi_pool
    num_images: int
    sides: tuple[int, int]
    channels: int
    strides: tuple[int, ...]
    rois_per_image: int
    pooled: int
    sizes: tuple[float, float]
    sampling: int = 2  # with which a bin has the paper's four points

    @property
    def map_shapes(self) -> list[tuple[int, int, int, int]]:
        height, width = self.sides
        return [(self.num_images, self.channels, -(-height // s), -(-width // s)) for s in self.strides]

    @property
    def compulsory_bytes(self) -> int:
        """Bytes of float32 that a pass must move at least: the maps once and the output once."""
        maps = sum(b * c * h * w for b, c, h, w in self.map_shapes)
        bins = 1 if self.operator == "ps_roi_pool" else self.pooled**2  # each channel goes to its part's cell alone
        return 4 * (maps + self.num_images * self.rois_per_image * self.channels * bins)


def tiny_cases() -> list[Case]:
    """Shapes on which Triton's interpreter takes seconds: they show that a command runs, and nothing else."""
    one = (1, (32, 32), 4, (8,), 2, 2, (8, 24))
    pyramid = Case("tiny, two levels", "multi_scale", 1, (32, 32), 4, (4, 8), 2, 2, (8, 24))
    return [Case("tiny", "roi_align", *one), Case("tiny", "roi_pool", *one), pyramid]


def cases(gpu: bool) -> list[Case]:
    """The shapes of the paper's heads at 800 px, and the toy's; on a CPU with fewer RoIs, as in training."""
    photo, many, some = (800, 1344), (512 if gpu else 64), (128 if gpu else 64)
    listed = []
    for operator in ("roi_align", "roi_pool"):
        listed += [
            Case("C4", operator, 2, photo, 1024, (16,), many, 14, (64, 640)),
            Case("FPN box, level P3", operator, 2, photo, 256, (8,), 4 * some, 7, (56, 224)),
            Case("FPN mask, level P3", operator, 2, photo, 256, (8,), some, 14, (56, 224)),
            Case("toy, stride 16", operator, 16, (256, 256), 64, (16,), 16, 7, (24, 160)),
            Case("toy, stride 32", operator, 16, (256, 256), 128, (32,), 16, 7, (24, 160)),
        ]
        listed.append(Case("one box", operator, 1, (128, 128), 8, (16,), 1, 7, (24, 96)))  # the cost of a call
    listed.append(Case("FPN box, adaptive samples", "roi_align", 2, photo, 256, (8,), 4 * some, 7, (56, 224), 0))
    listed.append(Case("FPN box, P2 to P5", "multi_scale", 2, photo, 256, (4, 8, 16, 32), 4 * some, 7, (16, 640)))
    listed.append(Case("FPN mask, P2 to P5", "multi_scale", 2, photo, 256, (4, 8, 16, 32), some, 14, (16, 640)))
    listed.append(Case("R-FCN, 21 maps, 7 x 7", "ps_roi_pool", 2, photo, 21 * 49, (16,), many, 7, (112, 560)))
    return listed


def make_boxes(case: Case, kind: str, device: torch.device) -> Tensor:
    """[B, R, 4] inside the image. "proposals" crowd around eight objects per image, "uniform" ones lie anywhere."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.num_images, case.rois_per_image, 2)
    limits = torch.tensor([case.sides[1], case.sides[0]], dtype=torch.float32)
    low, high = case.sizes
    if kind == "uniform":
        centre = torch.rand(shape, generator=generator) * limits
        size = low * (high / low) ** torch.rand(shape, generator=generator)
    else:
        objects = (case.num_images, 8, 2)
        centres = (0.15 + 0.7 * torch.rand(objects, generator=generator)) * limits
        sizes = low * (high / low) ** torch.rand(objects, generator=generator)
        chosen = torch.randint(8, shape[:2], generator=generator)[..., None].expand(shape)
        size = sizes.gather(1, chosen) * (0.2 * torch.randn(shape, generator=generator)).exp()
        centre = centres.gather(1, chosen) + 0.1 * size * torch.randn(shape, generator=generator)
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=2)
    boxes = torch.minimum(corners.clamp(min=0), limits.repeat(2))
    return (_on_whole_cells(boxes, case) if case.operator == "ps_roi_pool" else boxes).to(device)


def _on_whole_cells(boxes: Tensor, case: Case) -> Tensor:
    """Boxes near those given on which torchvision's position-sensitive pooling agrees with ours.

    torchvision rounds boxes to cells and not to pixels, computes the parts' edges in float32, and never reads the map's
    last row and column: so boxes start on cells, their parts are whole cells, and they end before the last.
    """
    ((_, _, height, width),), stride = case.map_shapes, case.strides[0]
    last = torch.tensor([width - 1, height - 1])
    low, high = (boxes / stride).split(2, dim=2)
    side = ((high - low) / case.pooled).round().clamp(min=1).minimum(last // case.pooled) * case.pooled
    low = low.round().minimum(last - side)
    return stride * torch.cat([low, low + side], dim=2)


def make_maps(case: Case, device: torch.device, channels_last: bool) -> list[Tensor]:
    """Random float32 maps, one a level; in channels-last memory or not."""
    generator = torch.Generator().manual_seed(1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [torch.randn(s, generator=generator).to(device).contiguous(memory_format=layout) for s in case.map_shapes]


@dataclass(frozen=True)
class Contender:
    """An implementation under measurement: its name, its maps' layout and dtype, and how to call it."""

    name: str
    channels_last: bool
    call: Callable[[list[Tensor], Tensor], Tensor]
    dtype: torch.dtype = torch.float32


def runs_triton(device: torch.device) -> bool:
    """Whether the Triton kernels serve here: on a GPU, and in Triton's interpreter where it is asked for."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def contenders(case: Case, device: torch.device) -> list[Contender]:
    """torchvision first (the baseline), then ours with maps channels last and with the conversion to it included.

    On a CPU also the backend that serves without a compiler; on a GPU half precision, deterministic gradients, peers.
    For position-sensitive pooling ours alone.
    """
    if case.operator == "ps_roi_pool":
        ours = _ours(case)
        baseline = Contender("torchvision", False, _torchvision(case))
        return [baseline, Contender("ours", True, ours), Contender("ours, from NCHW", False, ours)]
    options: dict = {"backend": "triton"} if runs_triton(device) else {}
    listed = [
        Contender("torchvision", False, _torchvision(case)),
        Contender("ours", True, _ours(case, **options)),
        Contender("ours, from NCHW", False, _ours(case, **options)),
    ]
    if not runs_triton(device):
        listed.append(Contender("ours, no compiler", True, _ours(case, backend="pytorch")))
    if runs_triton(device):
        bf16 = torch.bfloat16
        if device.type == "cuda":
            listed.append(Contender("torchvision, autocast bf16", False, _autocast(_torchvision(case)), bf16))
        listed.append(Contender("ours, bf16", True, _ours(case, **options), bf16))
        listed.append(Contender("ours, deterministic", True, _ours(case, deterministic=True, **options)))
        if case.operator == "roi_align":
            listed.append(Contender("torchvision, deterministic", False, _deterministic(_torchvision(case))))
            listed.append(Contender("ours, without Triton", True, _ours(case, backend="pytorch")))
        if case.operator != "roi_pool" and case.sampling:
            listed.append(Contender("one thread per output, one launch", True, _peer(case)))
    return listed


def _torchvision(case: Case):
    scale = 1 / case.strides[0]
    if case.operator == "roi_align":
        return lambda maps, boxes: torchvision_ops.roi_align(maps[0], list(boxes), case.pooled, scale, case.sampling)
    if case.operator == "roi_pool":
        return lambda maps, boxes: torchvision_ops.roi_pool(maps[0], list(boxes), case.pooled, scale)
    if case.operator == "ps_roi_pool":
        return lambda maps, boxes: torchvision_ops.ps_roi_pool(maps[0], list(boxes), case.pooled, scale)
    return _pyramid(case, torchvision_ops.MultiScaleRoIAlign(_names(case), case.pooled, case.sampling))


def _ours(case: Case, **options):
    scale = 1 / case.strides[0]
    if case.operator == "roi_align":
        return lambda maps, boxes: roi_align(maps[0], boxes, case.pooled, scale, case.sampling, **options)
    if case.operator == "roi_pool":
        return lambda maps, boxes: roi_pool(maps[0], boxes, case.pooled, scale, **options)
    if case.operator == "ps_roi_pool":
        return lambda maps, boxes: ps_roi_pool(maps[0], boxes, case.pooled, case.pooled, scale)
    return _pyramid(case, MultiScaleRoIAlign(_names(case), case.pooled, case.sampling, **options))


def _peer(case: Case):
    """The yardstick of `peer.py`, with the same choice of levels as ours."""
    from .peer import scalar_align

    scales = [1 / stride for stride in case.strides]

    def call(maps, boxes):
        rois = check_boxes(boxes, case.num_images, boxes.device)
        level = level_of(rois.boxes, scales).int()
        pooled = (case.pooled, case.pooled)
        return scalar_align(maps, rois.boxes, rois.image.int(), level, scales, pooled, case.sampling)

    return call


def _names(case: Case) -> list[str]:
    return [str(index) for index in range(len(case.strides))]


def _pyramid(case: Case, module):
    def call(maps, boxes):
        return module(dict(zip(_names(case), maps, strict=True)), list(boxes), [case.sides] * case.num_images)

    return call


def _autocast(call):
    def under_autocast(maps, boxes):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return call(maps, boxes)

    return under_autocast


def _deterministic(call):
    def under_deterministic(maps, boxes):
        torch.use_deterministic_algorithms(True)
        try:
            return call(maps, boxes)
        finally:
            torch.use_deterministic_algorithms(False)

    return under_deterministic
