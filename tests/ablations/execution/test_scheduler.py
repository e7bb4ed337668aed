"""Which runs are executed, reused, waited for or left alone, and what failures leave behind. Training is faked."""

import dataclasses
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.errors import TrainingError, WorkerLost
from ablations.execution import command, reuse
from ablations.execution.jobs import WORK
from ablations.execution.launchers import InProcessLauncher
from ablations.execution.reuse import archive_run
from ablations.execution.scheduler import Outcome, execute
from ablations.records import code_version
from ablations.records.schema import RESULT_FILES, RunRecord
from ablations.records.storage import LOCK, load_run, load_status, save
from ablations.stages.store import stages_of
from data import digests
from data.folders import held, locked
from data.terminal import OutputLost
from tests.damage import flip_bit


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


@pytest.fixture
def lab(compose, tmp_path):
    return Lab(lambda *overrides: from_hydra(compose(list(overrides))), tmp_path)


def record_of(lab, arm):
    return load_run(lab.outputs / "study" / arm / "seed0" / "run.json")


def test_finished_runs_are_not_executed_again(lab):
    assert lab.go()[1] == ["a", "b"]
    outcome, made, printed = lab.go()
    assert made == [] and len(outcome.records) == 2 and "2 of 2 runs are done already" in printed
    assert lab.go("checkpoint.seconds=5", "workers=1")[1] == [], "settings that do not decide the result"


def change_settings(lab, monkeypatch):
    return ["data.noise=1"], "settings changed: data.noise 2 -> 1"


def change_code(lab, monkeypatch):
    monkeypatch.setattr(reuse, "code_version", lambda: "another")
    return [], "the code has changed (code=keep accepts runs of other versions)"


def change_stages(lab, monkeypatch):
    monkeypatch.setattr("ablations.stages.store.STAGE_VERSION", 99)
    return [], "the data or the stages that it depends on changed"


