"""The task "proposals": train a proposal network alone, and count the objects that its proposals cover."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialised
from torch import Tensor

from ablations.evaluation.coco import coco_results
from ablations.evaluation.recall import recall
from ablations.records.schema import Metrics
from ablations.records.storage import write_atomically
from ablations.stages.features import network_inputs
from ablations.stages.proposals import ProposalNetwork, proposal_network, proposal_training, propose_all
from ablations.stages.store import Stages
from ablations.tasks.base import Task
from ablations.training.batches import uniform
from data.dataset import InstanceSet
from data.loaders import eval_batches
from models.rpn import RPNOutput, propose
from models.structures import Detections, Proposals

UNTRAINED = ("anchors", "grid", "random")
"""What recall is measured of besides the network's proposals: see `untrained`."""

RANDOM_BOXES = 1000
"""Random boxes of an image before suppression."""


def proposals_task(stages: Stages) -> Task:
    """The proposal network of the shared stages, trained with the run's own seed."""
    config = stages.config
    network = proposal_network(stages, config.seed)

    def evaluate(folder: Path) -> Metrics:
        images = stages.evaluated
        proposals = propose_all(network, stages, stages.split)
        tensors = serialised({"boxes": proposals.boxes, "scores": proposals.scores})
        write_atomically(folder / "proposals.safetensors", tensors)
        sets = {"recall": proposals} | {kind: untrained(network, stages, stages.split, kind) for kind in UNTRAINED}
        most = config.model.proposals
        return {kind: recall(images.coco, as_results(boxes, images), most) for kind, boxes in sets.items()}

    return Task(proposal_training(network, stages, config.seed), evaluate)


@torch.no_grad()
def untrained(network: ProposalNetwork, stages: Stages, split: str, kind: str) -> Proposals:
    """As many boxes as the network proposes, after the same suppression, but without any training.

    kind: "anchors" takes the network's anchors in random order; "grid" takes `windows`, the largest size first and in
    random order within a size; "random" takes random boxes, whose sides and ratios lie in the range of the anchors'
    """
    dataset, inputs, kept = stages.dataset(split), network_inputs(stages, split), []
    for batch in eval_batches(dataset):
        features = network.backbone(inputs(batch).images[:1])
        anchors = torch.cat(network.head.anchors([features] if isinstance(features, Tensor) else features)).cpu()
        for size, index in zip(batch.sizes, batch.indices.tolist(), strict=True):
            draw = lambda name, *shape: uniform(shape, stages.config.seed, kind, name, index)  # noqa: B023, E731
            if kind == "random":
                candidates = random_boxes(draw("boxes", RANDOM_BOXES, 4), size, anchors)
            else:
                candidates = anchors if kind == "anchors" else windows(size, anchors)
            ranks, unmoved = draw("ranks", 1, len(candidates)), torch.zeros(1, len(candidates), 4)
            if kind == "grid":  # of one size the random order remains
                sides = candidates[:, 2] - candidates[:, 0]
                ranks = (ranks + (sides[:, None] > sides).sum(1)) / len(candidates)
            kept.append(propose(RPNOutput(ranks.logit(), unmoved, [candidates]), size[None], stages.config.model))
    scores = torch.cat([best.scores for best in kept])
    return Proposals(torch.cat([best.boxes for best in kept]), scores)


def windows(size: Tensor, anchors: Tensor) -> Tensor:
    """Squares [N, 4] of each of the anchors' sizes, evenly spaced, as few as cover an image of size (height, width)."""
    boxes = []
    for side in (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt().round().unique().tolist():
        lefts, tops = (
            torch.linspace(0, max(length - side, 0), math.ceil(length / side)) for length in (size[1], size[0])
        )
        corners = torch.cartesian_prod(lefts, tops)
        boxes.append(torch.cat([corners, corners + side], dim=1))
    return torch.cat(boxes)


def random_boxes(keys: Tensor, size: Tensor, anchors: Tensor) -> Tensor:
    """Boxes [N, 4] from uniform random numbers [N, 4] in 0..1, centred anywhere in an image of size (height, width).

    The logarithms of their sides and ratios are spread evenly between the anchors' least and greatest.
    """
    widths, heights = (anchors[:, 2:] - anchors[:, :2]).log().unbind(1)
    mean, ratio = (widths + heights) / 2, heights - widths
    between = lambda values, key: values.min() + key * (values.max() - values.min())  # noqa: E731
    side, half_ratio = between(mean, keys[:, 0]), between(ratio, keys[:, 1]) / 2
    halves = torch.stack([side - half_ratio, side + half_ratio], dim=1).exp() / 2
    centres = keys[:, 2:] * size.flip(0)
    return torch.cat([centres - halves, centres + halves], dim=1)


def as_results(proposals: Proposals, dataset: InstanceSet) -> list[dict[str, Any]]:
    """Proposals [images, N, 4] of a whole dataset, in its order, as COCO results of category 1."""
    results: list[dict[str, Any]] = []
    for batch in eval_batches(dataset):
        boxes, scores = proposals.boxes[batch.indices], proposals.scores[batch.indices]
        results.extend(coco_results(Detections(boxes, scores, torch.ones(scores.shape, dtype=torch.long), None), batch))
    return results
