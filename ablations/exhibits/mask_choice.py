"""What class-specific masks owe to the classifier's choice among them: the same networks with other choices.

Detections keep their boxes, classes and scores; only the mask comes from another channel of the mask branch. Letters: N
detections, K classes, M mask side.
"""

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablations.config.study import Run
from ablations.evaluation.coco import average_precision
from ablations.exhibits.competition import true_box_logits
from ablations.records.schema import StudyRecord
from ablations.records.storage import load_run
from ablations.stages.features import network_inputs
from ablations.stages.proposals import proposal_source
from ablations.stages.store import stages_of
from ablations.tasks.detection import results_of, trained_model
from data.loaders import eval_batches
from models.mask_objective import SigmoidMask
from models.mask_rcnn import MaskRCNN


class OwnChoice(SigmoidMask):
    """The mask of the class whose mask is surest of itself, whatever the classifier says."""

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().probabilities(logits, surest(logits))


class NextClass(SigmoidMask):
    """The mask of a class that the object is not of: the one after its own."""

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().probabilities(logits, labels % self.num_channels + 1)


def surest(logits: Tensor) -> Tensor:
    """[N, K, M, M] -> [N], 1..K: the class with the greatest maskness, which is the mean probability of the cells that
    its mask takes (SOLO, https://arxiv.org/abs/1912.04488); a mask that takes none has 0."""
    probabilities = logits.sigmoid()
    taken = probabilities > 0.5
    maskness = (probabilities * taken).sum((2, 3)) / taken.sum((2, 3)).clamp(min=1)
    return maskness.argmax(1) + 1


Measured = dict[str, float | None]


def measure_run(study: StudyRecord, run: Run) -> Measured | None:
    """What `choice_metrics` gives for a run with a mask for each class, None for others."""
    return choice_metrics(run) if run.config.mask_class.kind == "specific" else None


def make(study: StudyRecord, runs: list[Run], folder: Path, measured: list[Measured | None]) -> dict[str, Any]:
    """metrics: of each run with a mask for each class, by arm and seed, what `choice_metrics` gives."""
    metrics: dict[str, dict[str, Measured]] = defaultdict(dict)
    for run, values in zip(runs, measured, strict=True):
        if values is not None:
            metrics[run.arm][str(run.config.seed)] = values
    return {"metrics": dict(metrics)}


def choice_metrics(run: Run) -> Measured:
    """Mask AP if the classifier chooses, as in the run, if the mask branch does, and with a wrong class's mask.

    agreement: percent of all objects for which the mask branch, given their true boxes, chooses their own class
    """
    model = trained_model(run)
    assert isinstance(model, MaskRCNN), "expected a mask branch that predicts a mask for each class"
    objects = true_box_logits(model, run)
    agreed = (surest(objects.logits) == objects.labels).double()
    return {
        "AP_classifier": load_run(run.folder / "run.json").metrics["segm"]["AP"],
        "AP_own": ap_with(OwnChoice(model.mask_objective.num_channels), model, run),
        "AP_other": ap_with(NextClass(model.mask_objective.num_channels), model, run),
        "agreement": 100 * float(agreed.mean()) if len(agreed) else None,
    }


@torch.no_grad()
def ap_with(objective: SigmoidMask, model: MaskRCNN, run: Run) -> float | None:
    """Mask AP of the same weights if `objective` chooses the channel."""
    stages = stages_of(run.config)
    model.mask_objective = objective
    propose, inputs = proposal_source(stages, stages.split), network_inputs(stages, stages.split)
    by_batch = results_of(model, eval_batches(stages.samples(stages.split)), propose, inputs)
    return average_precision(stages.evaluated.coco, list(itertools.chain.from_iterable(by_batch)), "segm")["AP"]
