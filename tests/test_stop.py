"""Ctrl-C and SIGTERM, once and twice, and a killed worker, with real processes."""

import os
import signal
import time
from pathlib import Path

import pytest

from ablations.records.storage import load_status
from tests import torture

pytestmark = pytest.mark.slow

# Runs that would take minutes: all of them are interrupted.
LONG = ["study=roialign", "budget=smoke", "budget.seeds=1", "budget.train_images=16", "budget.val_images=6"]
LONG += ["budget.train.steps=5000", "budget.log_every=1", "checkpoint.steps=1"]


def states(outputs):
    return [load_status(path).state for path in sorted(outputs.glob("roialign/*/seed0/status.json"))]


def until(holds, process):
    deadline = time.monotonic() + 600
    while not holds():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for worker processes in /proc")
def test_a_study_stops_on_signals_and_survives_a_killed_worker(tmp_path):
    output = tmp_path / "output.txt"
    process = torture.start(LONG, tmp_path)
    try:
        until(lambda: states(tmp_path).count("running") == 2, process)
        pid = next(
            load_status(path).pid
            for path in tmp_path.glob("roialign/*/seed0/status.json")
            if load_status(path).state == "running"
        )
        os.kill(pid, signal.SIGKILL)  # as the system does when memory runs out
        until(lambda: sorted(states(tmp_path)) == ["failed", "running", "running"], process)
        assert "its process died" in output.read_text()
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal, which reaches the workers too
        assert process.wait(300) == 130
        assert sorted(states(tmp_path)) == ["failed", "stopped", "stopped"]
        assert "run the same command again to continue" in output.read_text()

        process = torture.start([*LONG, "workers=1"], tmp_path)
        logs = lambda: [path.read_text() for path in tmp_path.glob("roialign/*/seed0/log.txt")]  # noqa: E731
        until(lambda: any("resuming at step" in log for log in logs()), process)
        for number in (signal.SIGTERM, signal.SIGINT):  # two of one kind at once would count as one
            process.send_signal(number)
        assert process.wait(60) == 130
        text = output.read_text()
        assert "stopped at once" in text and "Traceback" not in text
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
