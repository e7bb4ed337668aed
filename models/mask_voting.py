"""Mask voting (MNC, FCIS section 2.3): a detection's mask is what the RoIs around it agree on.

Votes are counted on the pixels of the image, as `mask_aggregation` of FCIS's release does
(https://github.com/msracver/FCIS, lib/mask/mask_transform.py): they may fall outside the detection's box, which is
therefore replaced by the box around the voted mask.

Letters: D detections of an image, R RoIs of it, M their masks' side, H and W the image's sides. Boxes are xyxy in
image pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from models.masks import interpolation

ELEMENTS_AT_ONCE = 2**24
"""Pixels of all RoIs' masks together that are computed at a time: bounds the memory that large images take."""


@dataclass(frozen=True)
class Votes:
    """What masks are voted with; B images.

    boxes [B, R, 4]; masks [B, R, M, M], probabilities on the grids of `boxes`; weights [B, D, R], see `voting_weights`
    mask_threshold: probability from which a RoI votes for a pixel
    vote_threshold: share of the votes from which a pixel belongs to a detection's mask
    """

    boxes: Tensor
    masks: Tensor
    weights: Tensor
    mask_threshold: float
    vote_threshold: float

    def count(self, image: int, scale: Tensor, height: int, width: int) -> Tensor:
        """The masks [D, H, W], bool, of an image of this size. scale [4]: from boxes to its pixels."""
        boxes = self.boxes[image] * scale
        shares = vote(boxes, self.masks[image], self.weights[image], height, width, self.mask_threshold)
        return shares >= self.vote_threshold


def voting_weights(detections: Tensor, labels: Tensor, boxes: Tensor, probabilities: Tensor, vote_iou: float) -> Tensor:
    """The weight [B, D, R] of each RoI's vote for each detection; a detection's sum to 1, or are all 0.

    detections [B, D, 4] with labels [B, D] in 1..K; boxes [B, R, 4] with class probabilities [B, R, K], 0 for RoIs
    that pad. RoIs vote whose IoU with the detection is `vote_iou` or more, by their probability of its class.
    """
    of_class = (labels.clamp(min=1) - 1)[:, None].expand(-1, boxes.shape[1], -1)  # [B, R, D]
    votes = probabilities.gather(2, of_class).mT * (box_iou(detections, boxes) >= vote_iou)
    return votes / votes.sum(2, keepdim=True).clamp(min=torch.finfo(votes.dtype).tiny)


def vote(boxes: Tensor, masks: Tensor, weights: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """The share of a detection's votes [D, H, W] that each pixel gets.

    boxes [R, 4], masks [R, M, M], weights [D, R]. A RoI votes for the pixels in its box at whose centres its mask,
    interpolated bilinearly, reaches `threshold`.
    """
    voters = weights.any(0)
    boxes, masks, weights = boxes[voters], masks[voters], weights[:, voters]
    pixels = lambda first, end: torch.arange(first, end, device=boxes.device) + 0.5  # noqa: E731
    columns = interpolation(boxes[:, 0], boxes[:, 2], masks.shape[-1], pixels(0, width))  # [R, W, M]
    resized = masks @ columns.mT  # [R, M, W]
    shares = masks.new_empty(len(weights), height, width)
    step = max(1, ELEMENTS_AT_ONCE // max(1, len(boxes) * width))
    for first in range(0, height, step):
        end = min(first + step, height)
        rows = interpolation(boxes[:, 1], boxes[:, 3], masks.shape[-1], pixels(first, end))  # [R, rows, M]
        voted = (rows @ resized >= threshold).to(weights.dtype)  # [R, rows, W]
        shares[:, first:end] = torch.einsum("dr,rhw->dhw", weights, voted)
    return shares
