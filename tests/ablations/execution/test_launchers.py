"""Launchers: where jobs run, on which GPU, and what comes back when one fails or its process dies."""

import contextlib
import dataclasses
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.config import validation
from ablations.config.loading import from_hydra
from ablations.config.schema import LauncherConfig
from ablations.errors import ConfigError, Stopped, TrainingError, WorkerLost
from ablations.execution.cluster import POLL, RequeuedCall
from ablations.execution.launchers import make_launcher
from ablations.execution.local import ONE_REQUEST, LocalLauncher, stop_signals
from ablations.machine import visible_gpus
from ablations.records.run_log import write_status
from ablations.records.schema import Status
from ablations.training.stopping import check_stop

pytestmark = pytest.mark.slow

CLUSTERS = {"ray": LauncherConfig("ray", address="local"), "submitit": LauncherConfig("submitit", cluster="local")}


def gpu_of_a_worker(folder: Path, number: int) -> str | None:
    """Which GPU this worker sees, once another worker is here too."""
    (folder / str(number)).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def never() -> bool:
    """No stop is requested."""
    return False


def fail(message: str) -> None:
    raise TrainingError(message)


@pytest.mark.slow
def test_workers_share_the_gpus(tmp_path):
    workers = LocalLauncher(2, 1, ["3", "5"])
    try:
        futures = [workers.submit(gpu_of_a_worker, tmp_path, number) for number in range(2)]
        assert {workers.result(future) for future in futures} == {"3", "5"}
    finally:
        workers.close()


