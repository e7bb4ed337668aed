"""Processes that take one task after another, and how a study of them is stopped."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from ablations.errors import WorkerLost
from ablations.training.stopping import stop_when

INTERRUPTED = 130
"""Exit code of a study that was stopped, as shells have it for Ctrl-C."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Workers:
    """Processes that import everything once and stay. One that dies takes only its own task with it.

    gpus: shared out among them, as CUDA_VISIBLE_DEVICES names them.
    """

    def __init__(self, count: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self.context = multiprocessing.get_context("spawn")  # a forked process inherits thread pools that do not run
        self.count, self.threads = count, threads
        # One byte that all share. An Event has a lock, which a worker that is killed while it looks would keep.
        self.stop = self.context.RawValue("b", 0)
        self.gpu_of: dict[ProcessPoolExecutor, str | None] = {}
        self.idle = [self._start(gpus[number % len(gpus)] if gpus else None) for number in range(count)]
        self.busy: dict[Future[Any], ProcessPoolExecutor] = {}

    @property
    def free(self) -> int:
        return len(self.idle)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """function(*arguments) in an idle process; there must be one."""
        worker = self.idle.pop()
        try:
            future = worker.submit(function, *arguments)
        except BrokenProcessPool:  # it died while it was idle
            worker = self._start(self.gpu_of.pop(worker))
            future = worker.submit(function, *arguments)
        self.busy[future] = worker
        return future

    def result(self, future: Future[Any]) -> Any:
        """What the function returned or raised; its process is idle again, or replaced if it died."""
        worker = self.busy.pop(future)
        try:
            return future.result()
        except BrokenProcessPool as error:
            worker.shutdown(wait=False)
            worker = self._start(self.gpu_of.pop(worker))
            raise WorkerLost("its process died (killed, or out of memory?)") from error
        finally:
            self.idle.append(worker)

    def ask_to_stop(self) -> None:
        self.stop.value = 1

    def close(self) -> None:
        for worker in [*self.idle, *self.busy.values()]:
            worker.shutdown(wait=True, cancel_futures=True)

    def _start(self, gpu: str | None) -> ProcessPoolExecutor:
        arguments = (self.threads, gpu, self.stop)
        worker = ProcessPoolExecutor(1, mp_context=self.context, initializer=_start_worker, initargs=arguments)
        self.gpu_of[worker] = gpu
        # Ctrl-C reaches all processes of a terminal, SIGTERM often too. Workers obey `stop` alone, so from their
        # very start they have these signals blocked, as they inherit it here.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            worker.submit(os.getpid)  # starts the process now, while there is nothing to do yet
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return worker


def _start_worker(threads: int, gpu: str | None, stop: Any) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read once, at this process's first use of CUDA
    torch.set_num_threads(threads)
    stop_when(lambda: bool(stop.value))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise finish its run and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM has come; a second one ends everything at once."""
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if came:
            for process in multiprocessing.active_children():
                process.kill()
            os.write(2, b"stopped at once; the same command goes on from the last checkpoints\n")
            os._exit(INTERRUPTED)
        came.append(number)
        os.write(2, b"\nstopping: runs write a checkpoint first; once more stops at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
