"""What a user sees of running jobs: the status command, and progress in a log file and on a terminal."""

import dataclasses
import io
import sys

import pytest

from ablations import status
from ablations.execution import progress
from ablations.execution.progress import ProgressReporter
from ablations.records.schema import Arm, RunRecord, Status, StudyRecord
from ablations.records.storage import LOCK, save
from data.folders import locked

STUDY = StudyRecord(
    name="tiny",
    title="Tiny",
    question="?",
    factors=["roi"],
    arms={"pool": Arm("RoIPool", ["roi=pool"]), "align": Arm("RoIAlign", ["roi=align"])},
    seeds=[0, 1, 2],
    hypotheses=[],
    sample_image_ids=[],
    config={},
    data={},
)
RUN = RunRecord(
    study="tiny",
    arm="pool",
    seed=0,
    config={},
    config_hash="",
    data={},
    stages={},
    steps=100,
    num_parameters=1,
    losses={},
    metrics={"segm": {"AP": 12.5}},
    cost={"train_seconds": 50.0, "eval_seconds": 10.0},
    provenance={},
)
STATUS = Status(
    name="tiny: align seed 0",
    state="running",
    message="training",
    step=50,
    steps=100,
    resumed=10,
    pid=1234,
    host="here",
    started="2026-01-01T10:00:00+00:00",
    updated="2026-01-01T10:00:20+00:00",
)


@pytest.fixture
def outputs(tmp_path):
    """A study with a run in every state: done, running, killed, failed, stopped, missing."""
    folder = tmp_path / "tiny"
    save(STUDY, folder / "study.json")
    save(RUN, folder / "pool/seed0/run.json")
    for place, changes in {
        "align/seed0": {},
        "pool/seed1": {"step": 20},
        "align/seed1": {"state": "failed", "message": "the disk is full"},
        "pool/seed2": {"state": "stopped", "step": 75},
    }.items():
        save(dataclasses.replace(STATUS, **changes), folder / place / "status.json")
    (folder / "pool/seed0/model.safetensors").write_bytes(b"0" * 2_000_000)
    (folder / "pool/seed1/model.safetensors").hardlink_to(folder / "pool/seed0/model.safetensors")
    return tmp_path


def test_status_tells_the_state_of_every_run(outputs, capsys):
    with locked(outputs / "tiny/align/seed0" / LOCK):
        assert status.main(["--outputs", str(outputs)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # Five runs remain, of which 1.95 are done already, at a minute each.
    assert lines[0] == (
        "tiny: 1 of 6 done, 1 running, 1 failed, 1 stopped, 1 killed, 1 missing; about 3 min left with 1 at a time"
    )
    expected = [
        "running align seed 0 at step 50 of 100, 2 steps/s, about 25 s left (process 1234 on here; resumed at step 10)",
        "failed align seed 1 the disk is full",
        "stopped pool seed 2 at step 75 of 100; the same command continues it",
        "killed pool seed 1 at step 20 of 100; the same command continues it",
        "missing align seed 2",
        "done pool seed 0 mask AP 12.5",
    ]
    assert lines[1:7] == expected
    assert "weights 2.0 MB" in lines[-1]  # one file under two names


def test_status_says_when_a_study_is_not_running_and_when_it_is_complete(outputs, capsys):
    assert status.main(["tiny", "--outputs", str(outputs)]) == 0
    out = capsys.readouterr().out
    assert "2 killed" in out and "not running" in out
    for arm in STUDY.arms:
        for seed in STUDY.seeds:
            save(dataclasses.replace(RUN, arm=arm, seed=seed), outputs / "tiny" / arm / f"seed{seed}/run.json")
    status.main(["tiny", "--outputs", str(outputs)])
    assert "tiny: 6 of 6 done; complete" in capsys.readouterr().out


def test_status_of_a_fresh_clone_says_what_to_start(tmp_path, capsys):
    assert status.main(["--outputs", str(tmp_path / "outputs")]) == 0
    told = capsys.readouterr().out
    assert "nothing has been started" in told and "make ablation-roialign" in told


def test_status_of_a_study_that_does_not_exist(tmp_path, capsys):
    assert status.main(["nothing", "--outputs", str(tmp_path)]) == 1
    assert "nothing: expected a study under" in capsys.readouterr().err
    assert status.main(["--outputs", str(tmp_path / "none")]) == 0


def test_a_log_file_gets_a_line_for_each_run_and_one_after_a_long_silence(outputs, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines: list[str] = []
    with ProgressReporter(4, 1, 2, lines.append) as reporter:
        reporter.job_done("data 123")
        reporter.job_done("pool seed 0", RUN)
        clock[0] = 59
        reporter.update([outputs / "tiny/align/seed0"])
        clock[0] = 61
        reporter.update([outputs / "tiny/align/seed0"])
    assert lines == [
        "[    0 s] data 123 ready",
        "[    0 s] run 2 of 4: pool seed 0: mask AP 12.5; about 60 s left",
        "[   61 s] 2 of 4 runs; about 45 s left: align seed 0 at step 50 of 100",
    ]


def test_a_terminal_gets_a_bar_that_is_cleared_at_the_end(outputs, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressReporter(4, 1, 2, lambda line: None) as reporter:
        reporter.updated -= 2
        reporter.update([outputs / "tiny/align/seed0"])
    assert "1 of 4 runs; about 62 s left: align seed 0 at step 50 of 100" in terminal.getvalue()
    assert not terminal.getvalue().rpartition("\r")[0].rpartition("\r")[2].strip()  # blank at the end
