"""What a model is made of. Each field is a key of the Hydra groups of the same name; build.py turns them into parts."""

from dataclasses import dataclass, field
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
    backend: Literal["auto", "reference", "cpu", "triton", "torchvision"] = "auto"


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
    """The network around the factors.

    channels, blocks: of the stem and stages of the trunk; freeze: stages that are not trained after pretraining.
    roi_channels: of the map that RoIs are pooled from; shared_channels, shared_depth: 3x3 convolutions that both
    branches share, as C4 shares res5.
    box_hidden, box_depth: width and number of the box branch's fully connected layers before its predictions.
    pooled_size: side of the RoIs' grid; mask_pooled_size: of a grid that the mask branch pools for itself, as with FPN,
    or None where it shares the box branch's (figure 4).
    mask_channels, mask_depth: what `mask_head=fcn` has here, unless it is told otherwise.
    proposals_before, proposals: kept by score, and after suppression.
    """

    name: Literal["toy"] = "toy"
    channels: list[int] = field(default_factory=lambda: [24, 48, 96, 192])
    blocks: list[int] = field(default_factory=lambda: [1, 2, 1])
    freeze: int = 2
    roi_channels: int = 96
    shared_channels: int = 48
    shared_depth: int = 4
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
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100
