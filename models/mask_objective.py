"""What the mask branch's logits mean: its loss and its inference rule, which belong together (section 3, table 2b).

Letters: N RoIs, K classes, M mask side. Labels are 1..K.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import MaskRule


class MaskObjective(Protocol):
    num_channels: int

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """logits [N, num_channels, M, M], labels [N], targets [N, M, M] in {0, 1}, weights [N] (0 skips a RoI)
        -> the mean over the pixels of the RoIs that count."""
        ...

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits [N, num_channels, M, M], labels [N] -> [N, M, M]: that a pixel belongs to an object of the label."""
        ...


class SigmoidMask:
    """One independent mask per class; only the ground truth class's mask is trained, only the predicted one used.

    With `agnostic` there is a single mask for all classes.
    """

    def __init__(self, num_classes: int, agnostic: bool = False) -> None:
        self.agnostic = agnostic
        self.num_channels = 1 if agnostic else num_classes

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(self._select(logits, labels), targets, reduction="none")
        return _mean(losses, weights)

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._select(logits, labels).sigmoid()

    def _select(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.agnostic:
            return logits[:, 0]
        # Padded RoIs carry label 0: clamped to a class that exists, then weighted by 0.
        return logits[torch.arange(len(logits), device=logits.device), labels.clamp(min=1) - 1]


class SoftmaxMask:
    """Classes compete at each pixel: a softmax over background and the K classes, a multinomial loss, as in FCN.

    The paper states neither the number of channels nor the rule at test time. Ours: K + 1 channels, and a pixel
    belongs to the object when the predicted class beats its rivals, with odds of exp(own logit - rival logit):

        share       all other channels together: the class's share of the softmax is above one half
        argmax      the strongest other channel: the class comes first
        background  the background alone: the box branch has chosen among the classes already

    With `agnostic` the K classes are one and the three rules are the same.
    """

    def __init__(self, num_classes: int, agnostic: bool = False, rule: MaskRule = "share") -> None:
        self.agnostic = agnostic
        self.rule = rule
        self.num_channels = 2 if agnostic else num_classes + 1

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        channels = self._channels(labels)[:, None, None] * targets.long()  # background where the object is not
        return _mean(F.cross_entropy(logits, channels, reduction="none"), weights)

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        channels = self._channels(labels)[:, None, None, None].expand(-1, 1, *logits.shape[2:])
        own = logits.gather(1, channels)[:, 0]
        if self.rule == "background":
            return (own - logits[:, 0]).sigmoid()
        others = logits.scatter(1, channels, -torch.inf)
        return (own - (others.logsumexp(1) if self.rule == "share" else others.amax(1))).sigmoid()

    def _channels(self, labels: Tensor) -> Tensor:
        return labels.clamp(max=1) if self.agnostic else labels


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    """The mean of losses [N, M, M] over the RoIs with weight 1; 0 where there are none."""
    return (losses.mean(dim=(1, 2)) * weights).sum() / weights.sum().clamp(min=1)