def spoil_records(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/run.json"):
        path.write_text('{"schema": 1, "arm"')
    return [], "its record cannot be read"


def flip_bits_of_weights(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/model.safetensors"):
        flip_bit(path)
    return [], "model.safetensors is damaged: it is not what was written"


def flip_bits_of_detections(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/detections.json"):
        flip_bit(path)
    return [], "detections.json is damaged: it is not what was written"


def lose_detections(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/detections.json"):
        path.unlink()
    return [], "detections.json is missing"


def force(lab, monkeypatch):
    return ["force=true"], "force=true"


CHANGES = [
    *(change_settings, change_code, change_stages, spoil_records, force),
    *(flip_bits_of_weights, flip_bits_of_detections, lose_detections),
]


@pytest.mark.parametrize("change", CHANGES)
def test_outdated_runs_are_executed_again_with_the_reason_and_the_old_ones_are_archived(lab, monkeypatch, change):
    lab.go()
    overrides, reason = change(lab, monkeypatch)
    old = {path.parent.parent.name: path.read_bytes() for path in lab.outputs.glob("study/*/seed0/run.json")}
    outcome, made, printed = lab.go(*overrides)
    assert made == ["a", "b"] and not outcome.failures
    assert (
        f"running again: a seed 0, b seed 0: {reason}" in printed and str(lab.outputs / "study" / "replaced") in printed
    )
    for arm, content in old.items():
        kept = lab.outputs / "study" / "replaced" / arm / "seed0-1"
        assert (kept / "run.json").read_bytes() == content and (kept / "model.safetensors").exists()
    if change is not force:
        assert lab.go(*overrides)[1] == []


def test_a_run_that_lost_its_weights_is_executed_again(lab):
    lab.go()
    path = lab.outputs / "study/a/seed0/model.safetensors"
    path.unlink()
    _, made, printed = lab.go()
    assert made == ["a"] and "a seed 0: model.safetensors is missing" in printed and path.exists()


def test_runs_of_older_versions_need_only_their_weights(lab):
    lab.go()
    path = lab.outputs / "study/a/seed0/run.json"
    save(dataclasses.replace(record_of(lab, "a"), files={}), path)
    flip_bit(path.parent / "model.safetensors")
    assert lab.go()[1] == []
    (path.parent / "model.safetensors").unlink()
    assert lab.go()[1] == ["a"]


def test_a_damaged_run_of_another_study_is_not_reused(lab):
    lab.go()
    flip_bit(lab.outputs / "study/a/seed0/detections.json")
    run = dataclasses.replace(lab.runs()[0], study="other", arm="c")
    execute([run], print_line=lab.printed.append, launch=lab.launch, work=lab.work)
    assert lab.made == ["a", "b", "c"]


def test_code_keep_accepts_runs_of_another_version(lab, monkeypatch):
    lab.go()
    change_code(lab, monkeypatch)
    assert lab.go("code=keep")[1] == []


def test_going_back_to_old_settings_brings_their_runs_back(lab):
    lab.go()
    before = record_of(lab, "a").metrics
    assert lab.go("data.noise=1")[1] == ["a", "b"] and record_of(lab, "a").metrics != before
    _, made, printed = lab.go()
    assert made == [] and record_of(lab, "a").metrics == before and record_of(lab, "a").taken_from == ""
    assert "a seed 0: reusing an archived run" in printed
    assert len(list(lab.outputs.glob("study/replaced/a/seed0-*/run.json"))) == 2


def test_a_run_that_another_study_has_finished_is_reused(lab):
    lab.go()
    run = dataclasses.replace(lab.runs()[0], study="other", arm="c")
    outcome = execute([run], print_line=lab.printed.append, launch=lab.launch, work=lab.work)
    record = load_run(run.folder / "run.json")
    assert outcome.records == {run.folder: record} and lab.made == ["a", "b"]
    assert lab.printed[-1] == "c seed 0: reusing study/a, which has the same settings"
    assert (record.study, record.arm, record.taken_from) == ("other", "c", "study/a")
    assert dataclasses.replace(record, study="study", arm="a", taken_from="") == record_of(lab, "a")
    assert (run.folder / "model.safetensors").samefile(lab.outputs / "study/a/seed0/model.safetensors")
    assert not (run.folder / "log.txt").exists()


def test_archiving_a_run_continues_after_a_kill(tmp_path):
    folder = tmp_path / "study" / "a" / "seed0"
    folder.mkdir(parents=True)
    for name in ("run.json", "model.safetensors", "log.txt"):
        (folder / name).write_text(name)
    half = tmp_path / "study" / "replaced" / "a" / "seed0-1"
    half.mkdir(parents=True)
    (folder / "log.txt").rename(half / "log.txt")  # as far as a killed process got
    assert archive_run(folder) == half and archive_run(folder) is None
    assert {path.name for path in half.iterdir()} == {"run.json", "model.safetensors", "log.txt"}


FAILURES = {
    "TrainingError": (TrainingError("step 3: expected finite losses"), "step 3: expected finite losses"),
    "memory": (MemoryError(), "out of memory: use workers=1"),
    "allocator": (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "out of memory: use workers=1"),
    "disk full": (OSError(errno.ENOSPC, "No space left", "/x/run.json"), "the disk is full (/x/run.json): make room"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y: cannot be written (Read-only file"),
    "disk full, by NumPy": (OSError("80000 requested and 0 written"), "the disk is full (80000 requested"),
    "disk full, by safetensors": (RuntimeError("I/O error: No space left on device"), "the disk is full (I/O error"),
    "a folder": (IsADirectoryError(errno.EISDIR, "Is a directory", "/x/y"), "/x/y: Is a directory: remove what is"),
    "deleted": (FileNotFoundError(errno.ENOENT, "No such file", "/x/stages"), "/x/stages"),
    "killed": (WorkerLost("its process died (killed, or out of memory?)"), "its process died"),
    "a mistake": (KeyError("surprise"), "KeyError: 'surprise' (its log has the traceback)"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_run_that_fails_says_why_and_the_others_continue(lab, kind, capsys):
    error, message = FAILURES[kind]
    lab.fail["a"] = error
    outcome, made, printed = lab.go()
    assert made == ["a", "b"] and list(outcome.failures) == ["study: a seed 0"] and len(outcome.records) == 1
    assert message in outcome.failures["study: a seed 0"] and "FAILED study: a seed 0" in printed
    folder = lab.outputs / "study" / "a" / "seed0"
    status = load_status(folder / "status.json")
    assert status.state == "failed" and message in status.message and "\n" not in status.message
    assert type(error).__name__ in (folder / "log.txt").read_text()
    assert load_status(lab.outputs / "study" / "b" / "seed0" / "status.json").state == "done"
    assert command.conclude(outcome) == 1 and "Traceback" not in capsys.readouterr().out + printed
    lab.fail.clear()
    assert lab.go()[1] == ["a"], "the same command continues"
    assert command.conclude(Outcome()) == 0


def test_a_stage_that_fails_stops_only_the_runs_that_depend_on_it(lab):
    def fails_at_32(stages, log):
        if stages.config.stride == 32:
            raise TrainingError("no luck")

    lab.work["proposals"] = fails_at_32
    outcome, made, _ = lab.go()
    assert made == ["a"] and "depends on failed" in outcome.failures["study: b seed 0"]
    assert [load_status(path).message for path in lab.outputs.glob("stages/work/proposals-stride-32*/status.json")] == [
        "no luck"
    ]


def test_a_folder_that_cannot_be_written_fails_only_its_run(lab):
    (lab.outputs / "study").mkdir()
    (lab.outputs / "study" / "a").symlink_to("/proc/self")
    outcome, made, printed = lab.go()
    assert made == ["b"] and "study: a seed 0" in outcome.failures and "FAILED study: a seed 0: " in printed


def test_a_stop_lets_running_jobs_end_and_starts_no_more(lab, capfd):
    lab.before = lambda: signal.raise_signal(signal.SIGINT)
    outcome, made, _ = lab.go()
    assert lab.launcher.stop_requested and outcome.interrupted and made == ["a"] and len(outcome.records) == 1
    assert command.conclude(outcome) == 130
    captured = capfd.readouterr()
    assert "stopping after the next checkpoint" in captured.err and "run the same command again" in captured.out


def test_a_hangup_of_the_terminal_stops_like_ctrl_c_unless_nohup_ignores_it(lab):
    lab.before = lambda: signal.raise_signal(signal.SIGHUP)
    outcome, made, _ = lab.go()
    assert lab.launcher.stop_requested and outcome.interrupted and made == ["a"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert not lab.go()[0].interrupted
    finally:
        signal.signal(signal.SIGHUP, before)


def test_running_jobs_stop_when_nothing_can_be_printed_any_more(lab):
    def print_line(line):
        raise OutputLost("Broken pipe")

    with pytest.raises(OutputLost):
        execute(lab.runs(), print_line=print_line, launch=lab.launch, work=lab.work)
    assert lab.launcher.stop_requested
    assert len(lab.go()[0].records) == 2, "the same command continues"


def test_a_run_of_another_process_is_waited_for_and_its_record_used(lab):
    run = lab.runs()[0]
    ready, finish = threading.Event(), threading.Event()

    def other_process():
        with locked(run.folder / LOCK):
            ready.set()
            finish.wait(10)
            lab.run_arm(run, None)

    other = threading.Thread(target=other_process)
    other.start()
    ready.wait(10)
    lab.before = lambda: threading.Timer(0.5, finish.set).start()
    outcome, made, printed = lab.go()
    other.join()
    assert sorted(made) == ["a", "b"] and made[0] == "b", "the other run first; none twice"
    assert "waiting for study: a seed 0, which another process is running" in printed and len(outcome.records) == 2


def test_a_lock_is_free_again_when_its_process_is_killed(tmp_path):
    holds = "import sys, time; from data.folders import *\nwith locked(Path(sys.argv[1])): time.sleep(60)"
    command = [sys.executable, "-c", holds, str(tmp_path / "lock")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 10
    while not held(tmp_path / "lock") and time.monotonic() < deadline:
        time.sleep(0.01)
    with locked(tmp_path / "lock", wait=False) as acquired:
        assert not acquired
    process.kill()
    process.wait()
    with locked(tmp_path / "lock", wait=False) as acquired:
        assert acquired and held(tmp_path / "lock")
    assert not held(tmp_path / "lock") and not held(tmp_path / "nothing")


def test_the_times_of_files_decide_nothing(lab):
    """Clocks of machines differ, and jump."""
    lab.go()
    for path, seconds in zip(sorted(lab.outputs.glob("study/*/seed0/run.json")), (0, 4 * 10**9), strict=True):
        os.utime(path, (seconds, seconds))
    assert lab.go()[1] == []


def test_a_record_names_its_code_version(lab):
    lab.go()
    assert record_of(lab, "a").provenance["code"] == code_version.code_version()
    assert Path(lab.outputs / "study/a/seed0/status.json").exists()
    assert json.loads((lab.outputs / "study/a/seed0/status.json").read_text())["state"] == "done"
