"""What is done, done again, waited for or left alone; and what failures leave behind. Runs are faked, files are not."""

import dataclasses
import errno
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from ablations import cli
from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.errors import TrainingError, WorkerLost
from ablations.execution import finished, scheduler
from ablations.execution.finished import set_aside
from ablations.records import code_version
from ablations.records.schema import RunRecord
from ablations.records.storage import LOCK, load_run, load_status, save
from data.folders import held, locked


class Inline:
    """An engine with two places that computes where it is called."""

    count = free = 2

    def __init__(self):
        self.stopped = False

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def result(self, future):
        return future.result()

    def ask_to_stop(self):
        self.stopped = True

    def close(self):
        pass


class Lab:
    """Two runs, the engine, and what happens when one of them is carried out: a record, or what `fail` says."""

    def __init__(self, configure, outputs, monkeypatch):
        self.configure, self.outputs = configure, outputs
        self.fail, self.made, self.said, self.before = {}, [], [], lambda: None
        self.engine, self.count = Inline(), itertools.count()
        for name in ("make_data", "make_backbone", "make_proposals"):
            monkeypatch.setattr(scheduler, name, lambda stages, job: None)
        monkeypatch.setattr(scheduler, "run_arm", self.run_arm)
        monkeypatch.setattr(scheduler, "start", lambda *_: self.engine)
        monkeypatch.setattr(scheduler, "POLL", 0.01)

    def run_arm(self, run, job):
        config, arm = run.config, run.arm
        self.made.append(arm)
        self.before()
        if arm in self.fail:
            raise self.fail[arm]
        made_by = {"code": finished.code_version()}
        cost = {"train_seconds": 1.0, "eval_seconds": 1.0}
        metrics = {"bbox": {"AP": float(next(self.count))}}
        parts = (config.settings(), config.hash(), {}, scheduler.stages_of(config).keys, 3, 9, {})
        record = RunRecord(run.study, arm, config.seed, *parts, metrics, cost, made_by)
        (run.folder / "model.safetensors").write_text("weights")
        save(record, run.folder / "run.json")
        return record

    def runs(self, *overrides):
        config = self.configure("budget=smoke", f"outputs={self.outputs}", *overrides)
        return [Run("study", "a", config), Run("study", "b", dataclasses.replace(config, stride=32))]

    def go(self, *overrides):
        """(Outcome, arms that were carried out, what was said)."""
        self.made.clear(), self.said.clear()
        return scheduler.execute(self.runs(*overrides), self.said.append), list(self.made), "\n".join(self.said)


@pytest.fixture
def lab(compose, tmp_path, monkeypatch):
    return Lab(lambda *overrides: from_hydra(compose(list(overrides))), tmp_path, monkeypatch)


def record_of(lab, arm):
    return load_run(lab.outputs / "study" / arm / "seed0" / "run.json")


def test_finished_runs_are_not_done_again(lab):
    assert lab.go()[1] == ["a", "b"]
    outcome, made, said = lab.go()
    assert made == [] and len(outcome.records) == 2 and "2 of 2 runs are done already" in said
    assert lab.go("checkpoint.seconds=5", "workers=1")[1] == [], "settings that do not decide the result"


def change_settings(lab, monkeypatch):
    return ["data.noise=1"], "settings changed: data.noise 2 -> 1"


def change_code(lab, monkeypatch):
    monkeypatch.setattr(finished, "code_version", lambda: "another")
    return [], "the code changed since (code=keep would take it as it is)"


def change_stages(lab, monkeypatch):
    monkeypatch.setattr("ablations.stages.store.STAGE_VERSION", 99)
    return [], "the data or the stages that it stands on changed"


