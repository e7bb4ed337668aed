"""Mask voting (MNC, FCIS section 2.3): a detection's mask is what the RoIs around it agree on.

Letters: B images, D detections of an image, R RoIs of an image, M their masks' side, S the voted masks' side,
P pairs of a detection and a RoI that votes for it. Boxes are xyxy in image pixels.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from models.masks import interpolation

PAIRS_AT_ONCE = 256
"""Of detections and RoIs: bounds what resampled masks take in memory."""


def voting_weights(detections: Tensor, labels: Tensor, boxes: Tensor, probabilities: Tensor, overlap: float) -> Tensor:
    """The weight [B, D, R] of each RoI's vote for each detection; a detection's sum to 1, or are all 0.

    detections [B, D, 4] with labels [B, D] in 1..K; boxes [B, R, 4] with class probabilities [B, R, K], 0 for RoIs
    that pad. RoIs vote whose IoU with the detection is `overlap` or more, by their probability of its class.
    """
    of_class = (labels.clamp(min=1) - 1)[:, None].expand(-1, boxes.shape[1], -1)  # [B, R, D]
    votes = probabilities.gather(2, of_class).mT * (box_iou(detections, boxes) >= overlap)
    return votes / votes.sum(2, keepdim=True).clamp(min=torch.finfo(votes.dtype).tiny)


def vote(detections: Tensor, boxes: Tensor, masks: Tensor, weights: Tensor, mask_size: int, threshold: float) -> Tensor:
    """The share of the votes [B, D, S, S] that each point of a detection's box gets.

    masks [B, R, M, M] are probabilities on the grids of `boxes`, weights [B, D, R]. A RoI votes for the points where
    its mask, interpolated bilinearly, reaches `threshold`, and for none outside its own box.
    """
    image, detection, voter = weights.nonzero(as_tuple=True)
    share = masks.new_zeros(weights.shape[0] * weights.shape[1], mask_size, mask_size)
    to = image * weights.shape[1] + detection
    for some in torch.arange(len(image), device=masks.device).split(PAIRS_AT_ONCE):
        target, source = detections[image[some], detection[some]], boxes[image[some], voter[some]]  # [P, 4]
        rows = _rows(target[:, 1::2], source[:, 1::2], mask_size, masks.shape[-1])  # [P, S, M]
        columns = _rows(target[:, ::2], source[:, ::2], mask_size, masks.shape[-1])
        inside = rows @ masks[image[some], voter[some]] @ columns.mT >= threshold
        share.index_add_(0, to[some], inside * weights[image[some], detection[some], voter[some], None, None])
    return share.unflatten(0, weights.shape[:2])


def _rows(target: Tensor, source: Tensor, mask_size: int, num_cells: int) -> Tensor:
    """Bilinear weights [P, S, M] of the cells of `source` at the centres of the cells of `target`, both [P, 2]."""
    steps = (torch.arange(mask_size, device=target.device) + 0.5) / mask_size
    points = target[:, :1] + steps * (target[:, 1:] - target[:, :1])
    return interpolation(source[:, 0], source[:, 1], num_cells, points)
