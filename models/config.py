"""What a model is made of. Each field is a key of the Hydra groups of the same name; build.py turns them into parts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class RoIConfig:
    """The RoI operator (tables 2c, 2d).

    aligned: whether cell i of the feature map is centred on pixel s * (i + 1/2) instead of s * i.
    sampling_ratio: samples along each side of a bin; 2 gives the paper's four points, 0 adapts to the bin.
    """

    op: Literal["pool", "warp", "align"] = "align"
    reduce: Literal["max", "ave"] = "ave"
    aligned: bool = False
    sampling_ratio: int = 2
    backend: Literal["auto", "reference", "compiled", "pytorch", "triton", "torchvision"] = "auto"


Rule = Literal["share", "argmax", "background"]


@dataclass(frozen=True)
class MaskLossConfig:
    """rule: what a softmax mask's class must beat at a pixel at test time (mask_objective.py)."""

    kind: Literal["sigmoid", "softmax"] = "sigmoid"
    rule: Rule = "share"


@dataclass(frozen=True)
class MaskClassConfig:
    kind: Literal["specific", "agnostic"] = "specific"


@dataclass(frozen=True)
class MaskHeadConfig:
    """depth: convolutions before the deconvolution (fcn), or hidden layers (mlp); channels: their width.

    none is Faster R-CNN.
    """

    kind: Literal["fcn", "mlp", "none"] = "fcn"
    depth: int = 0
    channels: int = 64


@dataclass(frozen=True)
class MaskRCNNConfig:
    """Mask R-CNN: RoIAlign and heads on each RoI, as the groups roi and mask_* say."""

    kind: Literal["mask_rcnn"] = "mask_rcnn"


@dataclass(frozen=True)
class FCISConfig:
    """FCIS (Li et al. 2017).

    parts, cells: of a RoI along each axis, for position-sensitive pooling.
    head_channels, head_depth: 3x3 convolutions on the map before the score maps, in place of the original's res5 and
    of what `shared_channels`, `shared_depth` are to Mask R-CNN.
    class_weight, mask_weight, box_weight: of the losses.
    target_threshold: share of a cell that an object must cover; vote_iou, vote_threshold: see models/mask_voting.py.
    """

    kind: Literal["fcis"] = "fcis"
    parts: int = 7
    cells: int = 21
    head_channels: int = 96
    head_depth: int = 4
    class_weight: float = 1.0
    mask_weight: float = 1.0
    box_weight: float = 1.0
    target_threshold: float = 0.4
    vote_iou: float = 0.5
    vote_threshold: float = 0.4


@dataclass(frozen=True)
class ModelConfig:
    """The network around the factors, whatever its trunk.

    freeze: stages of the trunk, the stem included, that are not trained after pretraining.
    box_hidden, box_depth: width and number of the box branch's fully connected layers before its predictions; with 0
    they are made from the average of the RoI's features.
    pooled_size: side of the RoIs' grid; mask_pooled_size: of a grid that the mask branch pools for itself, as with FPN,
    or None where it shares the box branch's (figure 4).
    mask_channels, mask_depth: what `mask_head=fcn` has here, unless it is told otherwise.
    proposals_before, proposals: kept by score (of each map), and after suppression; smallest_proposal: in pixels.
    """

    freeze: int = 2
    box_hidden: int = 128
    box_depth: int = 1
    pooled_size: int = 7
    mask_pooled_size: int | None = None
    mask_channels: int = 64
    mask_depth: int = 0
    rois_per_image: int = 16
    positive_fraction: float = 0.5
    anchor_sizes: list[float] = field(default_factory=lambda: [24.0, 48.0, 96.0, 176.0])
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    anchors_per_image: int = 64
    proposals_before: int = 300
    proposals: int = 48
    smallest_proposal: float = 1.0
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100

    @property
    def strides(self) -> tuple[int, ...]:
        """The values of `stride` that this network can be built with."""
        return (16, 32)

    def validate(self, stride: int) -> None:
        """Raises ValueError for what no network can be built with."""
        _require(
            stride in self.strides,
            f"stride: expected one of {', '.join(map(str, self.strides))} for this model",
            stride,
        )
        for name in ("box_hidden", "pooled_size", "mask_channels", "proposals_before", "detections_per_image"):
            _require(getattr(self, name) >= 1, f"model.{name}: expected 1 or more", getattr(self, name))
        for name in ("freeze", "box_depth", "mask_depth", "smallest_proposal"):
            _require(getattr(self, name) >= 0, f"model.{name}: expected 0 or more", getattr(self, name))
        own_size = self.mask_pooled_size
        _require(own_size is None or own_size >= 1, "model.mask_pooled_size: expected 1 or more, or null", own_size)
        _require(self.anchors_per_image >= 2, "model.anchors_per_image: expected 2 or more", self.anchors_per_image)
        for name in ("anchor_sizes", "anchor_ratios"):
            values = getattr(self, name)
            _require(bool(values) and min(values) > 0, f"model.{name}: expected positive numbers", values)
        for name in ("score_threshold", "nms_threshold"):
            _require(0 <= getattr(self, name) <= 1, f"model.{name}: expected 0 to 1", getattr(self, name))
        fraction = self.positive_fraction
        _require(0 < fraction < 1, "model.positive_fraction: expected in (0, 1)", fraction)
        slots = int(self.rois_per_image * fraction)
        _require(slots >= 1, "model.rois_per_image x positive_fraction: expected at least one positive", slots)
        most = self.proposals
        expected = f"model.rois_per_image: expected at most model.proposals = {most}"
        _require(self.rois_per_image <= most, expected, self.rois_per_image)


