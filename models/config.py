"""What a model is made of. Each field is a key of the Hydra groups of the same name; build.py turns them into parts.

Limits of one field stand beside it and hold for every instance; `rules` has those between fields.
"""

import functools
import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field
from pydantic.dataclasses import dataclass

SHIPPED = Path(__file__).parent / "shipped"
"""The backbones that come with the project; backbones.json says how they were made."""

FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(gt=0)]
Anchors = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]

Constraints = list[tuple[str, bool, str]]
"""Rows of a field's name, whether it fits the other fields, and what would; a reason may follow behind a colon."""


@dataclass(frozen=True, config=FORBID)
class RoIConfig:
    """The RoI operator (tables 2c, 2d).

    aligned: whether cell i of the feature map is centred on pixel s * (i + 1/2) instead of s * i.
    sampling_ratio: samples along each side of a bin; 2 gives the paper's four points, 0 adapts to the bin.
    step: image pixels that RoIAlign's boxes are rounded to beforehand, ends as RoIWarp rounds them; 0: not rounded.
    RoIAlign with the map's stride for a step is RoIWarp.
    """

    op: Literal["pool", "warp", "align"] = "align"
    reduce: Literal["max", "ave"] = "ave"
    aligned: bool = False
    sampling_ratio: Annotated[int, Field(ge=0, le=64)] = 2
    step: Annotated[int, Field(ge=0)] = 0
    backend: Literal["auto", "reference", "compiled", "pytorch", "triton", "torchvision"] = "auto"

    def rules(self) -> Constraints:
        pool = self.op == "pool"
        return [
            ("reduce", not pool or self.reduce == "max", "max: RoIPool is a maximum by definition"),
            ("aligned", self.op == "align" or not self.aligned, "false: only RoIAlign has it"),
            ("step", self.op == "align" or self.step == 0, "0: the operator rounds by itself, to cells of the map"),
            ("sampling_ratio", not pool or self.sampling_ratio == 0, "0: RoIPool reads whole cells, it has no samples"),
        ]


@functools.cache
def shipped_backbones() -> dict[str, Any]:
    """What backbones.json says: architecture, the settings and the code that made them, and the digest of each file."""
    return json.loads((SHIPPED / "backbones.json").read_text(encoding="utf-8"))


MaskRule = Literal["share", "argmax", "background"]


@dataclass(frozen=True, config=FORBID)
class MaskLossConfig:
    """rule: what a softmax mask's class must beat at a pixel at test time (mask_objective.py)."""

    kind: Literal["sigmoid", "softmax"] = "sigmoid"
    rule: MaskRule = "share"

    def rules(self) -> Constraints:
        competing = self.kind == "softmax"
        return [("rule", competing or self.rule == "share", "share: sigmoid masks have no rivals to beat")]


@dataclass(frozen=True, config=FORBID)
class MaskClassConfig:
    kind: Literal["specific", "agnostic"] = "specific"


@dataclass(frozen=True, config=FORBID)
class MaskHeadConfig:
    """depth: convolutions before the deconvolution (fcn), or hidden layers (mlp); channels: their width.

    none is Faster R-CNN, with a depth of 0 and 1 channel.
    """

    kind: Literal["fcn", "mlp", "none"] = "fcn"
    depth: Annotated[int, Field(ge=0)] = 0
    channels: Count = 64

    def rules(self) -> Constraints:
        branch = self.kind != "none"
        return [
            ("depth", branch or self.depth == 0, "0: without a mask branch it has no effect"),
            ("depth", self.kind != "mlp" or self.depth >= 1, "1 or more for mlp"),
            ("channels", branch or self.channels == 1, "1: without a mask branch they have no effect"),
        ]


@dataclass(frozen=True, config=FORBID)
class MaskRCNNConfig:
    """Mask R-CNN: RoIAlign and heads on each RoI, as the groups roi and mask_* say."""

    kind: Literal["mask_rcnn"] = "mask_rcnn"


@dataclass(frozen=True, config=FORBID)
class FCISConfig:
    """FCIS (Li et al. 2017).

    parts, cells: of a RoI along each axis, for position-sensitive pooling.
    head_channels, head_depth: 3x3 convolutions on the map before the score maps, in place of the original's res5 and
    of what `shared_channels`, `shared_depth` are to Mask R-CNN.
    class_weight, mask_weight, box_weight: of the losses.
    target_threshold: share of a cell that an object must cover; vote_iou, vote_threshold: see models/mask_voting.py.
    """

    kind: Literal["fcis"] = "fcis"
    parts: Count = 7
    cells: Count = 21
    head_channels: Count = 96
    head_depth: Annotated[int, Field(ge=0)] = 4
    class_weight: Weight = 1.0
    mask_weight: Weight = 1.0
    box_weight: Weight = 1.0
    target_threshold: PositiveShare = 0.4
    vote_iou: PositiveShare = 0.5
    vote_threshold: PositiveShare = 0.4

    def rules(self) -> Constraints:
        return [("cells", self.cells % self.parts == 0, f"a multiple of system.parts = {self.parts}")]


