"""Which box is which object, and which boxes are trained on: matching and sampling, whole batches at a time.

Letters: B images, N candidate boxes (anchors or proposals), G padded ground truths, C padded crowd regions, R sampled
RoIs.
Ground truths are padded to G with label 0. A crowd region is many objects under one outline: what lies in one may well
be an object, so it is trained on neither as an object nor as background.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from models.config import ModelConfig
from models.structures import GroundTruth, Proposals

CROWD_SHARE = 0.7
"""A candidate lies in a crowd region when this share of its area does."""


@dataclass(frozen=True)
class RoISample:
    """The RoIs of a training step, positives first.

    boxes [B, R, 4]; valid [B, R] (False marks padding, in an image with too few candidates);
    positive [B, R], only within the first `num_positive_slots` of each image;
    matched [B, R]: index of the ground truth with the greatest IoU with each RoI; labels [B, R]: its class, 0 for
    negatives.
    """

    boxes: Tensor
    valid: Tensor
    positive: Tensor
    matched: Tensor
    labels: Tensor
    num_positive_slots: int

    def positive_slots(self, values: Tensor) -> Tensor:
        """What of values [B, R, ...] belongs to the slots that positives are in: [B * slots, ...]."""
        return values[:, : self.num_positive_slots].flatten(0, 1)


def match(candidates: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each candidate's best ground truth.

    candidates [B, N, 4], boxes [B, G, 4], labels [B, G] -> ious [B, N] (0 without ground truth),
    indices [B, N], and the full table [B, N, G], which is 0 for padded ground truths.
    """
    table = box_iou(candidates, boxes) * (labels > 0)[:, None]  # [B, N, G]
    table = table.nan_to_num()  # two boxes without area: 0 / 0
    ious, indices = table.max(dim=2)
    return ious, indices, table


def in_crowd(candidates: Tensor, crowds: Tensor) -> Tensor:
    """[B, N]: whether a candidate [B, N, 4] lies in the box of a crowd region among crowds [B, C, 4], NaN where padded.

    Most images have none: with C = 0 this costs nothing.
    """
    corner = torch.maximum(candidates[:, :, None, :2], crowds[:, None, :, :2])
    opposite = torch.minimum(candidates[:, :, None, 2:], crowds[:, None, :, 2:])
    shared = (opposite - corner).clamp(min=0).prod(-1)  # [B, N, C]
    area = (candidates[..., 2:] - candidates[..., :2]).prod(-1)[..., None]
    return (shared >= CROWD_SHARE * area).any(dim=2)


def sample_rois(proposals: Proposals, truth: GroundTruth, settings: ModelConfig, random_keys: Tensor) -> RoISample:
    """Draws each image's `rois_per_image` RoIs from its proposals and its ground truth boxes (section 3.1).

    A RoI is positive when its IoU with an object is 0.5 or more; at most `positive_fraction` of them are.
    Another in a crowd region is not drawn.
    random_keys [B, N + G]: uniform in [0, 1), they decide the draw, so that the same keys draw the same in every arm.
    """
    candidates = torch.cat([proposals.boxes, truth.boxes], dim=1)
    valid = torch.cat([proposals.valid, truth.labels > 0], dim=1)
    ious, matched, _ = match(candidates, truth.boxes, truth.labels)
    positive = valid & (ious >= 0.5)
    negative = valid & ~positive & ~in_crowd(candidates, truth.crowds)

    slots, slot_step = int(settings.rois_per_image * settings.positive_fraction), settings.slot_step
    if positive.device.type == "cpu":  # a GPU would have to be waited for; here what no positive needs costs time
        most = int(positive.sum(dim=1).max())
        slots = min(slots, max(-(-most // slot_step), 1) * slot_step)
    # A positive's rank among its image's positives, in the order of the keys: the first `slots` are kept.
    order = (random_keys + ~positive).argsort(dim=1).argsort(dim=1)
    chosen = positive & (order < slots)
    priority = random_keys + 2.0 * chosen + 1.0 * negative  # chosen positives, then negatives, then the rest
    top, index = priority.topk(settings.rois_per_image, dim=1)

    pick = lambda values: values.gather(1, index)  # noqa: E731
    chosen = pick(chosen)
    matched = pick(matched)
    return RoISample(
        boxes=candidates.gather(1, index[..., None].expand(-1, -1, 4)),
        valid=top >= 1.0,
        positive=chosen,
        matched=matched,
        labels=truth.labels.gather(1, matched) * chosen,
        num_positive_slots=slots,
    )


def sample_anchors(
    anchors: Tensor, truth: GroundTruth, num_anchors: int, random_keys: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The anchors that a step of the proposal network is trained on (Faster R-CNN, section 3.1.2).

    anchors [N, 4], random_keys [B, N] as in `sample_rois` -> positive [B, N], negative [B, N], matched [B, N].
    Positive: an IoU of 0.7 or more with an object, or the highest of all anchors for some object; negative: below 0.3
    and not in a crowd region.
    At most half of `num_anchors` are positive; negatives fill up the rest.
    """
    anchors = anchors.expand(len(truth.boxes), -1, -1)
    ious, matched, table = match(anchors, truth.boxes, truth.labels)
    best = table.amax(dim=1, keepdim=True)  # [B, 1, G]: what the best anchor of each object reaches
    is_best = ((table == best) & (table > 0)).any(dim=2)
    positive = is_best | (ious >= 0.7)
    negative = ~positive & (ious < 0.3) & ~in_crowd(anchors, truth.crowds)

    positive = _first(positive, random_keys, torch.full_like(matched[:, :1], num_anchors // 2), num_anchors)
    negative = _first(negative, random_keys, num_anchors - positive.sum(dim=1, keepdim=True), num_anchors)
    return positive, negative, matched


def _first(members: Tensor, random_keys: Tensor, count: Tensor, at_most: int) -> Tensor:
    """The `count` [B, 1], at most `at_most`, of the members [B, N] with the lowest keys."""
    ranked, index = (random_keys + ~members).topk(min(at_most, members.shape[1]), dim=1, largest=False)
    chosen = (ranked < 1) & (torch.arange(ranked.shape[1], device=members.device) < count)
    return torch.zeros_like(members).scatter(1, index, chosen)
