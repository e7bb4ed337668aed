"""Launchers run jobs: in processes of this machine, on a Ray cluster, as Slurm jobs, or on all ranks of torchrun.

All of them call the same functions with the same number of threads in the folder where the command was given, so the
records do not depend on the launcher. Ray and Slurm need a file system that all machines share, with the checkout, the
data and the outputs under the same paths.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import torch

from ablations.config.schema import Config
from ablations.execution.cluster import RayLauncher, SlurmLauncher
from ablations.execution.local import LocalLauncher
from ablations.machine import cores, visible_gpus
from ablations.training import distributed
from ablations.training.stopping import stop_when


class Launcher(Protocol):
    """num_slots: how many jobs it runs at a time."""

    num_slots: int

    @property
    def free_slots(self) -> int:
        """How many jobs it can take now."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Calls function(*arguments) in a free slot, of which there must be one. Everything must be picklable."""

    def result(self, future: Future[Any]) -> Any:
        """What the function returned or raised; its slot is free again. Raises WorkerLost if its process died."""

    def request_stop(self) -> None:
        """Running jobs stop at their next opportunity."""

    def close(self) -> None:
        """Waits for what still runs and frees all resources."""


class InProcessLauncher:
    """Runs one job after another in this process: rank 0 of those that torchrun started, which share each job."""

    num_slots = 1
    free_slots = 1

    def __init__(self, threads: int | None, stop_requested: Callable[[], bool]) -> None:
        if threads:
            torch.set_num_threads(threads)
        stop_when(stop_requested)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def result(self, future: Future[Any]) -> Any:
        return future.result()

    def request_stop(self) -> None:
        """Nothing to do: the job that runs asks stop_requested itself."""

    def close(self) -> None:
        stop_when(lambda: False)  # the other ranks wait for the next study


def make_launcher(config: Config, num_runs: int, stop_requested: Callable[[], bool]) -> Launcher:
    """The launcher of config.launcher, with as many slots as `num_runs` runs can use.

    A run's number of threads depends on `num_runs`, not on how many runs remain: the last digits of sums depend on it.
    Raises ConfigError if the launcher is not available.
    """
    # glibc returns the memory of large tensors to the kernel and asks for it again at every step, which costs 7 % of
    # the time in page faults. It reads these limits when a process starts; other systems ignore them.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(64 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 * 2**20))
    if distributed.world_size() > 1:
        return InProcessLauncher(config.threads, stop_requested)
    if config.launcher.kind == "ray":
        return RayLauncher(config, num_runs)
    if config.launcher.kind == "submitit":
        return SlurmLauncher(config, num_runs)
    gpus = visible_gpus(config.device)
    num_slots = min(config.workers or len(gpus) or cores(), num_runs)
    return LocalLauncher(num_slots, config.threads or max(cores() // num_slots, 1), gpus)
