"""`make gpu` without a GPU: what it runs works, and what is cut short leaves what it has."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ops.bench.sweep import choose, settings_of
from tests.ops.triton_kernels.test_without_gpu import interpreter_works
from tools.gpu import Step, run

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_a_trial_runs_every_step_and_keeps_its_records(tmp_path):
    if not interpreter_works():
        pytest.skip("this triton's interpreter needs numpy < 2.4")
    command = [sys.executable, "-m", "tools.gpu", "--tiny", "--minutes", "15", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    logs = {path.name: path.read_text()[-1500:] for path in tmp_path.glob("*.log")}
    assert done.returncode == 0, (done.stdout, done.stderr, logs)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {line["result"] for line in summary.values()} == {"done"}
    record = json.loads((tmp_path / "operators/record.json").read_text())
    assert {row["operator"] for row in record["rows"]} == {"roi_align", "roi_pool", "multi_scale"}
    assert {"ours, bf16", "ours, deterministic"} < {row["contender"] for row in record["rows"]}
    assert all(row["parity"] for row in record["rows"])
    assert set(json.loads((tmp_path / "operators/sweep.json").read_text())["choice"]) == {"ours", "ours, deterministic"}
    assert set(json.loads((tmp_path / "steps/gpu.json").read_text())["seconds"]) == {"toy", "resnet"}


@pytest.mark.slow
def test_a_step_out_of_time_is_ended_and_its_output_kept(tmp_path):
    slow = Step("slow", ["-uc", "import time; print('begun'); time.sleep(60)"], 1)
    line = run(slow, tmp_path, 3, dict(os.environ))
    assert line["result"] == "out of time" and line["seconds"] < 20
    assert (tmp_path / "slow.log").read_text() == "begun\n"
    bad = run(Step("bad", ["-c", "raise SystemExit(3)"], 1), tmp_path, 30, dict(os.environ))
    assert bad["result"] == "failed with 3"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_one_sentence_says_so(tmp_path):
    command = [sys.executable, "-m", "tools.gpu", "--out", str(tmp_path / "records")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "expected an NVIDIA GPU" in done.stdout
    assert not (tmp_path / "records").exists()


def test_the_sweep_chooses_what_is_best_over_all_cases():
    assert settings_of({"A": (1, 2), "B": (3,)}) == [{"A": 1, "B": 3}, {"A": 2, "B": 3}]
    infinity = float("inf")
    times = {("x", 1): (1, 1), ("x", 2): (1.2, 1.2), ("y", 1): (100, infinity), ("y", 2): (50, 60)}
    rows = [
        {"case": case, "setting": {"A": value}, "forward": forward, "backward": backward}
        for (case, value), (forward, backward) in times.items()
    ]
    assert choose(rows) == {"A": 2}
