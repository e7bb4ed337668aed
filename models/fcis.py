"""FCIS (Li et al. 2017): instance masks and classes read together from score maps that all RoIs share.

There is a map for each class, for each of k x k parts of an object, and for either "inside the object" or "in its box
but outside it". A RoI assembles its own from the parts where they lie, and no network follows: what tells apart two
objects that share a pixel is only which part of either box the pixel is in.

Letters: B images, R RoIs of an image, N RoIs in all, C channels, k parts along an axis, K classes, M cells along an
axis of a RoI (also its mask's side), D detections of an image. Boxes are xyxy in image pixels.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.assign import RoISample
from models.backbone import Backbone, Projection
from models.config import FCISConfig, ModelConfig
from models.detector import Detector, Draw, box_losses, mask_targets
from models.heads import ConvHead
from models.initialise import set_initial_std
from models.mask_voting import Votes, voting_weights
from models.rpn import RPNHead
from models.structures import Detections, GroundTruth, Proposals
from ops.boxes import clip_boxes, decode_boxes
from ops.ps_roi import ps_roi_pool

# The release divides box targets by (0.2, 0.2, 0.5, 0.5).
DELTA_WEIGHTS = (5.0, 2.0)


class Pooled(NamedTuple):
    """What a RoI reads: scores [N, K + 1, 2, M, M] (background first; outside, inside) and deltas [N, 4]."""

    scores: Tensor
    deltas: Tensor


class FCIS(Detector):
    """backbone and rpn are as in Detector.

    head: [B, C, h, w] -> [B, C', h, w], what is computed before the maps.
    maps: 2 (K + 1) k * k score maps, then 4 k * k box maps: boxes are class-agnostic. (The release has a second set
          of box maps for the background, which nothing trains or reads.)
    """

    def __init__(
        self,
        backbone: Backbone | Projection,
        head: ConvHead,
        num_classes: int,
        settings: ModelConfig,
        fcis: FCISConfig,
        rpn: RPNHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.maps = nn.Conv2d(head.out_channels, (2 * (num_classes + 1) + 4) * fcis.parts**2, 1)
        set_initial_std(0.01, self.maps)
        self.settings = settings
        self.fcis = fcis
        self.rpn = rpn

    def pool(self, maps: Tensor, boxes: Tensor) -> Pooled:
        """maps [B, (2 (K + 1) + 4) k * k, h, w], boxes [B, R, 4] -> what each RoI reads, N = B * R."""
        pooled = ps_roi_pool(maps.float(), boxes, self.fcis.cells, self.fcis.parts, 1 / self.backbone.stride)
        return Pooled(pooled[:, :-4].unflatten(1, (-1, 2)), pooled[:, -4:].mean((2, 3)))

    def losses(
        self, images: Tensor, sizes: Tensor, truth: GroundTruth, proposals: Proposals | None, draw: Draw
    ) -> dict[str, Tensor]:
        """L_cls, L_box and L_mask with their weights."""
        features = self.backbone(images)
        rois, losses = self.training_rois(features, sizes, truth, proposals, draw)
        scores, deltas = self.pool(self.maps(self.head(features)), rois.boxes)
        unweighted = box_losses(class_logits(scores), deltas, rois, truth, DELTA_WEIGHTS)
        losses["class"] = self.fcis.class_weight * unweighted["class"]
        losses["box"] = self.fcis.box_weight * unweighted["box"]
        losses["mask"] = self.fcis.mask_weight * self.mask_loss(scores, rois, truth)
        return losses

    def mask_loss(self, scores: Tensor, rois: RoISample, truth: GroundTruth) -> Tensor:
        """Cross-entropy of inside against outside in the ground-truth class's maps, on the positive RoIs."""
        positive_scores = rois.positive_slots(scores.unflatten(0, rois.labels.shape))
        logits = mask_logits(positive_scores, rois.positive_slots(rois.labels))
        targets = mask_targets(rois, truth, self.fcis.cells, self.fcis.target_threshold)
        weights = rois.positive_slots(rois.positive).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
        return (losses * weights).sum() / weights.sum().clamp(min=1)

    @torch.inference_mode()
    def detect(self, images: Tensor, sizes: Tensor, proposals: Proposals | None) -> Detections:
        """The proposals and the same once refined compete as they are; masks by voting (FCIS section 2.3).

        Masks and final boxes depend on the size of the image that they are drawn in, so they come as `votes`.
        """
        features = self.backbone(images)
        proposals = self.proposals(features, sizes) if proposals is None else proposals
        maps = self.maps(self.head(features))
        first = self.pool(maps, proposals.boxes)
        refined = decode_boxes(first.deltas.unflatten(0, proposals.scores.shape), proposals.boxes, DELTA_WEIGHTS)
        refined = clip_boxes(refined, sizes)
        second = self.pool(maps, refined)

        boxes = torch.cat([proposals.boxes, refined], dim=1)  # [B, 2 R, 4]
        valid = proposals.valid.repeat(1, 2)
        read = [self.read(pooled.scores, proposals.scores.shape) for pooled in (first, second)]
        probabilities = torch.cat([classes for classes, _ in read], dim=1)  # [B, 2 R, K]
        masks = torch.cat([inside for _, inside in read], dim=1)  # [B, 2 R, M, M]
        num_classes = probabilities.shape[-1]
        kept = self.keep_best(boxes[:, :, None].expand(-1, -1, num_classes, -1), probabilities, valid, sizes)
        votes = probabilities * valid[..., None]
        weights = voting_weights(kept.boxes, kept.labels, boxes, votes, self.fcis.vote_iou) * kept.valid[..., None]
        threshold = self.fcis.vote_threshold
        return replace(kept, votes=Votes(boxes, masks, weights, threshold, threshold))

    @torch.inference_mode()
    def masks_of(self, images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """What each box reads in the maps of its own class, by itself; arguments and result as in `Detector.masks_of`.

        Nothing is voted on: voting lets boxes around a detection make up for its own being wrong, and these are given.
        """
        scores = self.pool(self.maps(self.head(self.backbone(images))), boxes).scores
        return mask_logits(scores, labels.flatten()).sigmoid().unflatten(0, labels.shape)

    def read(self, scores: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """scores [N, K + 1, 2, M, M] -> probabilities of the K classes [B, R, K], and of being inside [B, R, M, M].

        A RoI has one mask, of the class that it most likely is of; shape is (B, R).
        """
        probabilities = class_logits(scores).softmax(-1)[:, 1:]
        masks = mask_logits(scores, probabilities.argmax(-1) + 1).sigmoid()
        return probabilities.unflatten(0, shape), masks.unflatten(0, shape)


def class_logits(scores: Tensor) -> Tensor:
    """A class is present in a cell whether it is inside or outside: the mean over cells of the greater score.

    scores [N, K + 1, 2, M, M] -> [N, K + 1].
    """
    outside, inside = scores.unbind(2)
    # torch.maximum takes three times as long to differentiate
    return (outside + F.relu(inside - outside)).mean((-2, -1))


def mask_logits(scores: Tensor, labels: Tensor) -> Tensor:
    """The log odds of inside against outside, a softmax of two, in the labels' maps: [N, M, M].

    scores [N, K + 1, 2, M, M], labels [N] (0 marks padding and reads the background's).
    """
    chosen = scores[torch.arange(len(scores), device=scores.device), labels]  # [N, 2, M, M]
    return chosen[:, 1] - chosen[:, 0]
