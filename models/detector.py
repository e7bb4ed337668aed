"""What all detection systems have in common: what goes in, what comes out, which RoIs they are trained on.

Letters: B images, N proposals of an image, R RoIs of an image, K classes, G padded ground truths, C padded crowd
regions, D detections of an image, M mask side. Boxes are xyxy in image pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.assign import RoISample, sample_rois
from models.backbone import Backbone, Projection
from models.config import ModelConfig
from models.masks import crop_masks
from models.resnet import PyramidBackbone
from models.rpn import RPNHead, RPNOutput, propose, rpn_losses, suppress
from models.structures import Detections, GroundTruth, Proposals
from ops.boxes import clip_boxes, encode_boxes

Draw = Callable[[str, tuple[int, ...]], Tensor]
"""(name of the draw, shape) -> uniform random numbers: the caller decides what they depend on."""


class Detector(nn.Module):
    """A two-stage detector: a backbone, proposals, and what a system makes of them: `losses`, `detect`, `masks_of`.

    backbone: images [B, 3, H, W] -> features: a map [B, C, h, w], or those of a pyramid; has `stride`. Of a backbone
              fully frozen (model.freeze=all) only what follows its maps, which stand for the images everywhere.
    rpn:      trained jointly on the backbone's features; None when proposals come from elsewhere.
    settings: how many anchors, proposals and RoIs are trained on and kept (section 3.1).
    """

    backbone: Backbone | PyramidBackbone | Projection
    rpn: RPNHead | None
    settings: ModelConfig

    @property
    def predicts_masks(self) -> bool:
        return True

    def forward(
        self,
        images: Tensor,
        sizes: Tensor,
        truth: GroundTruth | None = None,
        proposals: Proposals | None = None,
        draw: Draw | None = None,
    ) -> dict[str, Tensor] | Detections:
        """Losses in training mode, detections in evaluation mode (`model.train()`, `model.eval()`).

        Args:
            images: [B, 3, H, W], normalised, padded to one size at the right and at the bottom.
            sizes: [B, 2], each image's (height, width) in pixels before padding.
            truth: the objects, for training: boxes [B, G, 4] in image pixels, labels [B, G], masks [B, G, H, W], and
                crowd regions [B, C, 4].
            proposals: boxes [B, N, 4] in image pixels and their scores [B, N]; None asks the joint RPN.
            draw: for training, the random numbers that decide which RoIs (and anchors) are sampled.

        Returns:
            In training a dictionary of scalars, whose sum is the loss: "class", "box", with masks "mask", and with a
            joint RPN "rpn_objectness" and "rpn_box".
            In evaluation `Detections`, best first: boxes [B, D, 4], xyxy in the pixels of the images that were given
            and within `sizes`; scores [B, D] in 0..1, 0 where an image has fewer than D detections; labels [B, D] in
            1..K; masks [B, D, M, M], each pixel's probability on a grid over the detection's box (`models.masks` pastes
            it into the image), or None; FCIS has `votes` in their place (`models.mask_voting`). D is what the image of
            this batch with most detections needs.

        Raises:
            ValueError: in training mode without truth or draw.
        """
        if not self.training:
            return self.detect(images, sizes, proposals)
        if truth is None or draw is None:
            raise ValueError("truth, draw: expected both in training mode, got None; call eval() first to detect")
        return self.losses(images, sizes, truth, proposals, draw)

    def losses(
        self, images: Tensor, sizes: Tensor, truth: GroundTruth, proposals: Proposals | None, draw: Draw
    ) -> dict[str, Tensor]:
        """The losses of a training step, by name; arguments and result as in `forward`."""
        raise NotImplementedError

    def detect(self, images: Tensor, sizes: Tensor, proposals: Proposals | None) -> Detections:
        """What is seen in images; arguments and result as in `forward`."""
        raise NotImplementedError

    def masks_of(self, images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Masks on given boxes [B, G, 4] of given classes [B, G] (1..K): probabilities [B, G, M, M] over the boxes."""
        raise NotImplementedError

    def training_rois(
        self, features: Any, sizes: Tensor, truth: GroundTruth, proposals: Proposals | None, draw: Draw
    ) -> tuple[RoISample, dict[str, Tensor]]:
        """The RoIs of a training step, the same in every system for the same proposals and draws; the RPN's losses."""
        losses = {}
        if proposals is None:
            output = self._rpn_output(features)
            random_keys = draw("anchors", output.scores.shape)
            losses = rpn_losses(output, truth, self.settings.anchors_per_image, random_keys)
            proposals = self.propose(output, sizes)
        random_keys = draw("rois", (len(truth.boxes), proposals.boxes.shape[1] + truth.boxes.shape[1]))
        return sample_rois(proposals, truth, self.settings, random_keys), losses

    def proposals(self, features: Any, sizes: Tensor) -> Proposals:
        """What the joint RPN proposes."""
        return self.propose(self._rpn_output(features), sizes)

    def propose(self, output: RPNOutput, sizes: Tensor) -> Proposals:
        """The same, from what the joint RPN gave."""
        return propose(output, sizes, self.settings)

    def _rpn_output(self, features: Any) -> RPNOutput:
        assert self.rpn is not None, "proposals are needed where there is no joint RPN"
        return self.rpn(features)

    def keep_best(self, boxes: Tensor, probabilities: Tensor, valid: Tensor, sizes: Tensor) -> Detections:
        """The detections, still without masks, among the boxes of each RoI and class [B, R, K, 4].

        probabilities [B, R, K]; valid [B, R]: False marks padding. Boxes are suppressed within classes. D is the
        largest number that an image of this batch needs, so that no unneeded mask is computed.
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
        num_kept = max(int(Detections(boxes, scores, labels).valid.sum(1).max()), 1)
        return Detections(boxes[:, :num_kept], scores[:, :num_kept], labels[:, :num_kept])


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
    offset = torch.arange(len(rois.boxes), device=rois.boxes.device)[:, None] * truth.masks.shape[1]
    objects = rois.positive_slots(rois.matched + offset)
    return crop_masks(truth.masks.flatten(0, 1), objects, rois.positive_slots(rois.boxes), mask_size, threshold)