@dataclass(frozen=True)
class ToyConfig(ModelConfig):
    """A small ResNet.

    channels, blocks: of its stem and stages; roi_channels: of the map that RoIs are pooled from; shared_channels,
    shared_depth: 3x3 convolutions that both branches share, as C4 shares res5.
    """

    name: Literal["toy"] = "toy"
    channels: list[int] = field(default_factory=lambda: [24, 48, 96, 192])
    blocks: list[int] = field(default_factory=lambda: [1, 2, 1])
    roi_channels: int = 96
    shared_channels: int = 48
    shared_depth: int = 4

    def validate(self, stride: int) -> None:
        super().validate(stride)
        _require(len(self.channels) == 4, "model.channels: expected four (the stem and three stages)", self.channels)
        _require(len(self.blocks) == 3, "model.blocks: expected three, one for each stage", self.blocks)
        _require(
            all(n >= 1 for n in [*self.channels, *self.blocks]), "model.channels, blocks: expected 1 or more", self
        )
        for name in ("roi_channels", "shared_channels", "box_depth"):
            _require(getattr(self, name) >= 1, f"model.{name}: expected 1 or more", getattr(self, name))
        _require(self.shared_depth >= 0, "model.shared_depth: expected 0 or more", self.shared_depth)
        depth = {16: 3, 32: 4}[stride]
        _require(self.freeze <= depth, f"model.freeze: expected 0 to {depth} stages", self.freeze)
        _require(
            self.mask_pooled_size is None or self.shared_depth == 0,
            "model.shared_depth: a mask branch with RoIs of its own (mask_pooled_size) shares nothing; set it to 0",
            self.shared_depth,
        )


@dataclass(frozen=True)
class ResNetConfig(ModelConfig):
    """torchvision's ResNet-50 or 101; the defaults are those of the paper's C4 ablations.

    weights: a file with torchvision's ImageNet weights, or "imagenet" to have torchvision fetch them once.
    stride_in_1x1: see `models.resnet.resnet`; it must fit the weights.
    pyramid: FPN; its anchors have one size on each of P2 to P6.
    res5_stride: of the shared head behind C4 (mask_pooled_size None): 1 on 7x7 RoIs, 2 on the released code's 14x14.
    whole_pixel_anchors: round anchors and their spacing to whole pixels, as torchvision does.
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[50, 101] = 50
    weights: str = "imagenet"
    stride_in_1x1: bool = False
    pyramid: bool = False
    res5_stride: Literal[1, 2] = 1
    whole_pixel_anchors: bool = False
    box_hidden: int = 1024
    box_depth: int = 0
    mask_channels: int = 256
    rois_per_image: int = 64
    positive_fraction: float = 0.25
    anchor_sizes: list[float] = field(default_factory=lambda: [32.0, 64.0, 128.0, 256.0, 512.0])
    anchors_per_image: int = 256
    proposals_before: int = 6000
    proposals: int = 300

    @property
    def strides(self) -> tuple[int, ...]:
        return (4,) if self.pyramid else (16, 32)

    def validate(self, stride: int) -> None:
        super().validate(stride)
        depth = 4 if stride == 16 else 5
        _require(self.freeze <= depth, f"model.freeze: expected 0 to {depth} stages", self.freeze)
        known = self.weights == "imagenet" or Path(self.weights).is_file()
        _require(known, "model.weights: expected imagenet, or a file with torchvision's weights", self.weights)
        if self.pyramid:
            sizes = self.anchor_sizes
            _require(
                len(sizes) == 5, "model.anchor_sizes: a pyramid has one for each of P2 to P6, so expected 5", sizes
            )
        if self.mask_pooled_size is not None:
            _require(
                self.res5_stride == 1,
                "model.res5_stride: branches with RoIs of their own (mask_pooled_size) share no res5; leave it at 1",
                self.res5_stride,
            )
            return
        reason = "model.mask_pooled_size: the branches can share res5 behind C4 only"
        _require(stride == 16 and not self.pyramid, f"{reason}; set it, to 14 as in the paper", self.mask_pooled_size)
        _require(
            self.pooled_size % self.res5_stride == 0,
            f"model.pooled_size: expected a multiple of model.res5_stride = {self.res5_stride}",
            self.pooled_size,
        )


def _require(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{expected}, got {got!r}")
