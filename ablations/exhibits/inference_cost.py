"""What the mask branch costs at test time: parameters, arithmetic, and time per image with and without masks.

Section 3.1 of the paper computes masks for the best boxes only. Here the same trained weights detect without masks,
with masks by that rule, and with a mask for every proposal, beside the arms without a mask branch. Times depend on the
machine and on what else runs on it; everything else is reproducible.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ablations.config.study import Run
from ablations.records.schema import StudyRecord
from ablations.stages.proposals import proposal_source
from ablations.stages.store import Stages, stages_of
from ablations.tasks.detection import trained_model
from data.dataset import Batch
from data.loaders import eval_batches
from models.mask_rcnn import MaskRCNN
from models.structures import Proposals

IMAGES = 100
"""Number of evaluated images that are timed for each seed, one at a time, as the paper's times are per image."""

WARM_UP = 5

Detect = Callable[[MaskRCNN, Batch, Proposals], int]
"""Detects on one image and returns how many masks were computed for it."""


@dataclass(frozen=True)
class Variant:
    """One way to detect with an arm's weights."""

    arm: str
    name: str
    model: MaskRCNN
    detect: Detect


@torch.inference_mode()
def without_masks(model: MaskRCNN, batch: Batch, proposals: Proposals) -> int:
    features = model.backbone(batch.images)
    model.detect_boxes(model.box_features(features, proposals.boxes), batch.sizes, proposals)
    return 0


@torch.inference_mode()
def with_best_masks(model: MaskRCNN, batch: Batch, proposals: Proposals) -> int:
    """As detectors do: masks of the boxes that remain after suppression, at most `detections_per_image`."""
    masks = model(batch.images, batch.sizes, proposals=proposals).masks
    assert masks is not None
    return masks.shape[1]


@torch.inference_mode()
def with_all_masks(model: MaskRCNN, batch: Batch, proposals: Proposals) -> int:
    """A mask for every proposal, pooled from its own RoI: what inference would compute without the rule."""
    features = model.backbone(batch.images)
    model.detect_boxes(model.box_features(features, proposals.boxes), batch.sizes, proposals)
    labels = torch.ones(proposals.scores.shape, dtype=torch.long, device=batch.images.device)
    model.mask_objective.probabilities(model.mask_logits(features, proposals.boxes), labels.flatten())
    return labels.shape[1]


MASKS: dict[str, Detect] = {"none": without_masks, "best": with_best_masks, "all": with_all_masks}


def make(study: StudyRecord, runs: list[Run], folder: Path) -> dict[str, Any]:
    """Measures every seed's networks on the first evaluated images, image by image in turn, in one process.

    metrics: of each run with masks, by arm and seed, what `added_by_masks` gives; all else is of the first seed
    """
    seeds = sorted({run.config.seed for run in runs})
    measured = {seed: measure_seed([run for run in runs if run.config.seed == seed]) for seed in seeds}
    metrics: dict[str, dict[str, Any]] = {}
    for seed, content in measured.items():
        for arm in (variant["arm"] for variant in content["variants"] if variant["masks"] == "best"):
            metrics.setdefault(arm, {})[str(seed)] = added_by_masks(content, arm)
    return {"seed": seeds[0], "metrics": metrics} | measured[seeds[0]]


