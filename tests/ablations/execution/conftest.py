"""Scheduling and reuse are tested on runs whose training is faked."""

import dataclasses
import itertools

import pytest

from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.execution import reuse
from ablations.execution.jobs import WORK
from ablations.execution.launchers import InProcessLauncher
from ablations.execution.scheduler import execute
from ablations.records.schema import RESULT_FILES, RunRecord
from ablations.records.storage import load_run, save
from ablations.stages.store import stages_of
from data import digests


class RecordingLauncher(InProcessLauncher):
    """Notes whether it was asked to stop."""

    stop_requested = False

    def request_stop(self):
        self.stop_requested = True


class Lab:
    """Two runs "a" and "b", whose training is replaced by run_arm: it writes a record, or raises what `fail` says."""

    def __init__(self, configure, outputs):
        self.configure, self.outputs = configure, outputs
        self.fail, self.made, self.printed, self.before = {}, [], [], lambda: None
        self.count = itertools.count()
        self.work = dict.fromkeys(WORK, lambda stages, log: None) | {"run": self.run_arm}

    def launch(self, config, num_runs, stop_requested):
        self.launcher = RecordingLauncher(None, stop_requested)
        return self.launcher

    def run_arm(self, run, log):
        config, arm = run.config, run.arm
        self.made.append(arm)
        self.before()
        if arm in self.fail:
            raise self.fail[arm]
        provenance = {"code": reuse.code_version()}
        cost = {"train_seconds": 1.0, "eval_seconds": 1.0}
        metrics = {"bbox": {"AP": float(next(self.count))}}
        about = (config.settings(), config.hash(), {}, stages_of(config).keys, 3, 9, {})
        record = RunRecord(run.study, arm, config.seed, *about, metrics, cost, provenance)
        (run.folder / "model.safetensors").write_text("weights")
        (run.folder / "detections.json").write_text("detections")
        record = dataclasses.replace(record, files=digests.of_files(run.folder, RESULT_FILES))
        save(record, run.folder / "run.json")
        return record

    def runs(self, *overrides):
        config = self.configure("budget=smoke", "model.weights=scratch", f"outputs={self.outputs}", *overrides)
        return [Run("study", "a", config), Run("study", "b", dataclasses.replace(config, stride=32))]

    def go(self, *overrides):
        """(Outcome, arms that were trained, what was printed)."""
        self.made.clear(), self.printed.clear()
        runs, lines = self.runs(*overrides), self.printed
        outcome = execute(runs, print_line=lines.append, launch=self.launch, work=self.work)
        return outcome, list(self.made), "\n".join(lines)

    def record_of(self, arm):
        return load_run(self.outputs / "study" / arm / "seed0" / "run.json")


@pytest.fixture
def lab(compose, tmp_path):
    return Lab(lambda *overrides: from_hydra(compose(list(overrides))), tmp_path)
