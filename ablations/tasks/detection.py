"""The task "detection": train a detector, and evaluate its boxes and masks."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ablations.config.study import Run
from ablations.evaluation.coco import average_precision, coco_results
from ablations.evaluation.overlap import overlap_metrics
from ablations.evaluation.true_boxes import true_box_masks
from ablations.records.schema import TRUE_BOXES, WEIGHTS, Metrics
from ablations.records.storage import result_file, write_atomically
from ablations.stages.features import network_inputs
from ablations.stages.proposals import proposal_source
from ablations.stages.store import Stages, stages_of
from ablations.tasks.base import Task
from ablations.training import distributed
from ablations.training.batches import MicroBatches
from ablations.training.device import compile_parts
from ablations.training.loop import TrainingSpec
from ablations.training.stopping import check_stop
from data.dataset import Batch, to_device
from data.loaders import eval_batches
from models.backbone import load_pretrained, pretrained_parts
from models.build import build_detector, serving_backends
from models.detector import Detector
from models.initialise import initialise
from models.structures import GroundTruth, Proposals


def detection_task(stages: Stages) -> Task:
    """A detector on given proposals, or with an RPN of its own. Its metrics are COCO's AP, and this
    project's own measures of how overlap hurts masks."""
    model = build_model(stages)

    def evaluate(folder: Path) -> Metrics:
        results = detect(model, stages)
        write_atomically(folder / "detections.json", json.dumps(results))
        truth = stages.evaluated.coco
        metrics = {"bbox": average_precision(truth, results, "bbox")}
        if model.predicts_masks:
            metrics |= {"segm": average_precision(truth, results, "segm"), "overlap": overlap_metrics(truth, results)}
            batches = map(network_inputs(stages, stages.split), eval_batches(stages.samples(stages.split)))
            masks = true_box_masks(model, batches)
            write_atomically(folder / TRUE_BOXES, json.dumps(masks.by_object()))
            metrics |= masks.tables(stages.config.stride)
        return metrics

    operators = serving_backends(stages.config.detector, stages.device)
    return Task(detection_training(model, stages), evaluate, operators)


def build_model(stages: Stages) -> Detector:
    """The arm's network: pretrained backbone, and heads whose first weights depend only on the seed and their names."""
    config = stages.config
    model = build_detector(config.detector, len(stages.dataset("train").classes))
    initialise(model, config.seed)
    load_pretrained(model, stages.backbone())
    if config.compile:
        compile_parts(model)
    return model.to(stages.device).to(memory_format=torch.channels_last).train()


def trained_model(run: Run) -> Detector:
    """A finished run's network as its training left it, ready to detect."""
    model = build_model(stages_of(run.config))
    model.load_state_dict(load_file(result_file(run.folder, WEIGHTS)))
    return model.eval()


def detection_training(model: Detector, stages: Stages) -> TrainingSpec:
    """The model's training, with the same images, mirroring, proposals and random numbers in all arms of a seed."""
    config, device = stages.config, stages.device
    propose, inputs = proposal_source(stages, "train"), network_inputs(stages, "train")
    batches = MicroBatches(stages.samples("train"), config.budget.train, config.seed, config.seed)

    def losses(step: int, micro_batch: int) -> dict[str, Tensor]:
        batch = batches.batch(step, micro_batch)
        proposals, batch = propose(batch), inputs(batch)
        truth = GroundTruth(batch.boxes, batch.labels, batch.masks, batch.crowds)
        draw = lambda name, shape: to_device(batches.uniform(shape, name, step, micro_batch), device)  # noqa: E731
        return model(batch.images, batch.sizes, truth, proposals, draw)

    return TrainingSpec(model, losses, config.budget.train, config.precision, pretrained_parts(model))


def detect(model: Detector, stages: Stages) -> list[dict[str, Any]]:
    """COCO results for all images that are evaluated; under torchrun all processes take part."""
    with distributed.collective():
        distributed.send_command(distributed.Command("detect", stages.config), model)
        return [result for batch in distributed.gather(detections_by_batch(model, stages)) for result in batch]


def detections_by_batch(model: Detector, stages: Stages) -> list[list[dict[str, Any]]]:
    """COCO results for this process's share of the batches of evaluated images, batch by batch."""
    propose, inputs = proposal_source(stages, stages.split), network_inputs(stages, stages.split)
    samples = stages.samples(stages.split)
    batches = eval_batches(samples, rank=distributed.rank(), world_size=distributed.world_size())
    results = []
    for batch_results in results_of(model, batches, propose, inputs):
        if distributed.world_size() == 1:
            check_stop()
        results.append(batch_results)
    return results


def results_of(
    model: Detector,
    batches: Iterable[Batch],
    propose: Callable[[Batch], Proposals | None],
    inputs: Callable[[Batch], Batch],
) -> Iterator[list[dict[str, Any]]]:
    """COCO results batch by batch. propose and inputs take a batch as it was loaded; see `proposal_source` and
    `network_inputs`."""
    for batch in batches:
        proposals, batch = propose(batch), inputs(batch)
        yield list(coco_results(model(batch.images, batch.sizes, proposals=proposals), batch))
