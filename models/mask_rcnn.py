"""Mask R-CNN (section 3): Faster R-CNN and, parallel to its box branch, a branch that predicts masks.

Letters: B images, R RoIs of an image, C channels, P pooled side, K classes, G padded ground truths, M mask side,
D detections of an image. Boxes are xyxy in image pixels.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.assign import RoISample
from models.backbone import Backbone, Projection
from models.config import ModelConfig
from models.detector import Detector, Draw, box_losses, mask_targets
from models.mask_objective import MaskObjective
from models.resnet import PyramidBackbone
from models.rpn import RPNHead
from models.structures import Detections, GroundTruth, Proposals
from ops.boxes import decode_boxes

# Fast R-CNN's normalisation of box targets, the inverse of their typical standard deviations.
DELTA_WEIGHTS = (10.0, 5.0)

RoIPooling = Callable[[Any, Tensor], Tensor]
"""(features as the backbone gives them, boxes [B, R, 4]) -> [B * R, C, P, P]"""


class MaskRCNN(Detector):
    """The parts are passed in, so that swapping one is a matter of construction.

    backbone:       images [B, 3, H, W] -> features: a map [B, C, h, w], or the maps of a pyramid.
    roi_pooling:    RoIAlign, RoIPool or RoIWarp to the grid that the box branch sees.
    shared_head:    what the box and the mask branch share (C4: res5; FPN: nothing).
    mask_pooling:   to a grid of the mask branch's own; None makes it share the box branch's RoIs and `shared_head`.
    mask_head:      None gives Faster R-CNN.
    mask_objective: what the mask logits mean: their loss and their inference rule.
    rpn:            trained jointly on the backbone's features; None when proposals come from elsewhere.
    """

    def __init__(
        self,
        backbone: Backbone | PyramidBackbone | Projection,
        roi_pooling: RoIPooling,
        shared_head: nn.Module,
        box_head: nn.Module,
        mask_head: nn.Module | None,
        mask_objective: MaskObjective,
        settings: ModelConfig,
        mask_pooling: RoIPooling | None = None,
        rpn: RPNHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.roi_pooling = roi_pooling
        self.mask_pooling = mask_pooling
        self.shared_head = shared_head
        self.box_head = box_head
        self.mask_head = mask_head
        self.mask_objective = mask_objective
        self.settings = settings
        self.rpn = rpn

    @property
    def predicts_masks(self) -> bool:
        return self.mask_head is not None

    def losses(
        self, images: Tensor, sizes: Tensor, truth: GroundTruth, proposals: Proposals | None, draw: Draw
    ) -> dict[str, Tensor]:
        """L = L_cls + L_box + L_mask."""
        features = self.backbone(images)
        rois, losses = self.training_rois(features, sizes, truth, proposals, draw)
        x = self.box_features(features, rois.boxes)
        logits, deltas = self.box_head(x)
        losses |= self.box_losses(logits, deltas, rois, truth)
        if self.mask_head is not None:
            if self.mask_pooling is None:
                x = rois.positive_slots(x.unflatten(0, rois.labels.shape))
            else:
                x = self.mask_pooling(features, rois.boxes[:, : rois.num_positive_slots])
            losses["mask"] = self.mask_loss(x, rois, truth)
        return losses

    def box_losses(self, logits: Tensor, deltas: Tensor, rois: RoISample, truth: GroundTruth) -> dict[str, Tensor]:
        """L_cls and L_box (Fast R-CNN); logits [B * R, K + 1], deltas [B * R, K, 4]."""
        of_class = rois.labels.flatten().clamp(min=1) - 1
        deltas = deltas[torch.arange(len(deltas), device=deltas.device), of_class]  # [B * R, 4]
        return box_losses(logits, deltas, rois, truth, DELTA_WEIGHTS)

    def mask_loss(self, x: Tensor, rois: RoISample, truth: GroundTruth) -> Tensor:
        """L_mask on the slots that positives are in; x [B * slots, C, P, P]."""
        assert self.mask_head is not None
        logits = self.mask_head(x).float()
        targets = mask_targets(rois, truth, logits.shape[-1])  # [B * slots, M, M]
        labels, positive = rois.positive_slots(rois.labels), rois.positive_slots(rois.positive)
        return self.mask_objective.loss(logits, labels, targets, positive.to(logits.dtype))

    @torch.inference_mode()
    def detect(self, images: Tensor, sizes: Tensor, proposals: Proposals | None) -> Detections:
        """Boxes first, then masks on the best ones only (section 3.1); sizes [B, 2] are (height, width)."""
        features = self.backbone(images)
        proposals = self.proposals(features, sizes) if proposals is None else proposals
        x = self.box_features(features, proposals.boxes)
        detections = self.detect_boxes(x, sizes, proposals)
        if self.mask_head is None:
            return detections
        labels = detections.labels
        logits = self.mask_logits(features, detections.boxes)
        masks = self.mask_objective.probabilities(logits, labels.flatten())  # [B * D, M, M]
        return replace(detections, masks=masks.unflatten(0, labels.shape))

    @torch.inference_mode()
    def masks_of(self, images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """What the mask branch makes of each box; arguments and result as in `Detector.masks_of`."""
        logits = self.mask_logits(self.backbone(images), boxes)
        return self.mask_objective.probabilities(logits, labels.flatten()).unflatten(0, labels.shape)

    def box_features(self, features: Any, boxes: Tensor) -> Tensor:
        """What the box branch sees of boxes [B, R, 4], [B * R, C, P, P]."""
        return self.shared_head(self.roi_pooling(features, boxes))

    def mask_logits(self, features: Any, boxes: Tensor) -> Tensor:
        """What the mask branch says of boxes [B, D, 4], [B * D, channels, M, M]."""
        assert self.mask_head is not None
        if self.mask_pooling is None:
            return self.mask_head(self.box_features(features, boxes))
        return self.mask_head(self.mask_pooling(features, boxes))

    def detect_boxes(self, x: Tensor, sizes: Tensor, proposals: Proposals) -> Detections:
        """x [B * R, C, P, P] -> the detections after suppression within classes, still without masks."""
        logits, deltas = self.box_head(x)
        batch, num_rois = proposals.scores.shape
        probabilities = logits.softmax(-1)[:, 1:].unflatten(0, (batch, num_rois))  # [B, R, K]
        boxes = decode_boxes(deltas.unflatten(0, (batch, num_rois)), proposals.boxes[:, :, None], DELTA_WEIGHTS)
        return self.keep_best(boxes, probabilities, proposals.valid, sizes)
