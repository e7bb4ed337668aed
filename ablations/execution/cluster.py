"""Launchers for other machines: a Ray cluster, or Slurm through submitit. Both packages are optional.

A file in the outputs, on the shared file system, tells jobs on any machine to stop.
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
from ablations.errors import ConfigError, Stopped, TrainingError, WorkerLost
from ablations.paths import ROOT
from ablations.records.storage import load_status
from ablations.training.stopping import stop_when

MOST_TIMEOUTS = 1000
"""How often a Slurm job is queued again after its time limit; submitit's default is 3."""

MOST_STUCK = 2
"""How many attempts in a row may end where the one before did."""

POLL = 0.5
"""Seconds between checks: whether Slurm jobs are done, and of a job whether it should stop."""


@dataclass(frozen=True)
class Environment:
    """What a job needs to run as if in a worker process of the machine where the command was given."""

    folder: str
    threads: int
    stop_file: Path


@dataclass(frozen=True)
class Answer:
    """What a job returned or raised. Ray and submitit would put a traceback into the message of a raised error."""

    value: Any = None
    error: Exception | None = None


def call(environment: Environment, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    """Calls function(*arguments); runs in the process that Ray or Slurm started for it."""
    os.chdir(environment.folder)
    torch.set_num_threads(environment.threads)
    stop_when(_at_most_every(POLL, environment.stop_file.exists))
    try:
        return Answer(function(*arguments))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever an exception of some library raises when it is copied
            return Answer(error=RuntimeError(f"{type(error).__name__}: {error}"))
        return Answer(error=error)


def _at_most_every(seconds: float, check: Callable[[], bool]) -> Callable[[], bool]:
    """The last answer of `check`, which is not called again within `seconds`: training asks at every step."""
    checked, answer = 0.0, False

    def latest() -> bool:
        nonlocal checked, answer
        if time.monotonic() - checked > seconds:
            checked, answer = time.monotonic(), check()
        return answer

    return latest


class ClusterLauncher:
    """What Ray and Slurm have in common."""

    def __init__(self, config: Config, num_slots: int, threads: int) -> None:
        self.num_slots, self.num_running = num_slots, 0
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.environment = Environment(os.getcwd(), threads, Path(config.outputs).absolute() / f".stop-{name}")

    @property
    def free_slots(self) -> int:
        return self.num_slots - self.num_running

    def result(self, future: Future[Any]) -> Any:
        self.num_running -= 1
        answer: Answer = future.result()
        if answer.error is not None:
            raise answer.error
        return answer.value

    def request_stop(self) -> None:
        self.environment.stop_file.touch()

    def close(self) -> None:
        self.environment.stop_file.unlink(missing_ok=True)


class RayLauncher(ClusterLauncher):
    """launcher=ray: each job gets as many CPUs as it has threads and, where the cluster has GPUs, one of them."""

    def __init__(self, config: Config, num_runs: int) -> None:
        import ray

        _share_imports()
        try:
            _join_or_start(ray, config.launcher.address)
        except Exception as error:  # Ray raises Exception itself where a machine is too busy to start in time
            address = config.launcher.address or os.environ.get("RAY_ADDRESS") or "this machine"
            raise ConfigError(f"launcher=ray: expected a Ray cluster at {address}, got: {error}") from error
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
        gpus = 0 if config.device == "cpu" else int(sum(machine.get("GPU", 0) for machine in machines))
        if not cpus or (config.device == "cuda" and not gpus):
            ray.shutdown()
            needed = "a GPU" if cpus else "CPUs"
            raise ConfigError(f"device={config.device}: expected a Ray cluster with {needed}, got {machines}")
        num_slots = min(config.workers or gpus or sum(cpus), num_runs)
        # As in worker processes of one machine, but no more than the smallest machine has: a job might wait for ever.
        super().__init__(config, num_slots, config.threads or max(min(sum(cpus) // num_slots, *cpus), 1))
        self.ray = ray
        # Ray itself retries nothing: a run that lost its worker is reported, and the same command continues it.
        self.remote = ray.remote(num_cpus=self.environment.threads, num_gpus=1 if gpus else 0, max_retries=0)(call)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.num_running += 1
        future: Future[Any] = self.remote.remote(self.environment, function, arguments).future()
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


def _join_or_start(ray: Any, address: str | None) -> None:
    """Joins the cluster at `address` or that this machine belongs to; else starts one for this machine alone."""
    options: dict[str, Any] = {"include_dashboard": False, "logging_level": logging.WARNING}
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        with suppress(ConnectionError):
            ray.init(address="auto", **options)
            return
    if address in (None, "local"):
        # Ray listens on all networks by default. This switch, meant for macOS and Windows, keeps it to 127.0.0.1.
        from ray._private import ray_constants

        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for Ray's processes
        ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which may have imported it before
    ray.init(address=address or "local", **options)


@dataclass(frozen=True)
class RequeuedCall:
    """`call`, for submitit: a preempted job, or one at its time limit, is queued again, as long as it makes progress.

    step:  where its training was at the end of the last attempt
    stuck: how many attempts have ended there
    """

    step: int = -1
    stuck: int = 0

    def __call__(self, *arguments: Any) -> Answer:
        return call(*arguments)

    def checkpoint(self, environment: Environment, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What submitit is to queue; it calls this, in the midst of the work, shortly before the time limit.

        Nothing is saved here: training has its own checkpoints. Raises TrainingError after MOST_STUCK attempts that
        ended at the same step: what comes there, such as an evaluation, takes longer than the time limit.
        """
        import submitit

        folder = getattr(arguments[0], "folder", None) if arguments else None
        status = None if folder is None else load_status(Path(folder) / "status.json")
        step = self.step + 1 if status is None else status.step
        stuck = self.stuck + 1 if step <= self.step else 0
        if stuck >= MOST_STUCK:
            raise TrainingError(
                f"the time limit of its Slurm job ended {stuck + 1} times at step {step}: raise "
                "launcher.options.timeout_min (minutes), then give the same command again"
            )
        return submitit.helpers.DelayedSubmission(RequeuedCall(step, stuck), environment, function, arguments)


class SlurmLauncher(ClusterLauncher):
    """launcher=submitit: one Slurm job for each job of the scheduler. What submitit writes for it is removed after it,
    except the log of one that was lost."""

    def __init__(self, config: Config, num_runs: int) -> None:
        import submitit

        _share_imports()
        launcher, threads = config.launcher, config.threads or 1
        super().__init__(config, min(config.workers or num_runs, num_runs), threads)
        folder = Path(config.outputs).absolute() / "submitit"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder.stat()
        if owner.st_uid != os.getuid() or owner.st_mode & 0o022:  # its files are unpickled
            raise ConfigError(f"{folder}: expected a folder that only its owner can write to; remove it")
        gpus = {"gpus_per_node": 1} if config.device == "cuda" else {}
        self.folder, most = folder, {f"{launcher.cluster}_max_num_timeout": MOST_TIMEOUTS}
        try:
            self.submitter = submitit.AutoExecutor(folder=folder, cluster=launcher.cluster, **most)
            self.submitter.update_parameters(name="ablation", cpus_per_task=threads, **gpus, **launcher.options)
        except (AssertionError, RuntimeError, TypeError, ValueError, NameError) as error:
            raise ConfigError(f"launcher.cluster={launcher.cluster}: cannot be used: {error}") from error
        self.slurm_jobs: dict[Future[Any], Any] = {}
        self.closed = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.num_running += 1
        future: Future[Any] = Future()
        try:
            self.slurm_jobs[future] = self.submitter.submit(RequeuedCall(), self.environment, function, arguments)
        except RuntimeError as error:
            future.set_exception(WorkerLost(f"Slurm did not accept the job: {error}"))
        return future

    def close(self) -> None:
        self.closed.set()
        self.watcher.join()
        for job in self.slurm_jobs.values():
            _cancel(job)
            self._remove_files(job, logs=True)
        with suppress(OSError):
            self.folder.rmdir()  # if nothing is left in it
        super().close()

    def _watch(self) -> None:
        while not self.closed.wait(POLL):
            for future, job in list(self.slurm_jobs.items()):
                try:
                    if self.environment.stop_file.exists() and job.state.upper() == "PENDING":
                        job.cancel(check=False)  # it might wait in the queue for hours
                        future.set_exception(Stopped("stopped before it began"))
                    elif job.done():
                        result = job.result()
                        self._remove_files(job, logs=True)
                        future.set_result(result)
                    else:
                        continue
                except Exception as error:  # whatever else Slurm's commands raise: the study would wait for ever
                    reason, log = type(error).__name__, job.paths.stderr  # submitit's own message is the whole log
                    told = f"Slurm job {job.job_id} returned nothing ({reason}{_advice(job)}); see {log}"
                    future.set_exception(WorkerLost(told))
                    _cancel(job)  # it may still be running, and the same command starts it again
                    self._remove_files(job, logs=False)
                del self.slurm_jobs[future]

    def _remove_files(self, job: Any, logs: bool) -> None:
        for path in self.folder.glob(f"{job.job_id}_*"):
            if logs or path.suffix not in (".out", ".err"):
                path.unlink(missing_ok=True)


def _advice(job: Any) -> str:
    """What to raise, for a job that Slurm has ended by a limit."""
    with suppress(Exception):
        state = job.state.upper()
        if "TIMEOUT" in state:
            return ": its time limit ended: raise launcher.options.timeout_min"
        if "OUT_OF_ME" in state:
            return ": it needed more memory: raise launcher.options.mem_gb"
    return ""


def _cancel(job: Any) -> None:
    """Cancels a Slurm job if possible: where Slurm's commands are missing or fail, the others are still cancelled."""
    with suppress(Exception):
        job.cancel(check=False)


def _share_imports() -> None:
    """Lets the processes that are started from now on import this checkout, wherever the command was given."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
