"""Where tasks are computed: worker processes of this machine, a Ray cluster, Slurm jobs, or torchrun's processes.

All engines call the same functions with the same number of threads in the folder where the command was given, so the
same records come back whichever ran them. Ray and Slurm need a file system that all machines share, with the checkout,
the data and the outputs under the same paths.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import torch

from ablations.config.schema import Config
from ablations.execution.cluster import Ray, Slurm
from ablations.execution.local import Workers
from ablations.machine import cores, visible_gpus
from ablations.training import distributed
from ablations.training.stopping import stop_when


class Engine(Protocol):
    """count: its places, each of which takes one task at a time."""

    count: int

    @property
    def free(self) -> int:
        """How many tasks it can take now."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """function(*arguments) in another process, where a place is free. Everything must be picklable."""

    def result(self, future: Future[Any]) -> Any:
        """What the function returned or raised; its place is free again. Raises WorkerLost if its process died."""

    def ask_to_stop(self) -> None:
        """Tasks that run stop at their next opportunity."""

    def close(self) -> None: ...


class Here:
    """This process, rank 0 of those that torchrun started: they do one task after another, all together."""

    count = 1
    free = 1

    def __init__(self, config: Config, stop_came: Callable[[], bool]) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        stop_when(stop_came)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def result(self, future: Future[Any]) -> Any:
        return future.result()

    def ask_to_stop(self) -> None:
        """The task that runs has seen the signal by itself."""

    def close(self) -> None:
        """The others wait for the next study."""


def start(config: Config, num_runs: int, stop_came: Callable[[], bool]) -> Engine:
    """The engine of config.launcher, with as many places as `num_runs` runs can use.

    A run's number of threads depends on `num_runs`, not on how many are left: it decides the last digits of sums.
    Raises ConfigError if the engine cannot be had.
    """
    # glibc returns the memory of large tensors to the kernel and asks for it again at every step, which costs 7 % of
    # the time in page faults. It reads these limits when a process starts; other systems ignore them.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(64 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 * 2**20))
    if distributed.world_size() > 1:
        return Here(config, stop_came)
    if config.launcher.kind == "ray":
        return Ray(config, num_runs)
    if config.launcher.kind == "submitit":
        return Slurm(config, num_runs)
    gpus = visible_gpus(config.device)
    count = min(config.workers or len(gpus) or cores(), num_runs)
    return Workers(count, config.threads or max(cores() // count, 1), gpus)
