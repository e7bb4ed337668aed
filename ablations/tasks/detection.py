"""One run: an arm of a study with one seed, from the shared stages to its record."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor

from ablations.config.schema import Config
from ablations.config.study import Run
from ablations.evaluation.coco import average_precision, coco_results
from ablations.evaluation.overlap import overlap_metrics
from ablations.evaluation.recall import proposals_work
from ablations.machine import peak_memory, reset_peak_memory
from ablations.records.code_version import code_version
from ablations.records.provenance import provenance
from ablations.records.run_log import RunLog
from ablations.records.schema import RunRecord
from ablations.records.storage import save, write_atomically
from ablations.stages.make import CHECKPOINT, Draws, Stages, decoders, eval_batch, plain_state, proposals_of, stages_of
from ablations.tasks.base import Metrics, Work
from ablations.tracking import trackers
from ablations.tracking.curves import Curves
from ablations.training import distributed
from ablations.training.checkpoint import Checkpoint
from ablations.training.device import compile_parts
from ablations.training.distributed import SharedTraining
from ablations.training.loop import fit
from ablations.training.stopping import check_stop
from data.dataset import to_device
from data.loaders import eval_batches
from models.backbone import load_pretrained, pretrained_parts
from models.build import build_detector
from models.detector import Detector, GroundTruth
from models.initialise import initialise


def run_arm(study: str, arm: str, config: Config, folder: Path, stages: Stages, log: RunLog) -> RunRecord:
    """Trains and evaluates one arm, going on from its checkpoint; leaves its files in `folder`, run.json last."""
    started = datetime.now(UTC)
    reset_peak_memory()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.yaml", yaml.safe_dump(config.settings(), sort_keys=False))
    train, val = stages.dataset("train"), stages.dataset("val")
    torch.manual_seed(config.seed)
    work = WORKS[config.task](config, stages)
    model = work.model
    owner = f"{config.hash()} {stages.keys} {code_version()}"
    checkpoint = Checkpoint(folder / CHECKPOINT, owner, config.checkpoint, log)
    tracker = trackers.start(study, arm, config, folder)
    with Curves(folder / "metrics.jsonl", checkpoint.progress.logged, tracker) as curves:

        def log_line(step: int, values: dict[str, float]) -> None:
            curves.add(step, values)
            log(step, values)

        log.start_training(work.schedule.steps)
        with SharedTraining("train_run", config) as shared:
            fitted = fit(
                model,
                work.losses,
                work.schedule,
                log_line,
                config.budget.log_every,
                config.precision,
                slow=work.slow,
                checkpoint=checkpoint,
                shared=shared,
            )
    write_atomically(folder / "model.safetensors", serialised(plain_state(model.state_dict())))
    log.enter("evaluating")

    began = time.perf_counter()
    model.eval()
    metrics = work.measure(folder)
    record = RunRecord(
        study=study,
        arm=arm,
        seed=config.seed,
        config=config.settings(),
        config_hash=config.hash(),
        data={
            "name": train.name.partition("/")[0],
            "digest": {"train": train.digest, "val": val.digest},
            "num_train": len(train),
            "num_val": len(val),
            "classes": list(train.classes),
        },
        stages=stages.keys,
        steps=work.schedule.steps,
        num_parameters=sum(p.numel() for p in model.parameters()),
        parameters={name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()},
        losses=fitted.losses,
        metrics=metrics,
        cost={
            "train_seconds": round(fitted.seconds, 2),
            "eval_seconds": round(time.perf_counter() - began, 2),
            "seconds_per_step": round(fitted.seconds_per_step, 4),
            "peak_memory_bytes": peak_memory(),
            "threads": torch.get_num_threads(),
        },
        provenance=provenance(started) | {"resumed": checkpoint.progress.resumed, "compile": config.compile},
    )
    tracker.finish(metrics)
    save(record, folder / "run.json")
    checkpoint.remove()
    return record


def detection_work(config: Config, stages: Stages) -> Work:
    """A detector on the proposals of the shared network, or with one of its own; its figures are COCO's AP, and our own
    of what overlap does to masks."""
    model = build(config, stages, len(stages.dataset("train").classes))

    def measure(folder: Path) -> Metrics:
        results = detect(model, stages, config)
        write_atomically(folder / "detections.json", json.dumps(results))
        truth = stages.dataset("val").coco
        metrics = {"bbox": average_precision(truth, results, "bbox")}
        if model.predicts_masks:
            metrics |= {"segm": average_precision(truth, results, "segm"), "overlap": overlap_metrics(truth, results)}
        return metrics

    return Work(model, losses_of(config, model, stages), config.budget.train, pretrained_parts(model), measure)


WORKS: dict[str, Callable[[Config, Stages], Work]] = {"detection": detection_work, "proposals": proposals_work}
"""What is trained and measured, by `task`."""


def build(config: Config, stages: Stages, num_classes: int) -> Detector:
    """The arm's network: pretrained trunk, and heads whose first weights depend on the seed and their place only."""
    model = build_detector(
        config.system,
        config.model,
        config.roi,
        config.mask_loss,
        config.mask_class,
        config.mask_head,
        config.stride,
        num_classes,
        joint_rpn=config.rpn == "joint",
    )
    initialise(model, config.seed)
    load_pretrained(model, stages.backbone())
    if config.compile:
        compile_parts(model)
    return model.to(stages.device).to(memory_format=torch.channels_last).train()


def trained(run: Run) -> Detector:
    """A finished run's network as its training left it, ready to detect."""
    stages = stages_of(run.config)
    model = build(run.config, stages, len(stages.dataset("train").classes))
    model.load_state_dict(load_file(run.folder / "model.safetensors"))
    return model.eval()


def losses_of(config: Config, model: Detector, stages: Stages) -> Any:
    """The function from a step to its losses: same images, mirroring, proposals and draws in all arms of a seed."""
    train, device = stages.dataset("train"), stages.device
    cached = None if model.rpn is not None else stages.proposals("train")
    draws = Draws(train, config.budget.train, config.seed, config.seed)

    def losses(step: int, part: int) -> dict[str, Tensor]:
        batch = draws.batch(step, part)
        proposals = None if cached is None else proposals_of(cached, batch, device)
        batch = batch.to(device)
        truth = GroundTruth(batch.boxes, batch.labels, batch.masks, batch.crowds)
        draw = lambda name, shape: to_device(draws.uniform(shape, name, step, part), device)  # noqa: E731
        return model.losses(batch.images, batch.sizes, truth, proposals, draw)

    return losses


def detect(model: Detector, stages: Stages, config: Config) -> list[dict[str, Any]]:
    """COCO results on all validation images, shared out among the processes that work together."""
    with distributed.collective():
        distributed.send_command(distributed.Command("detect", config), model)
        return [result for batch in distributed.gather(detections_by_batch(model, stages)) for result in batch]


def detections_by_batch(model: Detector, stages: Stages) -> list[list[dict[str, Any]]]:
    """COCO results on this process's share of the batches of validation images, batch by batch."""
    cached = None if model.rpn is not None else stages.proposals("val")
    found = []
    val = stages.dataset("val")
    for batch in eval_batches(val, eval_batch(val), decoders(val), distributed.rank(), distributed.world_size()):
        if distributed.world_size() == 1:
            check_stop()
        proposals = None if cached is None else proposals_of(cached, batch, stages.device)
        batch = batch.to(stages.device)
        found.append(list(coco_results(model.detect(batch.images, batch.sizes, proposals), batch)))
    return found
