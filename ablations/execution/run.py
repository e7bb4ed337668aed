"""One run: an arm of a study with one seed, from the shared stages to its record."""

import time
from datetime import UTC, datetime

import torch
import yaml
from safetensors.torch import save as serialised

from ablations.config.study import Run
from ablations.errors import TrainingError
from ablations.machine import peak_memory, reset_peak_memory
from ablations.records.code_version import code_version
from ablations.records.provenance import provenance
from ablations.records.run_log import RunLog
from ablations.records.schema import RESULT_FILES, WEIGHTS, RunRecord
from ablations.records.storage import save, write_atomically
from ablations.stages.store import Stages, stages_of
from ablations.tasks.base import Task
from ablations.tasks.build import build_task
from ablations.tracking import trackers
from ablations.tracking.curves import Curves
from ablations.tracking.trackers import Tracker
from ablations.training.checkpoint import CHECKPOINT, Checkpoint
from ablations.training.device import cpu_state_dict
from ablations.training.distributed import SharedTraining
from ablations.training.loop import Fit, fit
from ablations.training.snapshots import remove_snapshots, snapshot_names, snapshot_writer
from data import digests


def run_arm(run: Run, log: RunLog) -> RunRecord:
    """Trains and evaluates one run, resuming from its checkpoint; leaves its files in run.folder, run.json last."""
    started = datetime.now(UTC)
    reset_peak_memory()
    config, folder, stages = run.config, run.folder, stages_of(run.config)
    folder.mkdir(parents=True, exist_ok=True)
    check_replaceable(run)
    write_atomically(folder / "config.yaml", yaml.safe_dump(config.settings(), sort_keys=False))
    torch.manual_seed(config.seed)
    task = build_task(stages)
    model = task.training.model
    owner = f"{config.hash()} {stages.keys} {code_version()}"
    checkpoint = Checkpoint(folder / CHECKPOINT, owner, config.checkpoint, log)
    if not checkpoint.state.step:
        remove_snapshots(folder)
    tracker = trackers.make_tracker(run)
    fitted = train_run(run, task, checkpoint, tracker, log)
    write_atomically(folder / WEIGHTS, serialised(cpu_state_dict(model.state_dict())))

    log.enter("evaluating")
    began = time.perf_counter()
    model.eval()
    metrics = task.evaluate(folder)
    cost = {
        "train_seconds": round(fitted.seconds, 2),
        "eval_seconds": round(time.perf_counter() - began, 2),
        "seconds_per_step": round(fitted.seconds_per_step, 4),
        "peak_memory_bytes": peak_memory(),
        "threads": torch.get_num_threads(),
    }
    record = RunRecord(
        study=run.study,
        arm=run.arm,
        seed=config.seed,
        config=config.settings(),
        config_hash=config.hash(),
        data=describe_data(stages),
        stages=stages.keys,
        steps=task.training.schedule.steps,
        num_parameters=sum(p.numel() for p in model.parameters()),
        parameters={name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()},
        losses=fitted.losses,
        metrics=metrics,
        cost=cost,
        provenance=provenance(started)
        | {"resumed": checkpoint.state.resumed, "compile": config.compile, "operators": task.operators},
        files=digests.of_files(folder, [*RESULT_FILES, *snapshots_of(run)]),
    )
    tracker.finish(metrics)
    save(record, folder / "run.json")
    checkpoint.remove()
    return record


def check_replaceable(run: Run) -> None:
    """Raises TrainingError if a folder stands where the run will write a file: better now than after the training."""
    for name in (*RESULT_FILES, *snapshots_of(run), CHECKPOINT, "run.json"):
        if (run.folder / name).is_dir():
            raise TrainingError(
                f"{run.folder / name}: expected a file or nothing, got a folder; remove it and start again"
            )


def train_run(run: Run, task: Task, checkpoint: Checkpoint, tracker: Tracker, log: RunLog) -> Fit:
    """Trains the task's model; its curves go to metrics.jsonl, the log and the tracker."""
    config = run.config
    with Curves(run.folder / "metrics.jsonl", checkpoint.state.logged, tracker) as curves:

        def log_step(step: int, values: dict[str, float]) -> None:
            curves.add(step, values)
            log(step, values)

        steps = task.training.schedule.steps
        log.start_training(steps)
        after_step = snapshot_writer(task.training.model, run.folder, steps, log) if config.snapshots else None
        with SharedTraining("train_run", config) as shared:
            return fit(task.training, log_step, config.budget.log_every, checkpoint, shared, after_step)


def snapshots_of(run: Run) -> list[str]:
    """The names of the snapshots that a run keeps."""
    return list(snapshot_names(run.config.budget.train.steps).values()) if run.config.snapshots else []


def describe_data(stages: Stages) -> dict[str, object]:
    """What a record says of the images that its run was trained and evaluated on."""
    train, evaluated, split = stages.dataset("train"), stages.evaluated, stages.split
    return {
        "name": train.name.partition("/")[0],
        "split": split,
        "digest": {"train": train.digest, split: evaluated.digest},
        "num_train": len(train),
        "num_val": len(evaluated),
        "classes": list(train.classes),
    }
