"""Configuration to networks: the one place where a factor's value becomes a part."""

from functools import partial

import torch
from torch import nn

from models.backbone import Backbone, Projection, fold_batch_norm, toy_backbone
from models.config import (
    DetectorConfig,
    FCISConfig,
    MaskClassConfig,
    MaskHeadConfig,
    MaskLossConfig,
    ModelConfig,
    ResNetConfig,
    RoIConfig,
    ToyConfig,
)
from models.detector import Detector
from models.fcis import FCIS
from models.heads import AveragedBoxHead, BoxHead, ConvHead, FCNMaskHead, MLPMaskHead
from models.mask_objective import MaskObjective, SigmoidMask, SoftmaxMask
from models.mask_rcnn import MaskRCNN, RoIPooling
from models.pooling import Pooling, PyramidAlign, PyramidPooling, RoIOperator
from models.resnet import CHANNELS, LAYERS, PYRAMID_STRIDES, PyramidBackbone, Res5, resnet, resnet_backbone
from models.rpn import RPNHead
from ops.backends import Need, choose
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp


def build_backbone(settings: ModelConfig, stride: int) -> Backbone | PyramidBackbone | Projection:
    """The backbone as every stage after its pretraining uses it: without batch normalisation.

    Of one that is fully frozen, what follows it: its maps come from outside the network (build_frozen_backbone).
    """
    if settings.freeze == "all":
        assert isinstance(settings, ResNetConfig), "validation refuses it for others"
        return Projection(CHANNELS[LAYERS[stride]], settings.roi_channels, stride)
    if isinstance(settings, ResNetConfig):
        network = resnet(settings.depth, settings.stride_in_1x1)
        if settings.pyramid:
            return PyramidBackbone(resnet_backbone(network, 32, settings.freeze))
        return resnet_backbone(network, stride, settings.freeze)
    assert isinstance(settings, ToyConfig)
    backbone = toy_backbone(settings.channels, settings.blocks, settings.roi_channels, stride, freeze=settings.freeze)
    return fold_batch_norm(backbone.eval())


def build_frozen_backbone(settings: ModelConfig, stride: int) -> Backbone:
    """The fully frozen backbone (model.freeze=all), still with the weights to be loaded."""
    assert isinstance(settings, ResNetConfig)
    return resnet_backbone(resnet(settings.depth, settings.stride_in_1x1), stride, freeze=1 + LAYERS[stride]).eval()


def build_shared_head(settings: ModelConfig, in_channels: int) -> tuple[nn.Module, int, int]:
    """What the branches share, and the channels and the side of what it gives."""
    if isinstance(settings, ToyConfig):
        convolutions = ConvHead(in_channels, settings.shared_channels, settings.shared_depth)
        return convolutions, convolutions.out_channels, settings.pooled_size
    assert isinstance(settings, ResNetConfig)
    if settings.mask_pooled_size is not None:
        return nn.Identity(), in_channels, settings.pooled_size
    res5 = Res5(resnet(settings.depth, settings.stride_in_1x1), settings.res5_stride)
    return res5, res5.out_channels, settings.pooled_size // settings.res5_stride


def build_box_head(settings: ModelConfig, in_channels: int, size: int, num_classes: int) -> nn.Module:
    if settings.box_depth == 0:
        return AveragedBoxHead(in_channels, num_classes)
    return BoxHead(in_channels, size, settings.box_hidden, num_classes, settings.box_depth)


def build_roi_operator(roi: RoIConfig) -> RoIOperator:
    if roi.op == "pool":
        return partial(roi_pool, backend=roi.backend)
    operator = roi_warp if roi.op == "warp" else partial(roi_align, aligned=roi.aligned)
    return partial(operator, sampling_ratio=roi.sampling_ratio, reduce=roi.reduce, backend=roi.backend)


def build_roi_pooling(roi: RoIConfig, settings: ModelConfig, size: int, stride: int) -> RoIPooling:
    if not isinstance(settings, ResNetConfig) or not settings.pyramid:
        return Pooling(build_roi_operator(roi), size, stride, roi.step)
    if (roi.op, roi.reduce, roi.aligned) == ("align", "ave", False):
        return PyramidAlign(size, PYRAMID_STRIDES, roi.sampling_ratio, roi.backend)
    return PyramidPooling(build_roi_operator(roi), size, PYRAMID_STRIDES)


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


def build_rpn_head(settings: ModelConfig, in_channels: int, stride: int) -> RPNHead:
    whole_pixels = isinstance(settings, ResNetConfig) and settings.whole_pixel_anchors
    if isinstance(settings, ResNetConfig) and settings.pyramid:
        strides, sizes = [*PYRAMID_STRIDES, 2 * PYRAMID_STRIDES[-1]], [[size] for size in settings.anchor_sizes]
    else:
        strides, sizes = [stride], [list(settings.anchor_sizes)]
    return RPNHead(in_channels, strides, sizes, list(settings.anchor_ratios), whole_pixels)


def build_detector(config: DetectorConfig, num_classes: int) -> Detector:
    """The system asked for, with weights still to be drawn (`initialise`) or loaded."""
    if isinstance(config.system, FCISConfig):
        return build_fcis(config, num_classes)
    return build_mask_rcnn(config, num_classes)


def build_fcis(config: DetectorConfig, num_classes: int) -> FCIS:
    assert isinstance(config.system, FCISConfig)
    backbone = build_backbone(config.model, config.stride)
    assert not isinstance(backbone, PyramidBackbone), "validation refuses FCIS on a pyramid"
    return FCIS(
        backbone=backbone,
        head=ConvHead(backbone.out_channels, config.system.head_channels, config.system.head_depth),
        num_classes=num_classes,
        settings=config.model,
        fcis=config.system,
        rpn=build_rpn_head(config.model, backbone.out_channels, config.stride) if config.joint_rpn else None,
    )


def build_mask_rcnn(config: DetectorConfig, num_classes: int) -> MaskRCNN:
    settings, roi, stride = config.model, config.roi, config.stride
    backbone = build_backbone(settings, stride)
    shared, channels, size = build_shared_head(settings, backbone.out_channels)
    objective = build_mask_objective(config.mask_loss, config.mask_class, num_classes)
    own_size = settings.mask_pooled_size
    mask_size, mask_in = (own_size, backbone.out_channels) if own_size else (size, channels)
    return MaskRCNN(
        backbone=backbone,
        roi_pooling=build_roi_pooling(roi, settings, settings.pooled_size, stride),
        shared_head=shared,
        box_head=build_box_head(settings, channels, size, num_classes),
        mask_head=build_mask_head(config.mask_head, mask_in, mask_size, objective.num_channels),
        mask_objective=objective,
        mask_pooling=build_roi_pooling(roi, settings, own_size, stride) if own_size else None,
        settings=settings,
        rpn=build_rpn_head(settings, backbone.out_channels, stride) if config.joint_rpn else None,
    )


def serving_backends(config: DetectorConfig, device: torch.device) -> dict[str, str]:
    """Which backend serves the system's RoI operator on a device, by the operator's name: {"roi_align": "compiled"}.

    Backends agree except for rounding, so that the last bits of a result depend on this. Raises ValueError where the
    one that is asked for cannot serve.
    """
    if isinstance(config.system, FCISConfig):
        operator, reduce, backend = "ps_roi_pool", "ave", "auto"
    else:
        operator, reduce, backend = f"roi_{config.roi.op}", config.roi.reduce, config.roi.backend
    deterministic = torch.are_deterministic_algorithms_enabled()
    return {operator: choose(Need(operator, device, torch.float32, reduce, deterministic=deterministic), backend)}
