"""torchvision's Mask R-CNN and Faster R-CNN with a pyramid: their weights in our network, which then detects the same.

`maskrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn` and the same on a ResNet-101; tests compare the outputs.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from models import mask_rcnn
from models.build import build_mask_rcnn
from models.config import DetectorConfig, MaskHeadConfig, ResNetConfig
from models.resnet import frozen_state

COCO_V1_EPSILON = 0.0
"""The epsilon of batch normalisation in torchvision's published COCO weights of this kind; elsewhere it is 1e-5."""


def settings(depth: int = 50) -> ResNetConfig:
    """Our settings that are torchvision's: where they differ from conf/model/r50_fpn.yaml, this is how."""
    return ResNetConfig(
        depth=depth,  # type: ignore[arg-type]
        pyramid=True,
        whole_pixel_anchors=True,
        smallest_proposal=1e-3,
        box_depth=2,
        mask_pooled_size=14,
        mask_depth=4,
        rois_per_image=512,
        proposals_before=1000,
        proposals=1000,
    )


def is_torchvision(state: dict[str, Tensor]) -> bool:
    """Whether this is the state of one of torchvision's detectors with a region of interest head."""
    return "roi_heads.box_predictor.cls_score.weight" in state


def from_torchvision(state: dict[str, Tensor], epsilon: float = 1e-5) -> mask_rcnn.MaskRCNN:
    """Our network with the weights of one of torchvision's, ready to detect, with a joint RPN.

    epsilon: of its batch normalisation, COCO_V1_EPSILON for the weights that torchvision publishes.
    Raises ValueError for a state that is of none of the detectors named above.
    """
    num_classes = len(state["roi_heads.box_predictor.cls_score.weight"]) - 1
    depth = 101 if any(name.startswith("backbone.body.layer3.22.") for name in state) else 50
    has_masks = any(name.startswith("roi_heads.mask_predictor.") for name in state)
    theirs = _their_network(state, depth, num_classes, has_masks)
    for module in theirs.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = epsilon
    head = MaskHeadConfig("fcn", 4, 256) if has_masks else MaskHeadConfig("none", 0, 1)
    config = DetectorConfig(settings(depth), mask_head=head, stride=4, joint_rpn=True)
    ours = build_mask_rcnn(config, num_classes)
    ours.load_state_dict(_renamed(theirs, has_masks))
    return ours.eval().to(memory_format=torch.channels_last)


def _their_network(state: dict[str, Tensor], depth: int, num_classes: int, has_masks: bool) -> Any:
    """Their own classes read their state: they know the names that older versions gave."""
    backbone = resnet_fpn_backbone(backbone_name=f"resnet{depth}", weights=None)
    network = (MaskRCNN if has_masks else FasterRCNN)(backbone, num_classes + 1)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"expected the state of torchvision's maskrcnn_resnet50_fpn or fasterrcnn_resnet50_fpn, got one that does "
            f"not fit ({str(error).splitlines()[1].strip()}); others, such as the v2 models, have other heads"
        ) from error
    return network


def _renamed(theirs: Any, has_masks: bool) -> dict[str, Tensor]:
    """Their weights under our names; their background has a box and a mask too, which are never used."""
    parts = {
        "rpn.conv": theirs.rpn.head.conv[0][0],
        "rpn.objectness": theirs.rpn.head.cls_logits,
        "rpn.deltas": theirs.rpn.head.bbox_pred,
        "box_head.hidden": theirs.roi_heads.box_head.fc6,
        "box_head.further.0": theirs.roi_heads.box_head.fc7,
        "box_head.scores": theirs.roi_heads.box_predictor.cls_score,
    }
    foreground = {"box_head.deltas": (theirs.roi_heads.box_predictor.bbox_pred, 4)}
    if has_masks:
        parts |= {f"mask_head.convs.{2 * i}": theirs.roi_heads.mask_head[i][0] for i in range(4)}
        parts["mask_head.deconv"] = theirs.roi_heads.mask_predictor.conv5_mask
        foreground["mask_head.logits"] = (theirs.roi_heads.mask_predictor.mask_fcn_logits, 1)
    renamed = {f"backbone.body.{name}": value for name, value in frozen_state(theirs.backbone.body).items()}
    renamed |= {f"backbone.fpn.{name}": value for name, value in theirs.backbone.fpn.state_dict().items()}
    renamed |= {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    for name, (part, per_class) in foreground.items():
        renamed |= {f"{name}.{key}": value[per_class:] for key, value in part.state_dict().items()}
    return renamed


@torch.inference_mode()
def detect_as_torchvision(
    network: mask_rcnn.MaskRCNN, images: list[Tensor], transform: GeneralizedRCNNTransform
) -> list[dict[str, Tensor]]:
    """What their detectors return: images [3, h, w] of 0 to 1 -> for each boxes, labels, scores, masks [D, 1, h, w].

    transform: theirs, which resizes and pads images, and pastes masks back in whole pixels.
    """
    resized, _ = transform(images)
    sizes = torch.tensor(resized.image_sizes, device=resized.tensors.device)
    detections = network.detect(resized.tensors.contiguous(memory_format=torch.channels_last), sizes, None)
    results = []
    for i, valid in enumerate(detections.valid):
        result = {name: getattr(detections, name)[i][valid] for name in ("boxes", "labels", "scores")}
        if detections.masks is not None:
            result["masks"] = detections.masks[i][valid][:, None]
        results.append(result)
    return transform.postprocess(results, resized.image_sizes, [(image.shape[-2], image.shape[-1]) for image in images])
