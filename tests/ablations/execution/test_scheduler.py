"""Which runs are executed, waited for or left alone, and what failures leave behind. Training is faked."""

import errno
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablations.errors import TrainingError, WorkerLost
from ablations.execution import command
from ablations.execution.scheduler import Outcome, execute
from ablations.records.storage import LOCK, load_status
from data.folders import held, locked
from data.terminal import OutputLost

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
