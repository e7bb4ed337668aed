"""What goes into a detector and comes out of it: ground truth, proposals, detections of a batch.

Letters: B images, G padded ground truths, C padded crowd regions, N proposals of an image, D detections of an image,
H and W image side, M mask side. Boxes are xyxy in image pixels.
"""

from dataclasses import dataclass

from torch import Tensor

from models.mask_voting import Votes


@dataclass(frozen=True)
class GroundTruth:
    """boxes [B, G, 4], labels [B, G] (1..K; 0 marks padding), masks [B, G, H, W] of 0 and 1; crowds [B, C, 4]: boxes of
    crowd regions, NaN marks padding."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    crowds: Tensor


@dataclass(frozen=True)
class Proposals:
    """boxes [B, N, 4] by descending scores [B, N]; a score of 0 marks padding."""

    boxes: Tensor
    scores: Tensor

    @property
    def valid(self) -> Tensor:
        """[B, N]: False marks padding."""
        return self.scores > 0


@dataclass(frozen=True)
class Detections:
    """boxes [B, D, 4], scores [B, D] (0 marks padding), labels [B, D], masks [B, D, M, M] of probabilities or None.

    votes: in place of masks where RoIs vote on the image's pixels; the final boxes are those around the voted masks
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    votes: Votes | None = None

    @property
    def valid(self) -> Tensor:
        """[B, D]: False marks padding."""
        return self.scores > 0
