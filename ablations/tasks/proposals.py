"""The task "proposals": train a proposal network alone, and count the objects that its proposals cover."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialised

from ablations.evaluation.coco import coco_results
from ablations.evaluation.recall import recall
from ablations.records.storage import write_atomically
from ablations.stages.proposals import proposal_network, proposal_training, propose_all
from ablations.stages.store import Stages
from ablations.tasks.base import Metrics, Task
from ablations.training.batches import evaluation_batches
from data.dataset import InstanceSet
from models.detector import Detections, Proposals


def proposals_task(stages: Stages) -> Task:
    """The proposal network of the shared stages, trained with the run's own seed."""
    config = stages.config
    network = proposal_network(stages, config.seed)

    def evaluate(folder: Path) -> Metrics:
        val = stages.dataset("val")
        proposals = propose_all(network, stages, "val")
        tensors = serialised({"boxes": proposals.boxes, "scores": proposals.scores})
        write_atomically(folder / "proposals.safetensors", tensors)
        return {"recall": recall(val.coco, as_results(proposals, val), config.model.proposals)}

    return Task(proposal_training(network, stages, config.seed), evaluate)


def as_results(proposals: Proposals, dataset: InstanceSet) -> list[dict[str, Any]]:
    """Proposals [images, N, 4] of a whole dataset, in its order, as COCO results of category 1."""
    results: list[dict[str, Any]] = []
    for batch in evaluation_batches(dataset):
        boxes, scores = proposals.boxes[batch.indices], proposals.scores[batch.indices]
        results.extend(coco_results(Detections(boxes, scores, torch.ones(scores.shape, dtype=torch.long), None), batch))
    return results
