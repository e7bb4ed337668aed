"""Tasks on other machines: a Ray cluster, or Slurm jobs through submitit. Both packages are optional.

On a shared file system, a file in the outputs tells tasks anywhere to stop.
"""

import logging
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablations.config.schema import Config
from ablations.errors import ConfigError, Stopped, WorkerLost
from ablations.training.stopping import stop_when

ROOT = Path(__file__).parents[2]
POLL = 0.5
"""Seconds between looks at whether Slurm jobs are done, and of a task at whether it shall stop."""


@dataclass(frozen=True)
class Place:
    """What a task must know to run as if in a worker process of the machine where the command was given."""

    folder: str
    threads: int
    stop_file: Path


@dataclass(frozen=True)
class Answer:
    """What a task gave; an engine would hand on an error with its traceback in the message."""

    value: Any = None
    error: Exception | None = None


def call(place: Place, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    """function(*arguments), in a process of the engine."""
    os.chdir(place.folder)
    torch.set_num_threads(place.threads)
    stop_when(_seldom(place.stop_file.exists))
    try:
        return Answer(function(*arguments))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever an exception of some library raises when it is copied
            return Answer(error=RuntimeError(f"{type(error).__name__}: {error}"))
        return Answer(error=error)


def _seldom(ask: Callable[[], bool]) -> Callable[[], bool]:
    """`ask`, but not at every training step."""
    asked, answer = 0.0, False

    def latest() -> bool:
        nonlocal asked, answer
        if time.monotonic() - asked > POLL:
            asked, answer = time.monotonic(), ask()
        return answer

    return latest


class Cluster:
    """What Ray and Slurm have in common."""

    def __init__(self, config: Config, count: int, threads: int) -> None:
        self.count, self.busy = count, 0
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.place = Place(os.getcwd(), threads, Path(config.outputs).absolute() / f".stop-{name}")

    @property
    def free(self) -> int:
        return self.count - self.busy

    def result(self, future: Future[Any]) -> Any:
        self.busy -= 1
        answer: Answer = future.result()
        if answer.error is not None:
            raise answer.error
        return answer.value

    def ask_to_stop(self) -> None:
        self.place.stop_file.touch()

    def close(self) -> None:
        self.place.stop_file.unlink(missing_ok=True)


class Ray(Cluster):
    """Tasks of a Ray cluster, each with as many CPUs as it has threads and, where there are any, a GPU."""

    def __init__(self, config: Config, num_runs: int) -> None:
        import ray

        _share_imports()
        try:
            ray.init(address=config.launcher.address, include_dashboard=False, logging_level=logging.WARNING)
        except Exception as error:  # Ray raises Exception itself where a machine is too busy to start in time
            address = config.launcher.address or os.environ.get("RAY_ADDRESS") or "this machine"
            raise ConfigError(f"launcher=ray: expected a Ray cluster at {address}, got {error}") from error
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
        gpus = 0 if config.device == "cpu" else int(sum(machine.get("GPU", 0) for machine in machines))
        if not cpus or (config.device == "cuda" and not gpus):
            ray.shutdown()
            raise ConfigError(f"device={config.device}: expected a Ray cluster that has it, got {machines}")
        count = min(config.workers or gpus or sum(cpus), num_runs)
        # As in worker processes of one machine, but no more than the smallest has: a task might wait for ever.
        super().__init__(config, count, config.threads or max(min(sum(cpus) // count, *cpus), 1))
        self.ray = ray
        # No second try by Ray: a run that lost its worker is reported, and the same command goes on with it.
        self.remote = ray.remote(num_cpus=self.place.threads, num_gpus=1 if gpus else 0, max_retries=0)(call)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.busy += 1
        future: Future[Any] = self.remote.remote(self.place, function, arguments).future()
        return future

    def result(self, future: Future[Any]) -> Any:
        try:
            return super().result(future)
        except self.ray.exceptions.RayError as error:
            first = str(error).strip().partition("\n")[0]
            raise WorkerLost(f"Ray lost its process ({type(error).__name__}: {first})") from error

    def close(self) -> None:
        self.ray.shutdown()
        super().close()


class Slurm(Cluster):
    """One Slurm job for each task, through submitit."""

    def __init__(self, config: Config, num_runs: int) -> None:
        import submitit

        _share_imports()
        launcher, threads = config.launcher, config.threads or 1
        super().__init__(config, min(config.workers or num_runs, num_runs), threads)
        folder = Path(config.outputs).absolute() / "submitit"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder.stat()
        if owner.st_uid != os.getuid() or owner.st_mode & 0o022:  # what lies there is unpickled
            raise ConfigError(f"{folder}: expected a folder that nobody else can write to; remove it or chmod go-w")
        gpus = {"gpus_per_node": 1} if config.device == "cuda" else {}
        try:
            self.submitter = submitit.AutoExecutor(folder=folder, cluster=launcher.cluster)
            self.submitter.update_parameters(name="ablation", cpus_per_task=threads, **gpus, **launcher.options)
        except (RuntimeError, TypeError, ValueError, NameError) as error:
            raise ConfigError(f"launcher=submitit: cluster={launcher.cluster} cannot be used: {error}") from error
        self.jobs: dict[Future[Any], Any] = {}
        self.closed = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.busy += 1
        future: Future[Any] = Future()
        try:
            self.jobs[future] = self.submitter.submit(call, self.place, function, arguments)
        except RuntimeError as error:
            future.set_exception(WorkerLost(f"Slurm did not take the job: {error}"))
        return future

    def close(self) -> None:
        self.closed.set()
        self.watcher.join()
        for job in self.jobs.values():
            _cancel(job)
        super().close()

    def _watch(self) -> None:
        while not self.closed.wait(POLL):
            for future, job in list(self.jobs.items()):
                try:
                    if self.place.stop_file.exists() and job.state.upper() == "PENDING":
                        job.cancel(check=False)  # it may wait in the queue for hours
                        future.set_exception(Stopped("stopped before it began"))
                    elif job.done():
                        future.set_result(job.result())
                    else:
                        continue
                except Exception as error:  # whatever else Slurm's commands raise: the study would wait for ever
                    reason, log = type(error).__name__, job.paths.stderr  # the text of submitit's own is the whole log
                    future.set_exception(WorkerLost(f"job {job.job_id} gave no answer ({reason}); see {log}"))
                    _cancel(job)  # it may still be at work, which is done again
                del self.jobs[future]


def _cancel(job: Any) -> None:
    """Slurm's commands may be missing or fail, which is no reason to leave the rest undone."""
    with suppress(Exception):
        job.cancel(check=False)


def _share_imports() -> None:
    """Processes that are started from here on find this checkout, wherever the command was given."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
