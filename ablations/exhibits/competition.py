"""How competition between classes changes masks: mask AP under each of a softmax's test rules, and where pixels go.

For the latter, boxes and classes are the true ones, so only the mask branch counts.
Letters: N objects, K classes, M mask side. Channel 0 of a softmax is the background, channels 1..K the classes.
"""

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ablations.config.study import Run
from ablations.evaluation.coco import average_precision
from ablations.exhibits import is_first_seed
from ablations.records.schema import StudyRecord
from ablations.records.storage import load_run
from ablations.stages.store import stages_of
from ablations.tasks.detection import detect, trained_model
from data.dataset import Batch
from data.loaders import eval_batches
from models.config import MaskRule
from models.mask_objective import SoftmaxMask
from models.mask_rcnn import MaskRCNN
from models.masks import crop_masks

METRICS = ("AP", "AP50", "AP75")
MILDEST = "mildest"


@dataclasses.dataclass(frozen=True)
class MaskLogits:
    """logits [N, channels, M, M] for the ground-truth boxes, and targets [N, M, M], labels, boxes [N, 4], image_ids."""

    logits: Tensor
    targets: Tensor
    labels: Tensor
    boxes: Tensor
    image_ids: Tensor

    def select(self, chosen: Tensor) -> "MaskLogits":
        return MaskLogits(*(value[chosen] for value in self.__dict__.values()))


@dataclasses.dataclass(frozen=True)
class Measured:
    """metrics: see `rule_metrics`; lost: see `lost_pixels`; objects: in the first seed, those of the sample images, the
    fields of their MaskLogits as arrays: tensors would go from process to process in shared memory."""

    metrics: dict[str, float | None]
    lost: dict[str, float]
    objects: dict[str, np.ndarray] | None


def measure_run(study: StudyRecord, run: Run) -> Measured:
    """What competition does in one run."""
    model = trained_model(run)
    assert isinstance(model, MaskRCNN), "the losses are those of Mask R-CNN's mask branch"
    objects, shown = true_box_logits(model, run), None
    if is_first_seed(run):
        sampled = objects.select(torch.isin(objects.image_ids, torch.tensor(study.sample_image_ids)))
        shown = {name: value.numpy() for name, value in sampled.__dict__.items()}
    lost = lost_pixels(objects, run.config.mask_loss.kind == "softmax")
    return Measured(rule_metrics(model, run), lost, shown)


def make(study: StudyRecord, runs: list[Run], folder: Path, measured: list[Measured]) -> dict[str, Any]:
    """What each run reaches under each rule, what objects' pixels are lost to, and one object's probabilities.

    metrics: of each run, by arm and seed, what `rule_metrics` gives; hypotheses may name them
    """
    metrics: dict[str, dict[str, Any]] = defaultdict(dict)
    lost: dict[str, dict[str, Any]] = {"softmax": {}, "sigmoid": {}}
    objects: dict[str, MaskLogits] = {}
    for run, values in zip(runs, measured, strict=True):
        kind, seed = run.config.mask_loss.kind, str(run.config.seed)
        metrics[run.arm][seed], lost[kind][seed] = values.metrics, values.lost
        if values.objects is not None:
            objects[kind] = MaskLogits(**{name: torch.tensor(value) for name, value in values.objects.items()})
    classes = list(stages_of(runs[0].config).evaluated.classes)
    return {
        "metrics": dict(metrics),
        "lost": lost,
        "seed": min(run.config.seed for run in runs),
        "object": typical(objects, classes),
    }


def rule_metrics(model: MaskRCNN, run: Run) -> dict[str, float | None]:
    """Mask AP, AP50 and AP75 of a run's weights under each test rule, "AP_share" and so on, and under the mildest.

    The mildest rule is the one with the highest AP in this run, so it may be another in another seed. A sigmoid has no
    rivals to beat: all of its values are those of the run.
    """
    own = load_run(run.folder / "run.json").metrics["segm"]
    by_rule: dict[str, dict[str, float | None]] = {
        rule: own if run.config.mask_loss.kind == "sigmoid" else ap_under(rule, model, run)
        for rule in get_args(MaskRule)
    }
    by_rule[MILDEST] = max(by_rule.values(), key=lambda values: -1.0 if values["AP"] is None else values["AP"])
    return {f"{name}_{rule}": values[name] for rule, values in by_rule.items() for name in METRICS}


