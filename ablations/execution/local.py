"""Worker processes on this machine, each of which runs one job after another, and the signals that stop a study."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch

from ablations.errors import ConfigError, WorkerLost
from ablations.training.stopping import stop_when
from data.terminal import prepare_output

INTERRUPTED = 130
"""Exit code of a study that was stopped: the one that shells give after Ctrl-C."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What stops a study: Ctrl-C, a request of the system, and the end of the terminal (unless nohup ignores it)."""

ONE_REQUEST = 0.5
"""Seconds in which signals of a kind are one request: `timeout` sends its signal to the process and to its group."""


class LocalLauncher:
    """launcher=local: worker processes that import everything once. If one dies, only its own job is lost.

    threads: of each worker
    gpus: shared out among the workers, as CUDA_VISIBLE_DEVICES names them
    """

    def __init__(self, num_slots: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self.context = multiprocessing.get_context("spawn")  # a forked process inherits thread pools that do not run
        self.num_slots, self.threads = num_slots, threads
        # One shared byte. An Event has a lock, which a worker that is killed while it reads would never release.
        self.stop = self.context.RawValue("b", 0)
        self.gpu_of: dict[ProcessPoolExecutor, str | None] = {}
        try:
            self.idle = [self._start(gpus[slot % len(gpus)] if gpus else None) for slot in range(num_slots)]
        except OSError as error:  # such as no room for the semaphores of their queues
            self.stop.value = 1
            advice = "make room in /dev/shm, or use fewer workers"
            raise ConfigError(f"workers={num_slots}: cannot be started ({error.strerror}): {advice}") from error
        self.busy: dict[Future[Any], ProcessPoolExecutor] = {}

    @property
    def free_slots(self) -> int:
        return len(self.idle)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Calls function(*arguments) in an idle worker; there must be one."""
        worker = self.idle.pop()
        try:
            future = worker.submit(function, *arguments)
        except BrokenProcessPool:  # it died while it was idle
            worker = self._start(self.gpu_of.pop(worker))
            future = worker.submit(function, *arguments)
        self.busy[future] = worker
        return future

    def result(self, future: Future[Any]) -> Any:
        """What the function returned or raised; its worker is idle again, or replaced if it died."""
        worker = self.busy.pop(future)
        try:
            return future.result()
        except BrokenProcessPool as error:
            worker.shutdown(wait=False)
            worker = self._start(self.gpu_of.pop(worker))
            raise WorkerLost("its process died (killed, or out of memory?)") from error
        finally:
            self.idle.append(worker)

    def request_stop(self) -> None:
        self.stop.value = 1

    def close(self) -> None:
        for worker in [*self.idle, *self.busy.values()]:
            worker.shutdown(wait=True, cancel_futures=True)

    def _start(self, gpu: str | None) -> ProcessPoolExecutor:
        arguments = (self.threads, gpu, self.stop)
        worker = ProcessPoolExecutor(1, mp_context=self.context, initializer=_start_worker, initargs=arguments)
        self.gpu_of[worker] = gpu
        # Ctrl-C reaches all processes of a terminal, and SIGTERM often does too. Workers react only to `stop`, so they
        # inherit a mask here that blocks these signals from their very start.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            worker.submit(os.getpid)  # starts the process now, before there is a job for it
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return worker


def _start_worker(threads: int, gpu: str | None, stop: Any) -> None:
    prepare_output()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read once, at this process's first use of CUDA
    torch.set_num_threads(threads)
    stop_when(lambda: bool(stop.value))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker with its parent; otherwise it would finish its run and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _tell(line: bytes) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, line)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether one of SIGNALS has arrived; a second signal ends everything at once."""
    received: dict[int, float] = {}  # the time of each kind's first signal

    def handle(number: int, _: FrameType | None) -> None:
        if number in received and time.monotonic() - received[number] < ONE_REQUEST:
            return
        if received:
            for process in multiprocessing.active_children():
                process.kill()
            _tell(b"stopped at once; the same command continues from the last checkpoints\n")
            os._exit(INTERRUPTED)
        received[number] = time.monotonic()
        _tell(b"\nstopping after the next checkpoint of each run; press Ctrl-C again to stop at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
