"""Mask R-CNN (section 3): Faster R-CNN and, parallel to its box branch, a branch that predicts masks.

Letters: B images, R RoIs of an image, C channels, P pooled side, K classes, G padded ground truths, M mask side,
D detections of an image. Boxes are xyxy in image pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.assign import RoISample, sample_rois
from models.backbone import Trunk
from models.mask_objective import MaskObjective
from models.masks import crop_masks
from models.rpn import RPNHead, propose, rpn_losses, suppress
from ops.boxes import clip_boxes, decode_boxes, encode_boxes

# Fast R-CNN's normalisation of box targets, the inverse of their typical standard deviations.
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

RoIOperator = Callable[[Tensor, Tensor, int, float], Tensor]
"""(features [B, C, h, w], boxes [B, R, 4], P, scale of the features) -> [B * R, C, P, P]"""

Draw = Callable[[str, tuple[int, ...]], Tensor]
"""(name of the draw, shape) -> uniform random numbers: the caller decides what they depend on."""


@dataclass(frozen=True)
class GroundTruth:
    """boxes [B, G, 4], labels [B, G] (1..K, 0 pads), masks [B, G, H, W] of 0 and 1."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Proposals:
    """boxes [B, N, 4] and scores [B, N] in falling order; a score of 0 pads."""

    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Detections:
    """boxes [B, D, 4], scores [B, D] (0 pads), labels [B, D], masks [B, D, M, M] of probabilities or None."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None


@dataclass(frozen=True)
class RoISettings:
    """How many RoIs are trained on and kept (section 3.1); the last three only matter to a joint RPN."""

    pooled_size: int = 7
    rois_per_image: int = 64
    positive_fraction: float = 0.25
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100
    anchors_per_image: int = 256
    proposals_before: int = 1000
    proposals: int = 300


class MaskRCNN(nn.Module):
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

    def losses(
        self, images: Tensor, sizes: Tensor, truth: GroundTruth, proposals: Proposals | None, draw: Draw
    ) -> dict[str, Tensor]:
        """L = L_cls + L_box + L_mask of a training step, by name, and the proposal network's own when it is joint.

        images [B, 3, H, W]; sizes [B, 2] are (height, width) before padding; proposals None asks the joint RPN.
        """
        features = self.backbone(images)
        losses = {}
        if proposals is None:
            assert self.rpn is not None, "proposals are needed where there is no joint RPN"
            scores, deltas, anchors = self.rpn(features)
            keys = draw("anchors", scores.shape)
            settings = self.settings
            losses = rpn_losses(scores, deltas, anchors, truth.boxes, truth.labels, settings.anchors_per_image, keys)
            proposals = self._propose(scores, deltas, anchors, sizes)
        rois = sample_rois(
            proposals.boxes,
            proposals.scores > 0,
            truth.boxes,
            truth.labels,
            self.settings.rois_per_image,
            self.settings.positive_fraction,
            draw("rois", (len(images), proposals.boxes.shape[1] + truth.boxes.shape[1])),
        )
        x = self.pool(features, rois.boxes)  # [B * R, C, P, P]
        logits, deltas = self.box_head(x)
        losses |= self.box_losses(logits, deltas, rois, truth)
        if self.mask_head is not None:
            losses["mask"] = self.mask_loss(x, rois, truth)
        return losses

    def _propose(self, scores: Tensor, deltas: Tensor, anchors: Tensor, sizes: Tensor) -> Proposals:
        return Proposals(
            *propose(scores, deltas, anchors, sizes, self.settings.proposals_before, self.settings.proposals)
        )

    def pool(self, features: Tensor, boxes: Tensor) -> Tensor:
        """features [B, C, h, w], boxes [B, R, 4] -> what both branches see, [B * R, C, P, P]."""
        pooled = self.roi_operator(features, boxes, self.settings.pooled_size, 1 / self.backbone.stride)
        return self.shared_head(pooled)

    def box_losses(self, logits: Tensor, deltas: Tensor, rois: RoISample, truth: GroundTruth) -> dict[str, Tensor]:
        """L_cls and L_box (Fast R-CNN); logits [B * R, K + 1], deltas [B * R, K, 4]."""
        logits, deltas = logits.float(), deltas.float()  # losses are float32 under autocast too
        labels, valid, positive = rois.labels.flatten(), rois.valid.flatten(), rois.positive.flatten()
        count = valid.sum().clamp(min=1)
        classification = F.cross_entropy(logits, labels, reduction="none")
        targets = encode_boxes(
            truth.boxes.gather(1, rois.matched[..., None].expand(-1, -1, 4)), rois.boxes, DELTA_WEIGHTS
        )
        of_class = deltas[torch.arange(len(deltas), device=deltas.device), labels.clamp(min=1) - 1]  # [B * R, 4]
        box = F.smooth_l1_loss(of_class, targets.flatten(0, 1), reduction="none").sum(-1)
        # Both are divided by all RoIs, so that the balance does not depend on how many positives were drawn.
        return {
            "class": (classification * valid).sum() / count,
            "box": torch.where(positive, box, 0.0).sum() / count,
        }

    def mask_loss(self, x: Tensor, rois: RoISample, truth: GroundTruth) -> Tensor:
        """L_mask on the slots that positives are in; x [B * R, C, P, P]."""
        batch, slots = len(rois.boxes), rois.num_positive_slots
        first = lambda values: values[:, :slots].flatten(0, 1)  # noqa: E731
        assert self.mask_head is not None
        logits = self.mask_head(first(x.unflatten(0, (batch, -1)))).float()  # [B * slots, channels, M, M]
        # One row of a flat table for each RoI: selecting whole masks is far faster than indexing by two tensors.
        offset = torch.arange(batch, device=x.device)[:, None] * truth.masks.shape[1]
        masks = truth.masks.flatten(0, 1).index_select(0, first(rois.matched + offset))  # [B * slots, H, W]
        targets = crop_masks(masks, first(rois.boxes), logits.shape[-1])
        return self.mask_objective.loss(logits, first(rois.labels), targets, first(rois.positive).to(logits.dtype))

    @torch.inference_mode()
    def detect(self, images: Tensor, sizes: Tensor, proposals: Proposals | None) -> Detections:
        """Boxes first, then masks on the best ones only (section 3.1); sizes [B, 2] are (height, width)."""
        features = self.backbone(images)
        if proposals is None:
            assert self.rpn is not None, "proposals are needed where there is no joint RPN"
            scores, deltas, anchors = self.rpn(features)
            proposals = self._propose(scores, deltas, anchors, sizes)
        boxes, scores, labels = self.detect_boxes(self.pool(features, proposals.boxes), sizes, proposals)
        if self.mask_head is None:
            return Detections(boxes, scores, labels, None)
        logits = self.mask_head(self.pool(features, boxes))
        masks = self.mask_objective.probabilities(logits, labels.flatten())  # [B * D, M, M]
        return Detections(boxes, scores, labels, masks.unflatten(0, labels.shape))

    def detect_boxes(self, x: Tensor, sizes: Tensor, proposals: Proposals) -> tuple[Tensor, Tensor, Tensor]:
        """x [B * R, C, P, P] -> boxes [B, D, 4], scores and labels [B, D] after suppression within classes.

        D is the largest number that an image of this batch needs, so that no mask is computed for nothing.
        """
        logits, deltas = self.box_head(x)
        batch, num_rois = proposals.scores.shape
        probabilities = logits.softmax(-1)[:, 1:].unflatten(0, (batch, num_rois))  # [B, R, K]
        boxes = decode_boxes(deltas.unflatten(0, (batch, num_rois)), proposals.boxes[:, :, None], DELTA_WEIGHTS)
        boxes = clip_boxes(boxes.flatten(1, 2), sizes)  # [B, R * K, 4]
        candidate = (probabilities > self.settings.score_threshold) & (proposals.scores > 0)[..., None]
        scores = (probabilities * candidate).flatten(1)
        scores = scores * ((boxes[..., 2:] - boxes[..., :2]).amin(-1) > 0)
        classes = torch.arange(1, probabilities.shape[-1] + 1, device=x.device).repeat(num_rois).expand_as(scores)
        boxes, scores, labels = suppress(
            boxes, scores, classes, self.settings.nms_threshold, self.settings.detections_per_image
        )
        used = max(int((scores > 0).sum(1).max()), 1)
        return boxes[:, :used], scores[:, :used], labels[:, :used]
