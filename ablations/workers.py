"""Processes that take one task after another, and how a study of them is stopped."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from ablations.job import stop_when

INTERRUPTED = 130
"""Exit code of a study that was stopped, as shells have it for Ctrl-C."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Workers:
    """Processes that import everything once and stay. One that dies takes only its own task with it."""

    def __init__(self, count: int, threads: int) -> None:
        # glibc returns the memory of large tensors to the kernel and asks for it again at every step, which costs 7 %
        # of the time in page faults. It reads these limits when a process starts; other systems ignore them.
        os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(64 * 2**20))
        os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 * 2**20))
        self.context = multiprocessing.get_context("spawn")  # a forked process inherits thread pools that do not run
        self.threads = threads
        self.stop = self.context.Event()
        self.idle = [self._start() for _ in range(count)]
        self.busy: dict[Future[Any], ProcessPoolExecutor] = {}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """function(*arguments) in an idle process; there must be one."""
        worker = self.idle.pop()
        future = worker.submit(function, *arguments)
        self.busy[future] = worker
        return future

    def result(self, future: Future[Any]) -> Any:
        """What the function returned or raised; its process is idle again, or replaced if it died."""
        worker = self.busy.pop(future)
        try:
            return future.result()
        except BrokenProcessPool:
            worker.shutdown(wait=False)
            worker = self._start()
            raise
        finally:
            self.idle.append(worker)

    def close(self) -> None:
        for worker in [*self.idle, *self.busy.values()]:
            worker.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        worker = ProcessPoolExecutor(
            1, mp_context=self.context, initializer=_start_worker, initargs=(self.threads, self.stop)
        )
        # Ctrl-C reaches all processes of a terminal, SIGTERM often too. Workers obey the event alone, so from their
        # very start they have these signals blocked, as they inherit it here.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            worker.submit(os.getpid)  # starts the process now, while there is nothing to do yet
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return worker


def _start_worker(threads: int, stop: Any) -> None:
    torch.set_num_threads(threads)
    stop_when(stop.is_set)
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