@dataclass(frozen=True, config=FORBID)
class ModelConfig:
    """The network around the factors, whatever its backbone.

    freeze: stages of the backbone, the stem included, that are not trained after pretraining; "all": of a ResNet, the
    whole backbone. Then its maps depend on the image alone, and the network is only what follows them: it takes maps in
    place of images (models.backbone.Projection).
    box_hidden, box_depth: width and number of the box branch's fully connected layers before its predictions; with 0
    they are made from the average of the RoI's features.
    pooled_size: side of the RoIs' grid; mask_pooled_size: of a grid that the mask branch pools for itself, as with FPN,
    or None where it shares the box branch's (figure 4).
    mask_channels, mask_depth: what `mask_head=fcn` has here, unless it is told otherwise.
    proposals_before, proposals: kept by score (of each map), and after suppression; smallest_proposal: in pixels.
    """

    freeze: Annotated[int, Field(ge=0)] | Literal["all"] = 2
    box_hidden: Count = 128
    box_depth: Annotated[int, Field(ge=0)] = 1
    pooled_size: Count = 7
    mask_pooled_size: Count | None = None
    mask_channels: Count = 64
    mask_depth: Annotated[int, Field(ge=0)] = 0
    rois_per_image: Count = 16
    positive_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    anchor_sizes: Anchors = field(default_factory=lambda: [24.0, 48.0, 96.0, 176.0])
    anchor_ratios: Anchors = field(default_factory=lambda: [0.5, 1.0, 2.0])
    anchors_per_image: Annotated[int, Field(ge=2)] = 64
    proposals_before: Count = 300
    proposals: Count = 48
    smallest_proposal: Annotated[float, Field(ge=0)] = 1.0
    score_threshold: Share = 0.05
    nms_threshold: Share = 0.5
    detections_per_image: Count = 100

    @property
    def strides(self) -> tuple[int, ...]:
        """The values of `stride` that this network can be built with."""
        return (16, 32)

    @property
    def frozen(self) -> bool:
        """Whether the backbone is fully frozen, so that the network takes its maps in place of images."""
        return self.freeze == "all"

    @property
    def slot_step(self) -> int:
        """On a CPU, positive RoIs get slots in multiples of this: see `models.assign.sample_rois`."""
        return 1  # a large network gains most if no unneeded mask is computed

    def rules_at(self, stride: int) -> Constraints:
        """stride: one of `strides`."""
        per_image, most = self.rois_per_image, self.proposals
        positive = 1 / self.positive_fraction
        return [
            ("rois_per_image", int(per_image * self.positive_fraction) >= 1, f"{positive:g} or more, for one positive"),
            ("rois_per_image", per_image <= most, f"at most model.proposals = {most}"),
        ]


@dataclass(frozen=True, config=FORBID)
class ToyConfig(ModelConfig):
    """A small ResNet.

    weights: of the pretrained backbone: shipped, those in models/shipped, or scratch, to have a study pretrain its own.
    channels, blocks: of its stem and stages; roi_channels: of the map that RoIs are pooled from; shared_channels,
    shared_depth: 3x3 convolutions that both branches share, as C4 shares res5.
    """

    name: Literal["toy"] = "toy"
    weights: Literal["shipped", "scratch"] = "shipped"
    channels: Annotated[list[Count], Field(min_length=4, max_length=4)] = field(
        default_factory=lambda: [32, 64, 128, 256]
    )
    blocks: Annotated[list[Count], Field(min_length=3, max_length=3)] = field(default_factory=lambda: [1, 2, 2])
    roi_channels: Count = 96
    shared_channels: Count = 48
    shared_depth: Annotated[int, Field(ge=0)] = 4
    box_depth: Count = 1

    @property
    def slot_step(self) -> int:
        return 8  # a small network gains more from meeting the same shapes again

    def rules_at(self, stride: int) -> Constraints:
        separate_mask_pooling, depth = self.mask_pooled_size is not None, {16: 3, 32: 4}[stride]
        reason = "a mask branch with RoIs of its own (mask_pooled_size) shares nothing"
        shipped = shipped_backbones()["architecture"] if self.weights == "shipped" else {}
        those = "as the shipped backbones have it; or set model.weights=scratch"
        return [
            *super().rules_at(stride),
            *((name, getattr(self, name) == value, f"{value}, {those}") for name, value in shipped.items()),
            ("freeze", self.freeze != "all" and self.freeze <= depth, f"0 to {depth} stages"),
            ("shared_depth", not separate_mask_pooling or self.shared_depth == 0, f"0: {reason}"),
        ]


