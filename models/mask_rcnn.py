"""Mask R-CNN (section 3): Faster R-CNN and, parallel to its box branch, a branch that predicts masks.

Letters: B images, R RoIs of an image, C channels, P pooled side, K classes, G padded ground truths, M mask side,
D detections of an image. Boxes are xyxy in image pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.assign import RoISample
from models.backbone import Trunk
from models.detector import Detections, Detector, Draw, GroundTruth, Proposals, RoISettings, box_losses, mask_targets
from models.mask_objective import MaskObjective
from models.rpn import RPNHead
from ops.boxes import decode_boxes

# Fast R-CNN's normalisation of box targets, the inverse of their typical standard deviations.
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

RoIOperator = Callable[[Tensor, Tensor, int, float], Tensor]
"""(features [B, C, h, w], boxes [B, R, 4], P, scale of the features) -> [B * R, C, P, P]"""


class MaskRCNN(Detector):
    """The parts are passed in, so that swapping one is a matter of construction.

    backbone:       images [B, 3, H, W] -> features [B, C, h, w]; has `stride`.
    roi_operator:   RoIAlign, RoIPool or RoIWarp.
    shared_head:    what the box and the mask branch share (C4: res5).
    mask_head:      None gives Faster R-CNN.
    mask_objective: what the mask logits mean: their loss and their inference rule.
    rpn:            trained jointly on the backbone's features; None when proposals come from elsewhere.
    """

    def __init__(
        self,
        backbone: Trunk,
        roi_operator: RoIOperator,
        shared_head: nn.Module,
        box_head: nn.Module,
        mask_head: nn.Module | None,
        mask_objective: MaskObjective,
        settings: RoISettings,
        rpn: RPNHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.roi_operator = roi_operator
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
        x = self.pool(features, rois.boxes)  # [B * R, C, P, P]
        logits, deltas = self.box_head(x)
        losses |= self.box_losses(logits, deltas, rois, truth)
        if self.mask_head is not None:
            losses["mask"] = self.mask_loss(x, rois, truth)
        return losses

    def pool(self, features: Tensor, boxes: Tensor) -> Tensor:
        """features [B, C, h, w], boxes [B, R, 4] -> what both branches see, [B * R, C, P, P]."""
        pooled = self.roi_operator(features, boxes, self.settings.pooled_size, 1 / self.backbone.stride)
        return self.shared_head(pooled)

    def box_losses(self, logits: Tensor, deltas: Tensor, rois: RoISample, truth: GroundTruth) -> dict[str, Tensor]:
        """L_cls and L_box (Fast R-CNN); logits [B * R, K + 1], deltas [B * R, K, 4]."""
        of_class = rois.labels.flatten().clamp(min=1) - 1
        deltas = deltas[torch.arange(len(deltas), device=deltas.device), of_class]  # [B * R, 4]
        return box_losses(logits, deltas, rois, truth, DELTA_WEIGHTS)

    def mask_loss(self, x: Tensor, rois: RoISample, truth: GroundTruth) -> Tensor:
        """L_mask on the slots that positives are in; x [B * R, C, P, P]."""
        assert self.mask_head is not None
        logits = self.mask_head(rois.positive_slots(x.unflatten(0, rois.labels.shape))).float()
        targets = mask_targets(rois, truth, logits.shape[-1])  # [B * slots, M, M]
        labels, positive = rois.positive_slots(rois.labels), rois.positive_slots(rois.positive)
        return self.mask_objective.loss(logits, labels, targets, positive.to(logits.dtype))

    @torch.inference_mode()
    def detect(self, images: Tensor, sizes: Tensor, proposals: Proposals | None) -> Detections:
        """Boxes first, then masks on the best ones only (section 3.1); sizes [B, 2] are (height, width)."""
        features = self.backbone(images)
        proposals = self.proposals(features, sizes) if proposals is None else proposals
        boxes, scores, labels = self.detect_boxes(self.pool(features, proposals.boxes), sizes, proposals)
        if self.mask_head is None:
            return Detections(boxes, scores, labels, None)
        logits = self.mask_logits(features, boxes)
        masks = self.mask_objective.probabilities(logits, labels.flatten())  # [B * D, M, M]
        return Detections(boxes, scores, labels, masks.unflatten(0, labels.shape))

    def mask_logits(self, features: Tensor, boxes: Tensor) -> Tensor:
        """What the mask branch says of boxes [B, D, 4], [B * D, channels, M, M]."""
        assert self.mask_head is not None
        return self.mask_head(self.pool(features, boxes))

    def detect_boxes(self, x: Tensor, sizes: Tensor, proposals: Proposals) -> tuple[Tensor, Tensor, Tensor]:
        """x [B * R, C, P, P] -> boxes [B, D, 4], scores and labels [B, D] after suppression within classes."""
        logits, deltas = self.box_head(x)
        batch, num_rois = proposals.scores.shape
        probabilities = logits.softmax(-1)[:, 1:].unflatten(0, (batch, num_rois))  # [B, R, K]
        boxes = decode_boxes(deltas.unflatten(0, (batch, num_rois)), proposals.boxes[:, :, None], DELTA_WEIGHTS)
        return self.keep_best(boxes, probabilities, proposals.scores > 0, sizes)
