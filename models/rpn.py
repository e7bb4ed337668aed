"""The region proposal network (Faster R-CNN, section 3): where something is, whatever it is.

Letters: B images, C channels, A anchors at a cell, N = A * h * w anchors, G padded ground truths.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from models.assign import sample_anchors
from models.initialise import set_initial_std
from ops.boxes import clip_boxes, decode_boxes, encode_boxes

DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


class RPNHead(nn.Module):
    """A 3x3 convolution, then an objectness score and four deltas for each anchor.

    sizes: square roots of the anchors' areas in pixels; ratios: height / width.
    """

    cell_anchors: Tensor

    def __init__(self, in_channels: int, stride: int, sizes: list[float], ratios: list[float]) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        num_anchors = len(sizes) * len(ratios)
        self.objectness = nn.Conv2d(in_channels, num_anchors, 1)
        self.deltas = nn.Conv2d(in_channels, 4 * num_anchors, 1)
        set_initial_std(0.01, self.objectness, self.deltas)
        shapes = torch.tensor([(size * ratio**-0.5, size * ratio**0.5) for size in sizes for ratio in ratios])
        self.register_buffer("cell_anchors", torch.cat([-shapes, shapes], dim=1) / 2, persistent=False)  # [A, 4]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, C, h, w] -> scores [B, N] (logits), deltas [B, N, 4], anchors [N, 4] in image pixels."""
        x = F.relu(self.conv(features))
        scores = self.objectness(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
        # Boxes and losses are float32 under autocast too: bfloat16 tells positions apart by a pixel at best.
        return scores.float(), deltas.float(), self.anchors(*features.shape[-2:])

    def anchors(self, height: int, width: int) -> Tensor:
        """All anchors [h * w * A, 4] of a map, centred where its cells are: on pixels stride * i."""
        device = self.cell_anchors.device
        y = torch.arange(height, device=device) * self.stride
        x = torch.arange(width, device=device) * self.stride
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).repeat(
            1, 1, 2
        )  # [h, w, 4]: x, y, x, y
        return (centres[:, :, None] + self.cell_anchors).reshape(-1, 4)


def rpn_losses(
    scores: Tensor, deltas: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor, num_anchors: int, keys: Tensor
) -> dict[str, Tensor]:
    """Objectness and box losses over `num_anchors` sampled anchors an image; keys [B, N] decide the draw."""
    positive, negative, matched = sample_anchors(anchors, boxes, labels, num_anchors, keys)
    used = positive | negative
    objectness = F.binary_cross_entropy_with_logits(scores, positive.to(scores.dtype), reduction="none")
    targets = encode_boxes(boxes.gather(1, matched[..., None].expand(-1, -1, 4)), anchors, DELTA_WEIGHTS)
    box = F.smooth_l1_loss(deltas, targets, beta=1 / 9, reduction="none").sum(-1)
    count = used.sum().clamp(min=1)
    return {"rpn_objectness": (objectness * used).sum() / count, "rpn_box": (box * positive).sum() / count}


@torch.no_grad()
def propose(
    scores: Tensor, deltas: Tensor, anchors: Tensor, sizes: Tensor, num_before: int, num_after: int
) -> tuple[Tensor, Tensor]:
    """The best `num_after` boxes of each image after suppression at an IoU of 0.7.

    scores [B, N], deltas [B, N, 4], anchors [N, 4], sizes [B, 2] -> boxes [B, num_after, 4] and scores
    [B, num_after] (probabilities, descending); missing ones have score 0 and an empty box.
    """
    top, index = scores.sigmoid().topk(min(num_before, scores.shape[1]), dim=1)
    boxes = decode_boxes(deltas.gather(1, index[..., None].expand(-1, -1, 4)), anchors[index], DELTA_WEIGHTS)
    boxes = clip_boxes(boxes, sizes)
    top = top * ((boxes[..., 2:] - boxes[..., :2]).amin(-1) >= 1)  # narrower than a pixel is nothing to look at
    return suppress(boxes, top, torch.zeros_like(index), 0.7, num_after)[:2]


def suppress(
    boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, num_kept: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression within each class of each image, for the whole batch in one call.

    boxes [B, N, 4], scores [B, N] (0 marks what is no candidate), classes [B, N] -> the best `num_kept` boxes
    [B, num_kept, 4], scores and classes [B, num_kept], in falling order of score, padded with zeros.
    """
    candidates = scores > 0
    image = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(scores)[candidates]
    flat_boxes, flat_scores, flat_classes = boxes[candidates], scores[candidates], classes[candidates]
    kept = batched_nms(flat_boxes, flat_scores, image * (classes.max() + 1) + flat_classes, threshold)
    kept = kept[image[kept].argsort(stable=True)]  # grouped by image, still in order of score
    image = image[kept]
    counts = torch.bincount(image, minlength=len(boxes))
    rank = torch.arange(len(kept), device=boxes.device) - (counts.cumsum(0) - counts)[image]
    kept, image, rank = kept[rank < num_kept], image[rank < num_kept], rank[rank < num_kept]

    out_boxes = boxes.new_zeros(len(boxes), num_kept, 4)
    out_scores = scores.new_zeros(len(boxes), num_kept)
    out_classes = classes.new_zeros(len(boxes), num_kept)
    out_boxes[image, rank] = flat_boxes[kept]
    out_scores[image, rank] = flat_scores[kept]
    out_classes[image, rank] = flat_classes[kept]
    return out_boxes, out_scores, out_classes
