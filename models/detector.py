"""What a detection system is asked for, whichever it is: what goes in, what comes out, which RoIs it trains on.

Letters: B images, N proposals of an image, R RoIs of an image, K classes, G padded ground truths, C padded crowd
regions, D detections of an image, M mask side. Boxes are xyxy in image pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.assign import RoISample, sample_rois
from models.backbone import Trunk
from models.masks import crop_masks
from models.resnet import PyramidTrunk
from models.rpn import RPNHead, propose, rpn_losses, suppress
from ops.boxes import clip_boxes, encode_boxes

Draw = Callable[[str, tuple[int, ...]], Tensor]
"""(name of the draw, shape) -> uniform random numbers: the caller decides what they depend on."""


@dataclass(frozen=True)
class GroundTruth:
    """boxes [B, G, 4], labels [B, G] (1..K, 0 pads), masks [B, G, H, W] of 0 and 1; crowds [B, C, 4]: boxes of crowd
    regions, NaN pads."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    crowds: Tensor


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
    """How many RoIs are trained on and kept (section 3.1); the last four only matter to a joint RPN.

    slot_step: see `sample_rois`.
    """

    rois_per_image: int = 64
    positive_fraction: float = 0.25
    slot_step: int = 1
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100
    anchors_per_image: int = 256
    proposals_before: int = 1000
    proposals: int = 300
    smallest_proposal: float = 1.0


class Detector(nn.Module):
    """A two-stage detector: a trunk, proposals, and what a system makes of them. A system gives `losses` and `detect`.

    backbone: images [B, 3, H, W] -> features; has `stride`.
    rpn:      trained jointly on the backbone's features; None when proposals come from elsewhere.
    """

    backbone: Trunk | PyramidTrunk
    rpn: RPNHead | None
    settings: RoISettings

    @property
    def predicts_masks(self) -> bool:
        return True

    def losses(
        self, images: Tensor, sizes: Tensor, truth: GroundTruth, proposals: Proposals | None, draw: Draw
    ) -> dict[str, Tensor]:
        """The losses of a training step, by name, and the proposal network's own when it is joint.

        images [B, 3, H, W]; sizes [B, 2] are (height, width) before padding; proposals None asks the joint RPN.
        """
        raise NotImplementedError

    def detect(self, images: Tensor, sizes: Tensor, proposals: Proposals | None) -> Detections:
        """What is found in images [B, 3, H, W]; the arguments are those of `losses`."""
        raise NotImplementedError

    def training_rois(
        self, features: Any, sizes: Tensor, truth: GroundTruth, proposals: Proposals | None, draw: Draw
    ) -> tuple[RoISample, dict[str, Tensor]]:
        """The RoIs of a training step, the same in every system for the same proposals and draws; the RPN's losses."""
        settings, losses = self.settings, {}
        if proposals is None:
            scores, deltas, anchors = self._anchor_scores(features)
            keys = draw("anchors", scores.shape)
            objects = truth.boxes, truth.labels, truth.crowds
            losses = rpn_losses(scores, deltas, anchors, *objects, settings.anchors_per_image, keys)
            proposals = self._propose(scores, deltas, anchors, sizes)
        rois = sample_rois(
            proposals.boxes,
            proposals.scores > 0,
            truth.boxes,
            truth.labels,
            truth.crowds,
            settings.rois_per_image,
            settings.positive_fraction,
            settings.slot_step,
            draw("rois", (len(truth.boxes), proposals.boxes.shape[1] + truth.boxes.shape[1])),
        )
        return rois, losses

    def proposals(self, features: Any, sizes: Tensor) -> Proposals:
        """What the joint RPN proposes."""
        return self._propose(*self._anchor_scores(features), sizes)

    def _anchor_scores(self, features: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
        assert self.rpn is not None, "proposals are needed where there is no joint RPN"
        return self.rpn(features)

    def _propose(self, scores: Tensor, deltas: Tensor, anchors: list[Tensor], sizes: Tensor) -> Proposals:
        settings = self.settings
        count, before, smallest = settings.proposals, settings.proposals_before, settings.smallest_proposal
        return Proposals(*propose(scores, deltas, anchors, sizes, before, count, smallest))

    def keep_best(
        self, boxes: Tensor, probabilities: Tensor, valid: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The detections among the boxes of each RoI and class [B, R, K, 4], given probabilities [B, R, K].

        valid [B, R]: False pads -> boxes [B, D, 4], scores and labels [B, D] after suppression within classes, best
        first. D is the largest number that an image of this batch needs, so that no mask is computed for nothing.
        """
        boxes = clip_boxes(boxes.flatten(1, 2), sizes)  # [B, R * K, 4]
        candidate = (probabilities > self.settings.score_threshold) & valid[..., None]
        scores = (probabilities * candidate).flatten(1)
        scores = scores * ((boxes[..., 2:] - boxes[..., :2]).amin(-1) > 0)
        num_rois, num_classes = probabilities.shape[1:]
        classes = torch.arange(1, num_classes + 1, device=scores.device).repeat(num_rois).expand_as(scores)
        boxes, scores, labels = suppress(
            boxes, scores, classes, self.settings.nms_threshold, self.settings.detections_per_image
        )
        used = max(int((scores > 0).sum(1).max()), 1)
        return boxes[:, :used], scores[:, :used], labels[:, :used]


def box_losses(
    logits: Tensor, deltas: Tensor, rois: RoISample, truth: GroundTruth, weights: tuple[float, float]
) -> dict[str, Tensor]:
    """L_cls and L_box (Fast R-CNN); logits [B * R, K + 1], deltas [B * R, 4]; weights: of the deltas' targets."""
    logits, deltas = logits.float(), deltas.float()  # losses are float32 under autocast too
    labels, valid, positive = rois.labels.flatten(), rois.valid.flatten(), rois.positive.flatten()
    count = valid.sum().clamp(min=1)
    classification = F.cross_entropy(logits, labels, reduction="none")
    targets = encode_boxes(truth.boxes.gather(1, rois.matched[..., None].expand(-1, -1, 4)), rois.boxes, weights)
    box = F.smooth_l1_loss(deltas, targets.flatten(0, 1), reduction="none").sum(-1)
    # Both are divided by all RoIs, so that the balance does not depend on how many positives were drawn.
    return {
        "class": (classification * valid).sum() / count,
        "box": torch.where(positive, box, 0.0).sum() / count,
    }


def mask_targets(rois: RoISample, truth: GroundTruth, mask_size: int, threshold: float = 0.5) -> Tensor:
    """The masks that the positive slots' RoIs should get, [B * slots, M, M]: see `crop_masks`."""
    # One row of a flat table for each RoI: selecting whole masks is far faster than indexing by two tensors.
    offset = torch.arange(len(rois.boxes), device=rois.boxes.device)[:, None] * truth.masks.shape[1]
    masks = truth.masks.flatten(0, 1).index_select(0, rois.positive_slots(rois.matched + offset))
    return crop_masks(masks, rois.positive_slots(rois.boxes), mask_size, threshold)
