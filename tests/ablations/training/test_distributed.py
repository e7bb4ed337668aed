"""Two processes that share each step's micro batches train the same as one process that computes them in turn."""

import errno
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ablations.config.loading import from_hydra
from ablations.config.study import single_run
from ablations.errors import ConfigError
from ablations.execution import distributed_worker
from ablations.execution.jobs import Job
from ablations.execution.launchers import InProcessLauncher
from ablations.execution.scheduler import Outcome, Scheduler, execute
from ablations.training import distributed

ROOT = Path(__file__).parents[3]
TINY = ["budget=smoke", "budget.train_images=16", "budget.val_images=45", "budget.train.steps=3", "device=cpu"]
SHARED = ["precision=float32", "model.weights=scratch", "budget.backbone.steps=2"]
SHARED += ["budget.rpn.micro_batches=2", "budget.train.micro_batches=2"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


WITNESS = """
import os, pathlib, runpy, sys
sys.path.insert(0, os.getcwd())
from ablations.stages import proposals
from ablations.training.loss_history import LossHistory

notes = pathlib.Path(sys.argv.pop(1))
propose, add = proposals.propose_batch, LossHistory.add

def propose_and_note(network, batch, settings):
    (notes / f"{os.environ['RANK']} {batch.image_ids.tolist()[0]} {len(batch.image_ids)}").touch()
    return propose(network, batch, settings)

def add_or_fail(self, step, losses, rate):
    if self.steps == 3:
        raise OSError(28, "No space left on device", "somewhere")
    add(self, step, losses, rate)

proposals.propose_batch, LossHistory.add = propose_and_note, add_or_fail
runpy.run_path("run.py", run_name="__main__")
"""
"""run.py, but every rank notes the images that it makes proposals for, and rank 0's disk is full in a training of three
steps."""


def run(*arguments, script="run.py"):
    command = [sys.executable, "-m", *TORCHRUN, str(script), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def result(outputs):
    (path,) = outputs.glob("single/*/seed0/run.json")
    lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    return lines, json.loads(path.read_text()), json.loads((path.parent / "detections.json").read_text())


@pytest.mark.slow
def test_two_processes_train_what_one_does(compose, tmp_path):
    """45 validation images are three batches of 20, so that the two processes' shares differ in length."""
    overrides = [*TINY, *SHARED, f"outputs={tmp_path / 'one'}"]
    alone = single_run(compose(overrides), overrides)
    assert not execute([alone], launch=lambda config, _, stop: InProcessLauncher(config.threads, stop)).failures
    together = run(*TINY, *SHARED, f"outputs={tmp_path / 'two'}")
    assert together.returncode == 0, together.stdout + together.stderr
    assert together.stdout.count("run 1 of 1") == 1  # only rank 0 prints
    (lines, record, weights), (same_lines, same, again) = result(tmp_path / "one"), result(tmp_path / "two")
    assert [line["step"] for line in lines] == [line["step"] for line in same_lines] == [0, 2]
    for line, other in zip(lines, same_lines, strict=True):
        assert other == pytest.approx(line, rel=2e-3)
    first = {name: lines[0][name] for name in ("class", "box", "mask")}
    assert {name: same_lines[0][name] for name in first} == pytest.approx(first, rel=1e-4)
    assert same["config_hash"] == record["config_hash"] and same["num_parameters"] == record["num_parameters"]
    assert [item["image_id"] for item in again] == sorted(item["image_id"] for item in again)
    assert len(again) == pytest.approx(len(weights), rel=0.1)
    for split in ("train", "val"):
        (whole,), (shared,) = ((tmp_path / name).glob(f"stages/rpn-*/{split}.safetensors") for name in ("one", "two"))
        whole, shared = load_file(whole), load_file(shared)
        assert {name: value.shape for name, value in whole.items()} == {k: v.shape for k, v in shared.items()}
        assert (whole["scores"] - shared["scores"]).abs().max() < 2e-3


@pytest.mark.slow
def test_ranks_share_the_proposals_and_an_error_of_rank_0_ends_all_and_is_recorded(tmp_path):
    (tmp_path / "notes").mkdir()
    script = tmp_path / "witness.py"
    script.write_text(WITNESS)
    started = time.monotonic()
    ended = run(str(tmp_path / "notes"), *TINY, *SHARED, f"outputs={tmp_path}", script=script)
    assert ended.returncode == 1 and time.monotonic() - started < 120, ended.stdout + ended.stderr
    assert "the disk is full (somewhere): make room, then run the same command again to continue" in ended.stdout
    (path,) = tmp_path.glob("single/*/seed0/status.json")
    status = json.loads(path.read_text())
    assert (status["state"], status["message"][:16]) == ("failed", "the disk is full")
    assert "No space left on device" in (path.parent / "log.txt").read_text()
    # 16 training images are one batch; 45 validation images are three, dealt out in turn.
    noted = sorted(path.name.split() for path in (tmp_path / "notes").iterdir())
    assert [(rank, number) for rank, _, number in noted] == [("0", "16"), ("0", "20"), ("0", "5"), ("1", "20")]


@contextmanager
def full_disk():
    """As a file on a full disk, whose closing fails too."""
    try:
        yield
    finally:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")


def fail_in_a_collective(log):
    with full_disk(), distributed.collective():
        raise ValueError("in the middle")


def test_rank_0_aborts_all_ranks_once_desynchronised_whatever_error_arrives(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def abort_all_ranks():
        raise SystemExit(1)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "abort_all_ranks", abort_all_ranks)
    outcome = Outcome()
    job = Job("a job", tmp_path, fail_in_a_collective, frozenset())
    progress = SimpleNamespace(update=lambda folders: None, write=full)
    scheduler = Scheduler([job], set(), InProcessLauncher(None, lambda: False), progress, outcome)
    with pytest.raises(SystemExit):
        scheduler.run(lambda: False)
    assert outcome.failures["a job"].startswith("the disk is full (metrics.jsonl)")


def test_aborting_works_on_a_full_disk(monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    ended = []
    monkeypatch.setattr(distributed.os, "_exit", ended.append)
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(distributed.sys, "stdout", SimpleNamespace(flush=full))
        distributed.abort_all_ranks()
    assert ended == [1]


def test_every_rank_makes_stages_on_one_thread(monkeypatch):
    seen = []
    kinds = ("propose", "train_proposals", "train_run")
    commands = [distributed.Command(kind, None) for kind in kinds]
    monkeypatch.setattr(distributed_worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(distributed, "commands", lambda: commands)
    for name in ("share_proposals", "share_training"):
        monkeypatch.setattr(distributed_worker, name, lambda *_: seen.append(torch.get_num_threads()))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert distributed_worker.worker_loop() == 0
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 1, 2]


def test_micro_batches_that_cannot_be_shared_are_refused(compose, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="budget.train.micro_batches: expected a multiple of torchrun's 2 processes"):
        distributed.check_config(from_hydra(compose(["budget=smoke"])))
    distributed.check_config(
        from_hydra(compose(["budget=smoke", "budget.train.micro_batches=4", "budget.rpn.micro_batches=2"]))
    )


def test_micro_batches_must_divide_the_step(compose):
    with pytest.raises(ConfigError, match="a number that divides images_per_step = 8, got 3"):
        from_hydra(compose(["budget=smoke", "budget.train.micro_batches=3"]))