def measure_seed(runs: list[Run]) -> dict[str, Any]:
    """Parameters, arithmetic and times of the networks of one seed, an arm each."""
    models: dict[str, MaskRCNN] = {}
    for run in runs:
        model = trained_model(run)
        assert isinstance(model, MaskRCNN) and model.rpn is None, "expected Mask R-CNN without an RPN"
        models[run.arm] = model
    variants = [
        Variant(arm, name, model, detect)
        for arm, model in models.items()
        for name, detect in MASKS.items()
        if name == "none" or model.predicts_masks
    ]
    stages = stages_of(runs[0].config)
    masks, seconds = measure(variants, stages)
    batch = next(iter(eval_batches(stages.evaluated, 1)))
    proposals = proposal_source(stages, stages.split)(batch)
    assert proposals is not None
    batch = batch.to(stages.device)
    return {
        "num_images": len(seconds[0]),
        "num_proposals": proposals.boxes.shape[1],
        "most_boxes": runs[0].config.model.detections_per_image,
        "device": str(stages.device),
        "threads": torch.get_num_threads(),
        "parameters": {
            arm: {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
            for arm, model in models.items()
        },
        "flops": {arm: arithmetic(model, batch, proposals) for arm, model in models.items()},
        "variants": [
            {
                "arm": variant.arm,
                "masks": variant.name,
                "masks_per_image": statistics.fmean(counts),
                "milliseconds": [round(1000 * value, 3) for value in times],
            }
            for variant, counts, times in zip(variants, masks, seconds, strict=True)
        ],
    }


def added_by_masks(content: dict[str, Any], arm: str) -> dict[str, float]:
    """What masks of the best boxes add to the same network without masks, in percent of that.

    parameters_added; multiply_adds_added: with as many masks as an image has on average; time_added: the median over
    images of the ratio of two times measured one after the other
    """
    none, best = (
        next(item for item in content["variants"] if (item["arm"], item["masks"]) == (arm, name))
        for name in ("none", "best")
    )
    parameters, flops = content["parameters"][arm], content["flops"][arm]
    ratios = [
        with_masks / without for with_masks, without in zip(best["milliseconds"], none["milliseconds"], strict=True)
    ]
    mask_parameters = parameters["mask_head"]
    return {
        "parameters_added": 100 * mask_parameters / (sum(parameters.values()) - mask_parameters),
        "multiply_adds_added": 100 * best["masks_per_image"] * flops["per_mask"] / flops["without_masks"],
        "time_added": 100 * (statistics.median(ratios) - 1),
    }


def measure(variants: list[Variant], stages: Stages) -> tuple[list[list[int]], list[list[float]]]:
    """Number of masks and seconds of each variant on each image. Variants take turns in being first."""
    propose = proposal_source(stages, stages.split)
    masks: list[list[int]] = [[] for _ in variants]
    seconds: list[list[float]] = [[] for _ in variants]
    for index, batch in enumerate(eval_batches(stages.evaluated, 1)):
        if index == IMAGES:
            break
        proposals = propose(batch)
        assert proposals is not None
        batch = batch.to(stages.device)
        for turn in range(len(variants)):
            chosen = (index + turn) % len(variants)
            variant = variants[chosen]
            for _ in range(WARM_UP if index == 0 else 0):
                variant.detect(variant.model, batch, proposals)
            _synchronize(stages.device)
            began = time.perf_counter()
            count = variant.detect(variant.model, batch, proposals)
            _synchronize(stages.device)
            seconds[chosen].append(time.perf_counter() - began)
            masks[chosen].append(count)
    return masks, seconds


def arithmetic(model: MaskRCNN, batch: Batch, proposals: Proposals) -> dict[str, float]:
    """Floating-point operations of one image without masks, and of each additional mask.

    They are those of the convolutions and matrix products in the networks' layers; a multiply-add is two. The RoI
    operator is not counted: its number of operations depends on the implementation.
    """
    boxes = _flops(lambda: without_masks(model, batch, proposals))
    if not model.predicts_masks:
        return {"without_masks": boxes}
    counts: list[int] = []
    boxes_and_masks = _flops(lambda: counts.append(with_all_masks(model, batch, proposals)))
    return {"without_masks": boxes, "per_mask": (boxes_and_masks - boxes) / counts[0]}


def _flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    by_module = counter.get_flop_counts()
    return sum(sum(by_module[name].values()) for name in by_module if name != "Global" and "." not in name)


def _synchronize(device: torch.device) -> None:
    """Waits for the GPU: when a call returns, its work is only launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