def spoil_records(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/run.json"):
        path.write_text('{"schema": 1, "arm"')
    return [], "its record cannot be read"


def force(lab, monkeypatch):
    return ["force=true"], "force=true"


@pytest.mark.parametrize("change", [change_settings, change_code, change_stages, spoil_records, force])
def test_what_changed_is_done_again_with_the_reason_and_the_old_run_kept(lab, monkeypatch, change):
    lab.go()
    overrides, reason = change(lab, monkeypatch)
    old = {path.parent.parent.name: path.read_bytes() for path in lab.outputs.glob("study/*/seed0/run.json")}
    outcome, made, said = lab.go(*overrides)
    assert made == ["a", "b"] and not outcome.failures
    assert f"done again: a seed 0, b seed 0: {reason}" in said and str(lab.outputs / "study" / "replaced") in said
    for arm, content in old.items():
        kept = lab.outputs / "study" / "replaced" / arm / "seed0-1"
        assert (kept / "run.json").read_bytes() == content and (kept / "model.safetensors").exists()
    if change is not force:
        assert lab.go(*overrides)[1] == []


def test_code_keep_takes_finished_runs_as_they_are(lab, monkeypatch):
    lab.go()
    change_code(lab, monkeypatch)
    assert lab.go("code=keep")[1] == []


def test_with_the_old_settings_come_back_the_old_runs(lab):
    lab.go()
    before = record_of(lab, "a").metrics
    assert lab.go("data.noise=1")[1] == ["a", "b"] and record_of(lab, "a").metrics != before
    _, made, said = lab.go()
    assert made == [] and record_of(lab, "a").metrics == before and record_of(lab, "a").taken_from == ""
    assert "a seed 0: taken over from replaced runs" in said
    assert len(list(lab.outputs.glob("study/replaced/a/seed0-*/run.json"))) == 2


def test_setting_a_run_aside_can_be_cut_short(tmp_path):
    folder = tmp_path / "study" / "a" / "seed0"
    folder.mkdir(parents=True)
    for name in ("run.json", "model.safetensors", "log.txt"):
        (folder / name).write_text(name)
    half = tmp_path / "study" / "replaced" / "a" / "seed0-1"
    half.mkdir(parents=True)
    (folder / "log.txt").rename(half / "log.txt")  # as far as a killed process got
    assert set_aside(folder) == half and set_aside(folder) is None
    assert {path.name for path in half.iterdir()} == {"run.json", "model.safetensors", "log.txt"}


FAILURES = {
    "TrainingError": (TrainingError("step 3: expected finite losses"), "step 3: expected finite losses"),
    "memory": (MemoryError(), "out of memory: use workers=1"),
    "allocator": (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "out of memory: use workers=1"),
    "disk full": (OSError(errno.ENOSPC, "No space left", "/x/run.json"), "the disk is full (/x/run.json): make room"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y: cannot be written (Read-only file"),
    "deleted": (FileNotFoundError(errno.ENOENT, "No such file", "/x/stages"), "/x/stages"),
    "killed": (WorkerLost("its process died (killed, or out of memory?)"), "its process died"),
    "a mistake": (KeyError("surprise"), "KeyError: 'surprise' (its log has the traceback)"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_run_that_fails_says_why_and_the_others_go_on(lab, kind, capsys):
    error, message = FAILURES[kind]
    lab.fail["a"] = error
    outcome, made, said = lab.go()
    assert made == ["a", "b"] and list(outcome.failures) == ["study: a seed 0"] and len(outcome.records) == 1
    assert message in outcome.failures["study: a seed 0"] and "FAILED study: a seed 0" in said
    folder = lab.outputs / "study" / "a" / "seed0"
    status = load_status(folder / "status.json")
    assert status.state == "failed" and message in status.message and "\n" not in status.message
    assert type(error).__name__ in (folder / "log.txt").read_text()
    assert load_status(lab.outputs / "study" / "b" / "seed0" / "status.json").state == "done"
    assert cli.conclude(outcome) == 1 and "Traceback" not in capsys.readouterr().out + said
    lab.fail.clear()
    assert lab.go()[1] == ["a"], "the same command goes on"
    assert cli.conclude(scheduler.Outcome()) == 0


def test_a_stage_that_fails_stops_only_what_stands_on_it(lab, monkeypatch):
    def fails_at_32(stages, job):
        if stages.config.stride == 32:
            raise TrainingError("no luck")

    monkeypatch.setattr(scheduler, "make_backbone", fails_at_32)
    outcome, made, _ = lab.go()
    assert made == ["a"] and "not started" in outcome.failures["study: b seed 0"]
    assert [load_status(path).message for path in lab.outputs.glob("stages/work/backbone-stride-32*/status.json")] == [
        "no luck"
    ]


def test_a_folder_that_cannot_be_written_fails_its_run_only(lab):
    (lab.outputs / "study").mkdir()
    (lab.outputs / "study" / "a").symlink_to("/proc/self")
    outcome, made, said = lab.go()
    assert made == ["b"] and "study: a seed 0" in outcome.failures and "FAILED study: a seed 0: " in said


def test_a_stop_lets_what_has_begun_end_and_starts_nothing_more(lab, monkeypatch, capsys):
    monkeypatch.setattr(scheduler, "stop_signals", lambda: Stop(lab))
    outcome, made, _ = lab.go()
    assert lab.engine.stopped and outcome.interrupted and made == ["a"] and len(outcome.records) == 1
    assert cli.conclude(outcome) == 130 and "give the same command again" in capsys.readouterr().out


class Stop:
    """As `stop_signals`, with a signal that comes while the first run is being done."""

    def __init__(self, lab):
        lab.engine.count = lab.engine.free = 1
        Inline.free = 1
        self.lab = lab

    def __enter__(self):
        return lambda: bool(self.lab.made)

    def __exit__(self, *_):
        Inline.free = 2


def test_a_run_that_another_process_is_at_is_waited_for_and_its_record_taken(lab):
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
    outcome, made, said = lab.go()
    other.join()
    assert sorted(made) == ["a", "b"] and made[0] == "b", "the other run first; none twice"
    assert "waiting for another process that is at study: a seed 0" in said and len(outcome.records) == 2


def test_a_lock_is_free_again_when_its_process_is_killed(tmp_path):
    holds = "import sys, time; from data.folders import *\nwith locked(Path(sys.argv[1])): time.sleep(60)"
    command = [sys.executable, "-c", holds, str(tmp_path / "lock")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 10
    while not held(tmp_path / "lock") and time.monotonic() < deadline:
        time.sleep(0.01)
    with locked(tmp_path / "lock", wait=False) as ours:
        assert not ours
    process.kill()
    process.wait()
    with locked(tmp_path / "lock", wait=False) as ours:
        assert ours and held(tmp_path / "lock")
    assert not held(tmp_path / "lock") and not held(tmp_path / "nothing")


def test_records_of_other_clocks_are_as_good(lab):
    """Nothing is decided by the time of a file: clocks jump."""
    lab.go()
    for path, seconds in zip(sorted(lab.outputs.glob("study/*/seed0/run.json")), (0, 4 * 10**9), strict=True):
        os.utime(path, (seconds, seconds))
    assert lab.go()[1] == []


def test_the_code_version_is_of_what_decides_results():
    text = '"""Doc."""\nimport x\n\ndef f(a):\n    """Doc."""\n    # why\n    return a + 1\n\nA = 1\n"""What A is."""\n'
    same = "import x\ndef f(a):\n    return (a +\n 1)  # other\nA = 1\n"
    meaning = lambda source: code_version.meaning(code_version.ast.parse(source))  # noqa: E731
    assert meaning(text) == meaning(same) != meaning(same.replace("1)", "2)"))
    modules = set(code_version.deciding_modules())
    assert {
        "ablations.training.loop",
        "ablations.training.batches",
        "ablations.stages.make",
        "ablations.stages.pretraining",
        "ablations.tasks.detection",
        "ablations.tasks.proposals",
        "models.mask_rcnn",
        "models.fcis",
        "ops.roi_align",
        "data.shapes",
    } <= modules
    assert not modules & {
        "ablations.cli",
        "ablations.execution.scheduler",
        "ablations.tracking.trackers",
        "data.download",
        "ops.bench.cases",
    }
    assert len(code_version.code_version()) == 12


def test_a_change_of_a_kernel_in_c_is_another_version(monkeypatch, tmp_path):
    assert "ops.cpu.compiled" in code_version.deciding_modules() and (code_version.ROOT / "ops/cpu/compiled.c").exists()
    (tmp_path / "pool.py").write_text("SOURCE = 'pool.c'")
    monkeypatch.setattr(code_version, "ROOT", tmp_path)
    versions = []
    for kernel in ("int one;", "int two;", "int one;"):
        (tmp_path / "pool.c").write_text(kernel)
        versions.append(code_version.version_of(["pool"]))
    assert versions[0] == versions[2] != versions[1]


def test_a_record_names_its_code(lab):
    lab.go()
    assert record_of(lab, "a").provenance["code"] == code_version.code_version()
    assert Path(lab.outputs / "study/a/seed0/status.json").exists()
    assert json.loads((lab.outputs / "study/a/seed0/status.json").read_text())["state"] == "done"
