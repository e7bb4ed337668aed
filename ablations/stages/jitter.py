"""Proposals whose error is known: true boxes with each side moved. They separate the operator's effect from the
proposal network's.

Letters: B images, G padded ground truths, N proposals of an image. Boxes are xyxy in image pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.training.batches import uniform
from data.dataset import Batch
from models.structures import Proposals
from ops.boxes import clip_boxes


def jittered(batch: Batch, share: float, copies: int, least: int) -> Proposals:
    """Each object of a batch proposed `copies` times, each side moved either way by up to `share` of the box's size.

    The moves depend on the image's id and the object's number alone: they are the same in all arms, seeds and epochs,
    and mirrored where the image is. Boxes are clipped to the image. All proposals score 1.
    share: below 0.5, so that no box is turned inside out. least: N is at least this, padded by proposals that score 0.
    The batch must be as it was loaded: reading its ids from a GPU would wait for that GPU.
    """
    moves = torch.stack([_moves(*row, batch.labels.shape[1], copies) for row in _images(batch)])  # [B, G, copies, 4]
    widths, heights = (batch.boxes[..., 2:] - batch.boxes[..., :2]).unbind(-1)
    sizes = torch.stack([widths, heights, widths, heights], dim=-1)[:, :, None]
    boxes = (batch.boxes[:, :, None] + share * moves * sizes).flatten(1, 2)
    scores = (batch.labels > 0).to(boxes.dtype).repeat_interleave(copies, dim=1)
    boxes = clip_boxes(boxes, batch.sizes) * scores[..., None]
    missing = max(least - boxes.shape[1], 0)
    return Proposals(F.pad(boxes, (0, 0, 0, missing)), F.pad(scores, (0, missing)))


def _images(batch: Batch) -> list[tuple[int, bool, int]]:
    """Each image: its id, whether it is mirrored, and how many objects it has; they come before padding."""
    counts = (batch.labels > 0).sum(1)
    return list(zip(batch.image_ids.tolist(), batch.flipped.tolist(), counts.tolist(), strict=True))


def _moves(image_id: int, mirrored: bool, num_objects: int, num_rows: int, copies: int) -> Tensor:
    """[rows, copies, 4] within -1..1, of x1, y1, x2, y2; 0 for rows that are no objects."""
    moves = 2 * uniform((num_objects, copies, 4), 0, "jitter", image_id) - 1
    if mirrored:  # the right side becomes the left one, and left becomes right
        x1, y1, x2, y2 = moves.unbind(-1)
        moves = torch.stack([-x2, y1, -x1, y2], dim=-1)
    return F.pad(moves, (0, 0, 0, 0, 0, num_rows - num_objects))
