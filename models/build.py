"""Configuration to networks: the one place where a factor's value becomes a part."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from models.backbone import Trunk, fold_batch_norm, toy_trunk
from models.config import (
    FCISConfig,
    MaskClassConfig,
    MaskHeadConfig,
    MaskLossConfig,
    MaskRCNNConfig,
    ModelConfig,
    RoIConfig,
)
from models.detector import Detector, RoISettings
from models.fcis import FCIS
from models.heads import BoxHead, ConvHead, FCNMaskHead, MLPMaskHead
from models.mask_objective import MaskObjective, SigmoidMask, SoftmaxMask
from models.mask_rcnn import MaskRCNN, RoIPooling
from models.rpn import RPNHead
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp


def build_trunk(model: ModelConfig, stride: int, pretraining: bool = False) -> Trunk:
    """The trunk as it is pretrained (batch normalisation, all stages trained), or as every later stage uses it."""
    if pretraining:
        return toy_trunk(model.channels, model.blocks, model.roi_channels, stride)
    trunk = toy_trunk(model.channels, model.blocks, model.roi_channels, stride, freeze=model.freeze)
    return fold_batch_norm(trunk.eval())


def build_roi_operator(roi: RoIConfig) -> Callable[..., Tensor]:
    """RoIPool, RoIWarp or RoIAlign as a function of (features, boxes, P, scale of the features)."""
    if roi.op == "pool":
        return partial(roi_pool, backend=roi.backend)
    operator = roi_warp if roi.op == "warp" else partial(roi_align, aligned=roi.aligned)
    return partial(operator, sampling_ratio=roi.sampling_ratio, reduce=roi.reduce, backend=roi.backend)


def build_roi_pooling(roi: RoIConfig, pooled_size: int, stride: int) -> RoIPooling:
    return partial(build_roi_operator(roi), output_size=pooled_size, spatial_scale=1 / stride)


def build_mask_objective(mask_loss: MaskLossConfig, mask_class: MaskClassConfig, num_classes: int) -> MaskObjective:
    agnostic = mask_class.kind == "agnostic"
    if mask_loss.kind == "sigmoid":
        return SigmoidMask(num_classes, agnostic)
    return SoftmaxMask(num_classes, agnostic, mask_loss.rule)


def build_mask_head(
    mask_head: MaskHeadConfig, in_channels: int, pooled_size: int, num_channels: int
) -> nn.Module | None:
    if mask_head.kind == "none":
        return None
    if mask_head.kind == "fcn":
        return FCNMaskHead(in_channels, mask_head.channels, mask_head.depth, num_channels)
    return MLPMaskHead(in_channels, pooled_size, mask_head.channels, mask_head.depth, num_channels)


def build_rpn_head(model: ModelConfig, in_channels: int, stride: int) -> RPNHead:
    return RPNHead(in_channels, stride, list(model.anchor_sizes), list(model.anchor_ratios))


def build_roi_settings(model: ModelConfig) -> RoISettings:
    return RoISettings(
        rois_per_image=model.rois_per_image,
        positive_fraction=model.positive_fraction,
        score_threshold=model.score_threshold,
        nms_threshold=model.nms_threshold,
        detections_per_image=model.detections_per_image,
        anchors_per_image=model.anchors_per_image,
        proposals_before=model.proposals_before,
        proposals=model.proposals,
    )


def build_detector(
    system: MaskRCNNConfig | FCISConfig,
    model: ModelConfig,
    roi: RoIConfig,
    mask_loss: MaskLossConfig,
    mask_class: MaskClassConfig,
    mask_head: MaskHeadConfig,
    stride: int,
    num_classes: int,
    joint_rpn: bool = False,
) -> Detector:
    """The system asked for; the groups roi and mask_* are parts of Mask R-CNN only."""
    if isinstance(system, FCISConfig):
        return build_fcis(system, model, stride, num_classes, joint_rpn)
    return build_mask_rcnn(model, roi, mask_loss, mask_class, mask_head, stride, num_classes, joint_rpn)


def build_fcis(system: FCISConfig, model: ModelConfig, stride: int, num_classes: int, joint_rpn: bool = False) -> FCIS:
    trunk = build_trunk(model, stride)
    return FCIS(
        backbone=trunk,
        head=ConvHead(model.roi_channels, system.head_channels, system.head_depth),
        num_classes=num_classes,
        settings=build_roi_settings(model),
        fcis=system,
        rpn=build_rpn_head(model, trunk.out_channels, stride) if joint_rpn else None,
    )


def build_mask_rcnn(
    model: ModelConfig,
    roi: RoIConfig,
    mask_loss: MaskLossConfig,
    mask_class: MaskClassConfig,
    mask_head: MaskHeadConfig,
    stride: int,
    num_classes: int,
    joint_rpn: bool = False,
) -> MaskRCNN:
    trunk = build_trunk(model, stride)
    shared = ConvHead(model.roi_channels, model.shared_channels, model.shared_depth)
    objective = build_mask_objective(mask_loss, mask_class, num_classes)
    own_size = model.mask_pooled_size
    mask_size, mask_in = (own_size, trunk.out_channels) if own_size else (model.pooled_size, shared.out_channels)
    return MaskRCNN(
        backbone=trunk,
        roi_pooling=build_roi_pooling(roi, model.pooled_size, stride),
        shared_head=shared,
        box_head=BoxHead(shared.out_channels, model.pooled_size, model.box_hidden, num_classes, model.box_depth),
        mask_head=build_mask_head(mask_head, mask_in, mask_size, objective.num_channels),
        mask_objective=objective,
        mask_pooling=build_roi_pooling(roi, own_size, stride) if own_size else None,
        settings=build_roi_settings(model),
        rpn=build_rpn_head(model, trunk.out_channels, stride) if joint_rpn else None,
    )
