"""Two processes that share each step's micro batches train what one trains that does them in turn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import team
from ablations.config import ConfigError, from_hydra

ROOT = Path(__file__).parents[2]
TINY = ["budget=smoke", "budget.train_images=16", "budget.val_images=45", "budget.train.steps=3", "device=cpu"]
SHARED = ["precision=float32", "budget.backbone.steps=2", "budget.rpn.micro_batches=2", "budget.train.micro_batches=2"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(*arguments, module=()):
    command = [sys.executable, *(["-m", *module] if module else []), "run.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def result(outputs):
    (path,) = outputs.glob("single/*/seed0/run.json")
    lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    return lines, json.loads(path.read_text()), json.loads((path.parent / "detections.json").read_text())


def test_two_processes_train_what_one_does(tmp_path):
    """45 validation images are three batches of 20, so that the two processes' shares differ in length."""
    alone = run(*TINY, *SHARED, f"outputs={tmp_path / 'one'}")
    together = run(*TINY, *SHARED, f"outputs={tmp_path / 'two'}", module=TORCHRUN)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert together.returncode == 0, together.stdout + together.stderr
    assert together.stdout.count("run 1 of 1") == 1  # the leader alone speaks
    (lines, record, found), (same_lines, same, again) = result(tmp_path / "one"), result(tmp_path / "two")
    assert [line["step"] for line in lines] == [line["step"] for line in same_lines] == [0, 2]
    for line, other in zip(lines, same_lines, strict=True):
        assert other == pytest.approx(line, rel=2e-3)
    first = {name: lines[0][name] for name in ("class", "box", "mask")}
    assert {name: same_lines[0][name] for name in first} == pytest.approx(first, rel=1e-4)
    assert same["config_hash"] == record["config_hash"] and same["num_parameters"] == record["num_parameters"]
    assert [item["image_id"] for item in again] == sorted(item["image_id"] for item in again)
    assert len(again) == pytest.approx(len(found), rel=0.1)


def test_work_that_cannot_be_shared_is_refused(compose, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="budget.train.micro_batches: expected a multiple of torchrun's 2 processes"):
        team.check(from_hydra(compose(["budget=smoke"])))
    team.check(from_hydra(compose(["budget=smoke", "budget.train.micro_batches=4", "budget.rpn.micro_batches=2"])))


def test_micro_batches_must_divide_the_step(compose):
    with pytest.raises(ConfigError, match="a number that divides images_per_step = 8, got 3"):
        from_hydra(compose(["budget=smoke", "budget.train.micro_batches=3"]))
