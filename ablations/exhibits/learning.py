"""Average precision along training: what each arm's run with the first seed had reached on the way to its end.

Runs are evaluated at their end only. Those of a study's first seed keep their weights on the way
(ablations/training/snapshots.py), and here these detect on the same images. No verdict uses them.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ablations.config.study import Run
from ablations.errors import ConfigError, TrainingError
from ablations.evaluation.coco import average_precision
from ablations.records.schema import Metrics, StudyRecord
from ablations.records.storage import load_run
from ablations.stages.store import stages_of
from ablations.tasks.detection import build_model, detect
from ablations.training.snapshots import snapshots

KINDS = ("bbox", "segm")

Point = dict[str, Any]
"""The number of steps done, "step", and what was reached by then, "metrics"."""


def measure_run(study: StudyRecord, run: Run) -> list[Point] | None:
    """What a run of the first seed reached after each number of steps, its last included; None of other seeds."""
    if run.config.task != "detection":
        raise ConfigError(f"exhibits: learning: expected runs that detect, got task={run.config.task}")
    if run.config.seed != min(study.seeds):
        return None
    points = [{"step": step, "metrics": reached(path, run)} for step, path in snapshots(run.folder).items()]
    record = load_run(run.folder / "run.json")
    metrics = {kind: record.metrics[kind] for kind in KINDS if kind in record.metrics}
    return [*points, {"step": record.steps, "metrics": metrics}]


def make(study: StudyRecord, runs: list[Run], folder: Path, measured: list[list[Point] | None]) -> dict[str, Any]:
    """The seed, and what each arm's run reached after which number of steps."""
    arms = {run.arm: points for run, points in zip(runs, measured, strict=True) if points is not None}
    return {"seed": min(study.seeds), "arms": arms}


def reached(snapshot: Path, run: Run) -> Metrics:
    """Average precision of boxes, and of masks where there are any, with the weights of a snapshot."""
    stages = stages_of(run.config)
    model = build_model(stages)
    try:
        model.load_state_dict(load_file(snapshot))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{snapshot}: expected the weights of {run} on the way, got {reason:.200}; force=true makes the run again"
        ) from error
    results, truth = detect(model.eval(), stages), stages.evaluated.coco
    kinds = KINDS if model.predicts_masks else KINDS[:1]
    return {kind: average_precision(truth, results, kind) for kind in kinds}