def test_only_the_gpus_that_the_user_allows_are_used(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus("auto") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    assert visible_gpus("cuda") == ["6", "7"]
    assert visible_gpus("cpu") == []


def stop_if_asked() -> None:
    """A job that ends when it is asked to, or after half a minute."""
    for _ in range(300):
        time.sleep(0.1)
        check_stop()


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""Addresses of this machine itself, as /proc/net writes them."""


def sockets_of(pid: int) -> set[str]:
    """Addresses and ports on which a process and those that it started listen; none where there is no /proc/net."""
    if not Path("/proc/net/tcp").exists():
        return set()
    tables = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    listening = {row[9]: row[1] for row in tables if row[3] == "0A"}
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    sockets = {listening[inode] for inode in held & listening.keys()}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                sockets |= sockets_of(int(child))
    return sockets


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_job_on_a_cluster_returns_its_result_its_error_or_its_loss(kind, compose, tmp_path, monkeypatch):
    pytest.importorskip(kind)
    monkeypatch.chdir(tmp_path)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    config = dataclasses.replace(from_hydra(compose([])), launcher=CLUSTERS[kind], outputs=str(outputs), threads=1)
    before = sockets_of(os.getpid())
    launcher = make_launcher(dataclasses.replace(config, workers=4), 4, never)
    try:
        answer, error, end, asked = (
            launcher.submit(os.getcwd),
            launcher.submit(fail, "expected finite losses"),
            launcher.submit(os._exit, 1),
            launcher.submit(stop_if_asked),
        )
        assert launcher.free_slots == 0
        assert launcher.result(answer) == str(tmp_path)
        if kind == "ray" and Path("/proc/net/tcp").exists():  # its cluster is reached from this machine only
            addresses = {socket.partition(":")[0] for socket in sockets_of(os.getpid()) - before}
            assert addresses and addresses <= LOOPBACK
        with pytest.raises(TrainingError, match="^expected finite losses$"):
            launcher.result(error)
        with pytest.raises(WorkerLost):
            launcher.result(end)
        launcher.request_stop()
        with pytest.raises(Stopped):
            launcher.result(asked)
        assert launcher.free_slots == 4
    finally:
        launcher.close()
    assert not list(outputs.glob(".stop*"))


class Queued:
    """One of submitit's jobs, which Slurm has not begun or knows nothing about."""

    job_id, paths, cancelled = "7", SimpleNamespace(stderr="7_log.err"), False

    def __init__(self, state: str = "PENDING") -> None:
        self.state = state

    def done(self) -> bool:
        if self.state == "UNKNOWN":
            raise LookupError("sacct: command not found")
        return False

    def cancel(self, check: bool = True) -> None:
        self.cancelled = True
        if self.state == "UNKNOWN":
            raise FileNotFoundError("scancel: command not found")


@pytest.fixture
def slurm(compose, tmp_path, monkeypatch):
    """A launcher with submitit's executor for this machine, whose submissions a test may replace."""
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(from_hydra(compose([])), launcher=CLUSTERS["submitit"], outputs=str(tmp_path))
    launcher = make_launcher(dataclasses.replace(config, workers=2), 2, never)
    yield launcher
    launcher.close()


def test_a_stop_cancels_jobs_that_wait_in_the_queue(slurm, monkeypatch):
    job = Queued()
    monkeypatch.setattr(slurm.submitter, "submit", lambda *_: job)
    future = slurm.submit(os.getcwd)
    with pytest.raises(TimeoutError):
        future.result(timeout=3 * POLL)
    assert not job.cancelled
    slurm.request_stop()
    with pytest.raises(Stopped):
        slurm.result(future)
    assert job.cancelled and slurm.free_slots == 2


def test_a_job_that_slurm_does_not_know_is_lost_and_others_are_still_watched(slurm, monkeypatch):
    first, second = Queued("UNKNOWN"), Queued()
    jobs = iter([first, second])
    monkeypatch.setattr(slurm.submitter, "submit", lambda *_: next(jobs))
    with pytest.raises(WorkerLost, match="Slurm job 7 returned nothing .*7_log.err"):
        slurm.result(slurm.submit(os.getcwd))
    deadline = time.monotonic() + 10
    while slurm.slurm_jobs and time.monotonic() < deadline:
        time.sleep(0.05)
    assert first.cancelled  # or it would run beside the one that replaces it
    waiting = slurm.submit(os.getcwd)
    slurm.request_stop()
    with pytest.raises(Stopped):
        slurm.result(waiting)


def test_the_stop_file_is_removed_even_where_jobs_cannot_be_cancelled(slurm, monkeypatch, tmp_path):
    job = Queued()
    monkeypatch.setattr(slurm.submitter, "submit", lambda *_: job)
    slurm.submit(os.getcwd)
    slurm.closed.set()
    slurm.watcher.join()
    slurm.request_stop()
    job.state = "UNKNOWN"
    slurm.close()
    assert job.cancelled and not list(tmp_path.glob(".stop*"))


class Place:
    """Something with a folder, as a job of the scheduler has."""

    def __init__(self, folder):
        self.folder = folder

    def write_step(self, step):
        write_status(self.folder, Status("test", "running", "training", step, 9, 0, 1, "", "", ""))


def work_until_the_time_limit(place):
    """Counts its attempts in place.folder; the first gets, at step 5, the signal that Slurm sends before the limit."""
    attempts = len(list(place.folder.glob("attempt*"))) + 1
    (place.folder / f"attempt{attempts}").touch()
    place.write_step(5)
    if attempts == 1:
        signal.raise_signal(signal.SIGUSR2)
    return attempts


@pytest.fixture
def time_limit(compose, tmp_path, monkeypatch):
    """A launcher with submitit's executor for this machine: it starts the job again as Slurm does."""
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    cluster = LauncherConfig("submitit", cluster="local", options={"timeout_min": 5})
    config = dataclasses.replace(from_hydra(compose([])), launcher=cluster, outputs=str(tmp_path), threads=1)
    launcher = make_launcher(config, 1, never)
    (tmp_path / "work").mkdir()
    yield launcher
    launcher.close()
    assert not (tmp_path / "submitit").exists(), "what submitit wrote is removed"


@pytest.mark.slow
def test_a_slurm_job_goes_on_after_its_time_limit(time_limit, tmp_path):
    assert time_limit.result(time_limit.submit(work_until_the_time_limit, Place(tmp_path / "work"))) == 2


@pytest.mark.slow
def test_a_slurm_job_that_gets_nowhere_is_ended_with_advice(time_limit, tmp_path, monkeypatch):
    """From its third attempt on; the first two are told in the next test."""
    submit = time_limit.submitter.submit
    monkeypatch.setattr(time_limit.submitter, "submit", lambda _, *job: submit(RequeuedCall(step=5, stuck=1), *job))
    future = time_limit.submit(work_until_the_time_limit, Place(tmp_path / "work"))
    with pytest.raises(TrainingError, match="3 times at step 5: raise launcher.options.timeout_min"):
        time_limit.result(future)


def test_attempts_that_end_at_the_same_step_are_counted_until_one_advances(tmp_path):
    pytest.importorskip("submitit")
    place, attempt = Place(tmp_path), RequeuedCall()
    for step, stuck in ((3, 0), (3, 1), (5, 0), (5, 1)):
        place.write_step(step)
        attempt = attempt.checkpoint(None, work_until_the_time_limit, (place,)).function
        assert attempt == RequeuedCall(step, stuck)
    with pytest.raises(TrainingError, match="3 times at step 5"):
        attempt.checkpoint(None, work_until_the_time_limit, (place,))


@pytest.mark.parametrize(
    ("state", "advice"), [("TIMEOUT", "timeout_min"), ("OUT_OF_MEMORY", "mem_gb"), ("FAILED", None)]
)
def test_a_job_that_slurm_ended_says_what_to_raise_and_only_its_log_is_kept(slurm, monkeypatch, state, advice):
    class Ended(Queued):
        def done(self):
            return True

        def result(self):
            raise RuntimeError("the whole log")

    for name in ("7_submitted.pkl", "7_0_log.err", "8_submitted.pkl"):
        (slurm.folder / name).touch()
    monkeypatch.setattr(slurm.submitter, "submit", lambda *_: Ended(state))
    with pytest.raises(WorkerLost) as lost:
        slurm.result(slurm.submit(os.getcwd))
    assert (f"raise launcher.options.{advice}" if advice else "7_log.err") in str(lost.value)
    deadline = time.monotonic() + 10
    while slurm.slurm_jobs and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(path.name for path in slurm.folder.iterdir()) == ["7_0_log.err", "8_submitted.pkl"]


def test_a_missing_package_is_refused_with_the_command_that_installs_it(compose, monkeypatch):
    monkeypatch.setattr(validation.importlib.util, "find_spec", lambda name: None)
    extras = {"launcher=ray": "ray", "launcher=submitit": "slurm", "logger=tensorboard": "tensorboard"}
    for setting, extra in extras.items():
        with pytest.raises(ConfigError, match=rf"{setting}: .* pip install -e '\.\[{extra}\]'"):
            from_hydra(compose([setting]))


def test_options_of_a_wrong_type_are_refused(compose, tmp_path):
    pytest.importorskip("submitit")
    settings = ["launcher=submitit", "launcher.cluster=local", "launcher.options.timeout_min=4h"]
    config = from_hydra(compose([*settings, f"outputs={tmp_path}"]))
    with pytest.raises(ConfigError, match="cannot be used: .*timeout_min"):
        make_launcher(config, 1, never)


def test_launcher_submitit_without_slurm_is_refused(compose, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    config = from_hydra(compose(["launcher=submitit", f"outputs={tmp_path}"]))
    with pytest.raises(ConfigError, match="srun"):
        make_launcher(config, 1, never)


def test_the_launcher_does_not_affect_the_config_hash(compose):
    assert from_hydra(compose(["launcher=submitit"])).hash() == from_hydra(compose([])).hash()


def test_two_signals_of_timeout_are_one_request_and_a_later_one_is_another(monkeypatch):
    """`timeout` signals the process and then its group."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with stop_signals() as stopped:
        assert not stopped()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # or both would be delivered at once
        assert stopped() and not ended
        time.sleep(ONE_REQUEST)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [130]
