"""Average precision along training: every arm is trained once more, with a seed of its own, and evaluated on the way.

The study's own runs are evaluated at their end only, so that no time of theirs goes into it. The seed is the one after
the study's last; its last point is what a run with that seed would reach, but it takes part in no verdict.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from ablations.config.study import Run
from ablations.errors import TrainingError
from ablations.records.schema import Metrics, StudyRecord
from ablations.stages.store import stages_of
from ablations.tasks.build import build_task
from ablations.training.loop import Trainer
from ablations.training.stopping import check_stop

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""The shares of the training's steps after which it is evaluated."""


def make(study: StudyRecord, runs: list[Run], folder: Path) -> dict[str, Any]:
    """The seed, and arm -> what it reaches after which number of steps."""
    seed = max(study.seeds) + 1
    first = {run.arm: run for run in reversed(runs)}
    return {"seed": seed, "arms": {arm: train_and_evaluate(first[arm], seed) for arm in study.arms}}


def train_and_evaluate(run: Run, seed: int) -> list[dict[str, Any]]:
    """Trains the run's arm with another seed; the metrics after each of SHARES."""
    config = dataclasses.replace(run.config, seed=seed)
    stages = stages_of(config)
    torch.manual_seed(seed)
    task = build_task(stages)
    trainer, steps = Trainer(task.training), task.training.schedule.steps
    marks = {max(round(share * steps), 1) for share in SHARES}
    points = []
    for step in range(steps):
        check_stop()
        losses = trainer.step(step)
        if step + 1 in marks:
            if not all(bool(loss.isfinite()) for loss in losses.values()):
                raise TrainingError(f"{run.arm}, seed {seed}: a loss is not finite at step {step}")
            points.append({"step": step + 1, "metrics": evaluate(task.training.model, task.evaluate)})
    return points


def evaluate(model: torch.nn.Module, measure: Any) -> Metrics:
    """The model's metrics as it is now; it goes on training afterwards."""
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        metrics: Metrics = measure(Path(folder))
    model.train()
    return metrics