def ap_under(rule: MaskRule, model: MaskRCNN, run: Run) -> dict[str, float | None]:
    """Mask AP, AP50 and AP75 of the same weights under another rule: which rivals the class must beat."""
    config = dataclasses.replace(run.config, mask_loss=dataclasses.replace(run.config.mask_loss, rule=rule))
    stages = stages_of(config)  # under torchrun the other ranks build the network from it
    classes = len(stages.evaluated.classes)
    model.mask_objective = SoftmaxMask(classes, run.config.mask_class.kind == "agnostic", rule)
    results = detect(model, stages)
    values = average_precision(stages.evaluated.coco, results, "segm")
    return {name: values[name] for name in METRICS}


@torch.no_grad()
def true_box_logits(model: MaskRCNN, run: Run) -> MaskLogits:
    """The mask branch's logits for all objects of the evaluated images, given their boxes."""
    stages = stages_of(run.config)
    batches = eval_batches(stages.evaluated)
    by_batch = [_batch_logits(model, batch.to(stages.device)) for batch in batches]
    columns = zip(*(objects.__dict__.values() for objects in by_batch), strict=True)
    return MaskLogits(*(torch.cat(column).cpu() for column in columns))


def _batch_logits(model: MaskRCNN, batch: Batch) -> MaskLogits:
    real = batch.labels.flatten() > 0
    logits = model.mask_logits(model.backbone(batch.images), batch.boxes)[real]
    boxes, labels = batch.boxes.flatten(0, 1)[real], batch.labels.flatten()[real]
    targets = crop_masks(batch.masks.flatten(0, 1), real.nonzero()[:, 0], boxes, logits.shape[-1])
    image_ids = batch.image_ids[:, None].expand_as(batch.labels).flatten()[real]
    return MaskLogits(logits, targets, labels, boxes, image_ids)


def lost_pixels(objects: MaskLogits, competing: bool) -> dict[str, float]:
    """Shares of the objects' cells, in percent: those that the mask misses, and what has the largest logit in them.

    Averaged over objects, so that all count equally.
    """
    inside = objects.targets > 0.5
    area = inside.sum((1, 2))

    def share(cells: Tensor) -> float:
        return 100 * float(((cells & inside).sum((1, 2))[area > 0] / area[area > 0]).mean())

    missed = own_probabilities(objects, competing) < 0.5
    if not competing:
        return {"left_out": share(missed)}
    leader = objects.logits.argmax(1)
    undecided = leader == objects.labels[:, None, None]
    other_class = (leader != 0) & ~undecided
    return {
        "left_out": share(missed),
        "to_background": share(missed & (leader == 0)),
        "to_classes": share(missed & other_class),
        "undecided": share(missed & undecided),
    }


def own_probabilities(objects: MaskLogits, competing: bool) -> Tensor:
    """[N, M, M]: the probability of the object's own class, as the arm computes it."""
    rows = torch.arange(len(objects.labels))
    if competing:
        return objects.logits.softmax(1)[rows, objects.labels]
    return objects.logits[rows, objects.labels - 1].sigmoid()


def typical(objects: dict[str, MaskLogits], classes: list[str]) -> dict[str, Any]:
    """The object of the sample images whose difference in mask IoU, sigmoid minus softmax, is the median of theirs."""
    softmax, sigmoid = objects["softmax"], objects["sigmoid"]
    gap = mask_iou(sigmoid, competing=False) - mask_iou(softmax, competing=True)
    chosen = int(gap.argsort(stable=True)[len(gap) // 2])
    rounded = lambda values: [[round(value, 4) for value in row] for row in values.tolist()]  # noqa: E731
    channels = ["background", *classes]
    return {
        "image_id": int(softmax.image_ids[chosen]),
        "box": [round(value, 2) for value in softmax.boxes[chosen].tolist()],
        "class": classes[int(softmax.labels[chosen]) - 1],
        "gap": float(gap[chosen]),
        "num_objects": len(gap),
        "target": rounded(softmax.targets[chosen]),
        "softmax": dict(zip(channels, map(rounded, softmax.logits[chosen].softmax(0)), strict=True)),
        "sigmoid": dict(zip(classes, map(rounded, sigmoid.logits[chosen].sigmoid()), strict=True)),
    }


def mask_iou(objects: MaskLogits, competing: bool) -> Tensor:
    """[N]: intersection over union, in cells, of each mask with its target."""
    mask, target = own_probabilities(objects, competing) >= 0.5, objects.targets > 0.5
    return (mask & target).sum((1, 2)) / (mask | target).sum((1, 2)).clamp(min=1)
