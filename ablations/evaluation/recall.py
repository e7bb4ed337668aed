"""Runs that train a proposal network alone, and their figure: the share of objects that its proposals cover.

Recall is COCO's, with classes left aside: the best N proposals of an image, each of which may cover one object only.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.cocoeval import COCOeval
from safetensors.torch import save as serialised

from ablations.config.schema import Config
from ablations.evaluation.coco import coco_results
from ablations.evaluation.cocoapi import index, quietly, with_results
from ablations.records.storage import write_atomically
from ablations.stages.make import Stages, eval_batch, proposal_losses, proposal_network, propose_all
from ablations.tasks.base import Metrics, Work
from data.dataset import InstanceSet
from data.loaders import eval_batches
from models.backbone import pretrained_parts
from models.mask_rcnn import Detections, Proposals

NUMBERS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
"""Recall is measured with so many proposals an image, as far as there are so many, and with all of them."""


def proposals_work(config: Config, stages: Stages) -> Work:
    """The proposal network of the shared stages, trained with the run's own seed."""
    network = proposal_network(stages, config.seed)

    def measure(folder: Path) -> Metrics:
        val = stages.dataset("val")
        proposals = propose_all(network, stages, "val")
        tensors = serialised({"boxes": proposals.boxes, "scores": proposals.scores})
        write_atomically(folder / "proposals.safetensors", tensors)
        return {"recall": recall(val.coco, as_results(proposals, val), config.model.proposals)}

    losses = proposal_losses(network, stages, config.seed)
    return Work(network, losses, config.budget.rpn, pretrained_parts(network), measure)


def as_results(proposals: Proposals, dataset: InstanceSet) -> list[dict[str, Any]]:
    """Proposals [images, N, 4] of a whole dataset, in its order, as COCO results of the category 1."""
    results: list[dict[str, Any]] = []
    for batch in eval_batches(dataset, eval_batch(dataset)):
        boxes, scores = proposals.boxes[batch.indices], proposals.scores[batch.indices]
        results.extend(coco_results(Detections(boxes, scores, torch.ones(scores.shape, dtype=torch.long), None), batch))
    return results


def recall(truth: dict[str, Any], results: list[dict[str, Any]], most: int) -> dict[str, float | None]:
    """Recall in points: "R50@10" at an IoU of 0.5 with the best 10 of an image, to "R95@..."; "AR@10" their average.

    truth: a COCO JSON dictionary; most: how many proposals an image has at most.
    """
    numbers = [*(number for number in NUMBERS if number < most), most]
    coco = index(truth)
    with quietly():
        evaluation = COCOeval(coco, with_results(coco, results), "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = numbers
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    table = evaluation.eval["recall"][:, 0, 0, :]  # [IoU thresholds, numbers]; -1 where there is no object
    figures: dict[str, float | None] = {}
    for column, number in enumerate(numbers):
        figures[f"AR@{number}"] = _points(table[:, column].mean())
        for row, threshold in enumerate(evaluation.params.iouThrs):
            figures[f"R{100 * threshold:.0f}@{number}"] = _points(table[row, column])
    return figures


def _points(share: np.floating) -> float | None:
    return None if share < 0 else 100 * float(share)
