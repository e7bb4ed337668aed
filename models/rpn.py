"""The region proposal network (Faster R-CNN, section 3): where something is, whatever it is.

Letters: B images, C channels, L maps, A anchors at a cell, N anchors of all maps (A * h * w each), G padded ground
truths.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from models.assign import sample_anchors
from models.config import ModelConfig
from models.initialise import set_initial_std
from models.structures import GroundTruth, Proposals
from ops.boxes import clip_boxes, decode_boxes, encode_boxes

DELTA_WEIGHTS = (1.0, 1.0)


class RPNOutput(NamedTuple):
    """scores [B, N] (logits), deltas [B, N, 4], both float32 and of all maps one after another; anchors: map by map
    [A * h * w, 4] in image pixels."""

    scores: Tensor
    deltas: Tensor
    anchors: list[Tensor]


class RPNHead(nn.Module):
    """A 3x3 convolution, then an objectness score and four deltas for each anchor.

    strides: of the maps, one or a pyramid's, finest first; the same layers run on each.
    sizes: for each map square roots of its anchors' areas in pixels; ratios: height / width.
    whole_pixels: round anchors and their spacing to whole pixels, as torchvision does.
    """

    cell_anchors: Tensor

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        whole_pixels: bool = False,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.whole_pixels = whole_pixels
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        num_anchors = len(sizes[0]) * len(ratios)
        self.objectness = nn.Conv2d(in_channels, num_anchors, 1)
        self.deltas = nn.Conv2d(in_channels, 4 * num_anchors, 1)
        set_initial_std(0.01, self.objectness, self.deltas)
        shapes = torch.tensor(
            [[(s * r**-0.5, s * r**0.5) for s in level_sizes for r in ratios] for level_sizes in sizes]
        )
        cell_anchors = torch.cat([-shapes, shapes], dim=2) / 2  # [L, A, 4]
        self.register_buffer("cell_anchors", cell_anchors.round() if whole_pixels else cell_anchors, persistent=False)

    def forward(self, features: Tensor | list[Tensor]) -> RPNOutput:
        """features: a map [B, C, h, w], or those of a pyramid."""
        maps = [features] if isinstance(features, Tensor) else features
        hidden = [F.relu(self.conv(feature), inplace=True) for feature in maps]
        scores = [self.objectness(x).permute(0, 2, 3, 1).flatten(1) for x in hidden]
        deltas = [self.deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4) for x in hidden]
        # Boxes and losses are float32 under autocast too: bfloat16 tells positions apart by a pixel at best.
        return RPNOutput(torch.cat(scores, dim=1).float(), torch.cat(deltas, dim=1).float(), self.anchors(maps))

    def anchors(self, maps: list[Tensor]) -> list[Tensor]:
        """All anchors [A * h * w, 4] of each map, centred where its cells are: on pixels stride * i."""
        image_side = [self.strides[0] * side for side in maps[0].shape[-2:]]
        anchors = []
        for feature, stride, cell_anchors in zip(maps, self.strides, self.cell_anchors, strict=True):
            steps = [stride, stride]
            if self.whole_pixels:
                steps = [whole // side for whole, side in zip(image_side, feature.shape[-2:], strict=True)]
            sides = zip(feature.shape[-2:], steps, strict=True)
            y, x = (torch.arange(side, device=feature.device) * step for side, step in sides)
            centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).repeat(1, 1, 2)  # x, y, x, y
            anchors.append((centres[:, :, None] + cell_anchors).reshape(-1, 4))
        return anchors


def rpn_losses(output: RPNOutput, truth: GroundTruth, num_anchors: int, random_keys: Tensor) -> dict[str, Tensor]:
    """Objectness and box losses over `num_anchors` sampled anchors per image; random_keys [B, N] decide the draw."""
    scores, deltas, anchors = output.scores, output.deltas, torch.cat(output.anchors)
    positive, negative, matched = sample_anchors(anchors, truth, num_anchors, random_keys)
    sampled = positive | negative
    objectness = F.binary_cross_entropy_with_logits(scores, positive.to(scores.dtype), reduction="none")
    targets = encode_boxes(truth.boxes.gather(1, matched[..., None].expand(-1, -1, 4)), anchors, DELTA_WEIGHTS)
    box = F.smooth_l1_loss(deltas, targets, beta=1 / 9, reduction="none").sum(-1)
    count = sampled.sum().clamp(min=1)
    return {"rpn_objectness": (objectness * sampled).sum() / count, "rpn_box": (box * positive).sum() / count}


@torch.no_grad()
def propose(output: RPNOutput, sizes: Tensor, settings: ModelConfig) -> Proposals:
    """Each image's best boxes, `settings.proposals` of them, after suppression at an IoU of 0.7 within each map.

    sizes [B, 2]: each image's (height, width). Of each map the best `proposals_before` take part, without those whose
    width or height is below `smallest_proposal` pixels. Scores are probabilities; missing boxes are empty.
    """
    counts = [len(level_anchors) for level_anchors in output.anchors]
    boxes, top_scores, levels = [], [], []
    by_level = zip(output.scores.split(counts, 1), output.deltas.split(counts, 1), output.anchors, strict=True)
    for level, (level_scores, level_deltas, level_anchors) in enumerate(by_level):
        top, index = level_scores.sigmoid().topk(min(settings.proposals_before, level_scores.shape[1]), dim=1)
        top_deltas = level_deltas.gather(1, index[..., None].expand(-1, -1, 4))
        proposed = clip_boxes(decode_boxes(top_deltas, level_anchors[index], DELTA_WEIGHTS), sizes)
        boxes.append(proposed)
        top_scores.append(top * ((proposed[..., 2:] - proposed[..., :2]).amin(-1) >= settings.smallest_proposal))
        levels.append(torch.full_like(index, level))
    all_boxes, all_scores = torch.cat(boxes, dim=1), torch.cat(top_scores, dim=1)
    return Proposals(*suppress(all_boxes, all_scores, torch.cat(levels, dim=1), 0.7, settings.proposals)[:2])


def suppress(
    boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, num_kept: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression within each class of each image, for the whole batch in one call.

    boxes [B, N, 4], scores [B, N] (0 marks padding), classes [B, N] -> the best `num_kept` boxes
    [B, num_kept, 4], scores and classes [B, num_kept], by descending score, padded with zeros.
    """
    valid = scores > 0
    image, index = valid.nonzero().unbind(1)
    flat_boxes, flat_scores, flat_classes = boxes[image, index], scores[image, index], classes[image, index]
    kept = batched_nms(flat_boxes, flat_scores, image * (classes.max() + 1) + flat_classes, threshold)
    kept = kept[image[kept].argsort(stable=True)]  # grouped by image, still in order of score
    image = image[kept]
    counts = (image == torch.arange(len(boxes), device=boxes.device)[:, None]).sum(1)
    rank = torch.arange(len(kept), device=boxes.device) - (counts.cumsum(0) - counts)[image]
    rank = rank.clamp(max=num_kept)  # a place behind those that are returned, for all others

    def scatter_by_image(values: Tensor, flat: Tensor) -> Tensor:
        out = values.new_zeros(len(values), num_kept + 1, *values.shape[2:])
        out[image, rank] = flat[kept]
        return out[:, :num_kept]

    return (
        scatter_by_image(boxes, flat_boxes),
        scatter_by_image(scores, flat_scores),
        scatter_by_image(classes, flat_classes),
    )