@dataclass(frozen=True, config=FORBID)
class ResNetConfig(ModelConfig):
    """torchvision's ResNet-50 or 101; the defaults are those of the paper's C4 ablations.

    weights: a file with torchvision's ImageNet weights, or "imagenet" to have torchvision fetch them once.
    roi_channels: of a 1x1 convolution, trained, between the maps of a fully frozen backbone and the heads.
    stride_in_1x1: see `models.resnet.resnet`; it must fit the weights.
    pyramid: FPN; its anchors have one size on each of P2 to P6.
    res5_stride: of the shared head behind C4 (mask_pooled_size None): 1 on 7x7 RoIs, 2 on the released code's 14x14.
    whole_pixel_anchors: round anchors and their spacing to whole pixels, as torchvision does.
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[50, 101] = 50
    weights: str = "imagenet"
    roi_channels: Count | None = None
    stride_in_1x1: bool = False
    pyramid: bool = False
    res5_stride: Literal[1, 2] = 1
    whole_pixel_anchors: bool = False
    box_hidden: Count = 1024
    box_depth: Annotated[int, Field(ge=0)] = 0
    mask_channels: Count = 256
    rois_per_image: Count = 64
    positive_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    anchor_sizes: Anchors = field(default_factory=lambda: [32.0, 64.0, 128.0, 256.0, 512.0])
    anchors_per_image: Annotated[int, Field(ge=2)] = 256
    proposals_before: Count = 6000
    proposals: Count = 300

    @property
    def strides(self) -> tuple[int, ...]:
        return (4,) if self.pyramid else (16, 32)

    def rules_at(self, stride: int) -> Constraints:
        separate_mask_pooling, depth = self.mask_pooled_size is not None, 4 if stride == 16 else 5
        known = self.weights == "imagenet" or Path(self.weights).is_file()
        shares = "a size, 14 as in the paper: the branches can share res5 behind C4 only"
        return [
            *super().rules_at(stride),
            ("freeze", self.freeze == "all" or self.freeze <= depth, f"0 to {depth} stages, or all"),
            ("freeze", not (self.frozen and self.pyramid), "a number: a pyramid is trained on more than one map"),
            ("roi_channels", self.frozen or self.roi_channels is None, "null: it goes with freeze=all"),
            ("weights", known, "imagenet, or a file with torchvision's weights"),
            ("anchor_sizes", not self.pyramid or len(self.anchor_sizes) == 5, "5 sizes, one for each of P2 to P6"),
            ("roi_channels", separate_mask_pooling or self.roi_channels is None, "null: res5 follows the map itself"),
            ("mask_pooled_size", separate_mask_pooling or stride == 16, shares),
            (
                "res5_stride",
                not separate_mask_pooling or self.res5_stride == 1,
                "1: RoIs of their own (mask_pooled_size) share no res5",
            ),
            (
                "pooled_size",
                separate_mask_pooling or self.pooled_size % self.res5_stride == 0,
                f"a multiple of res5_stride = {self.res5_stride}",
            ),
        ]


@dataclass(frozen=True, config=FORBID)
class DetectorConfig:
    """All that a detector is built from but the number of classes: the groups of these names.

    system: the groups roi and mask_* are parts of Mask R-CNN only.
    stride: image pixels from one cell to the next, of the map that RoIs are pooled from, or of a pyramid's finest.
    joint_rpn: whether a proposal network is trained with the detector; otherwise proposals come from elsewhere.
    """

    model: Annotated[ToyConfig | ResNetConfig, Discriminator("name")]
    system: Annotated[MaskRCNNConfig | FCISConfig, Discriminator("kind")] = MaskRCNNConfig()
    roi: RoIConfig = RoIConfig()
    mask_loss: MaskLossConfig = MaskLossConfig()
    mask_class: MaskClassConfig = MaskClassConfig()
    mask_head: MaskHeadConfig = MaskHeadConfig()
    stride: int = 16
    joint_rpn: bool = False
