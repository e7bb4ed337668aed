"""Average precision along training, of each arm's run with the first seed.

Runs are evaluated at their end only. Those of a study's first seed also keep snapshots of their weights
(ablations/training/snapshots.py), which this exhibit evaluates on the same images. Each curve ends with the finished
run; the earlier points enter no verdict.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ablations.config.study import Run
from ablations.evaluation.coco import average_precision
from ablations.exhibits import is_first_seed
from ablations.records.schema import StudyRecord
from ablations.records.storage import load_run, result_file
from ablations.stages.store import stages_of
from ablations.tasks.detection import build_model, detect
from ablations.training.snapshots import snapshots_in

KINDS = ("bbox", "segm")

Point = dict[str, Any]
"""The number of steps done, "step", and what was reached by then, "metrics"."""


def measure_run(study: StudyRecord, run: Run) -> list[Point] | None:
    """What a run of the first seed reached after each number of steps, its last included; None of other seeds.

    A run that kept no snapshots, such as one of another study, has its last point alone.
    """
    if not is_first_seed(run):
        return None
    record, stages, points = load_run(run.folder / "run.json"), stages_of(run.config), []
    model, truth = build_model(stages).eval(), stages.evaluated.coco
    kinds = [kind for kind in KINDS if kind in record.metrics]
    for step, name in snapshots_in(record.files).items():
        model.load_state_dict(load_file(result_file(run.folder, name)))
        results = detect(model, stages)
        points.append({"step": step, "metrics": {kind: average_precision(truth, results, kind) for kind in kinds}})
    return [*points, {"step": record.steps, "metrics": {kind: record.metrics[kind] for kind in kinds}}]


def make(study: StudyRecord, runs: list[Run], folder: Path, measured: list[list[Point] | None]) -> dict[str, Any]:
    """The seed, and what each arm's run reached after which number of steps."""
    arms = {run.arm: points for run, points in zip(runs, measured, strict=True) if points is not None}
    return {"seed": min(run.config.seed for run in runs), "arms": arms}
