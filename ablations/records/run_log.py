"""What surrounds a run or a stage while it is being made: its log, its status, and the wish that it stop.

In its folder lie log.txt, status.json (record.Status) and .lock, which the process that works there holds: so a
status that says "running" beside a free lock is that of a process that was killed.
"""

import contextlib
import dataclasses
import errno
import itertools
import os
import socket
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ablations.records.schema import State, Status, load_status, save

SECONDS_BETWEEN = 1.0
"""A status is not written more often than this."""


class Stopped(Exception):
    """The work was asked to stop and has; the same command goes on with it."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what happened and what to do."""


class OutOfStep(RuntimeError):
    """After an error, its cause, in the middle of what several processes do together: the others wait for what never
    comes."""


class WorkerLost(RuntimeError):
    """The process of a task ended without an answer."""


_asked: Callable[[], bool] = lambda: False  # noqa: E731


def stop_when(asked: Callable[[], bool]) -> None:
    """From now on, work in this process stops at its next opportunity once asked() is true."""
    global _asked
    _asked = asked


def stop_asked() -> bool:
    return _asked()


def check_stop() -> None:
    """Raises Stopped if the work was asked to stop; called where little would be lost."""
    if stop_asked():
        raise Stopped("stopped on request")


class Job:
    """A run or a stage in progress: called with a step and its values, it logs them and brings the status up to date.

    echo: every tenth step goes to the terminal too.
    """

    def __init__(self, folder: Path, name: str, echo: bool = False) -> None:
        self.folder, self.name, self.echo = folder, name, echo
        self.step, self.steps, self.resumed, self.phase = 0, 0, 0, ""
        self.started = now()
        self.written = 0.0
        self.count = itertools.count()

    def __call__(self, step: int, values: dict[str, float]) -> None:
        line = "  ".join([f"step {step}", *(f"{name} {value:.4g}" for name, value in values.items())])
        self.say(line, self.echo and next(self.count) % 10 == 0)
        self.step = step
        if time.monotonic() - self.written >= SECONDS_BETWEEN:
            self.status("running", self.phase)

    def say(self, line: str, aloud: bool = False) -> None:
        with contextlib.suppress(OSError):  # a full disk is no reason to lose what can still be done
            print(line, file=self.file)
        if aloud:
            print(f"  {line}", flush=True)

    def resume(self, step: int) -> None:
        self.step = self.resumed = step
        self.say(f"going on from step {step}", self.echo)

    def train(self, steps: int) -> None:
        """Says in the status that a training of so many steps begins."""
        self.steps = steps
        self.enter("training")

    def enter(self, phase: str) -> None:
        """Says in the status what is being done, such as "evaluating"."""
        self.phase = phase
        self.status("running", phase)

    def status(self, state: State, message: str) -> None:
        write_status(
            self.folder,
            Status(
                name=self.name,
                state=state,
                message=message,
                step=self.step,
                steps=self.steps,
                resumed=self.resumed,
                pid=os.getpid(),
                host=socket.gethostname(),
                started=self.started,
                updated=now(),
            ),
        )
        self.written = time.monotonic()

    def carry_out(self, make: Callable[["Job"], Any]) -> Any:
        """make(self), with its status kept; a traceback goes to the log, and the error on to the caller."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8", buffering=1) as self.file:
            self.say(f"started {time.strftime('%Y-%m-%d %H:%M:%S')}")
            self.status("running", "starting")
            try:
                result = make(self)
            except Stopped as stopped:
                self.status("stopped", str(stopped))
                self.say(str(stopped))
                raise
            except Exception as error:
                self.status("failed", explain(error))
                traceback.print_exc(file=self.file)
                raise
            self.step = self.steps
            self.status("done", "")
            return result


def write_status(folder: Path, status: Status) -> None:
    """A status that cannot be written is no reason for the work to fail."""
    with contextlib.suppress(OSError):
        save(status, folder / "status.json", durable=False)


def mark_failed(folder: Path, message: str) -> None:
    """For work whose process died and can no longer say so itself."""
    status = load_status(folder / "status.json")
    if status is not None:
        write_status(folder, dataclasses.replace(status, state="failed", message=message, updated=now()))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def explain(error: BaseException) -> str:
    """What happened and what to do, in one line."""
    again = "give the same command again to go on"
    if isinstance(error, OutOfStep) and error.__cause__ is not None:
        return explain(error.__cause__)
    if isinstance(error, WorkerLost):
        return f"{error}: {again}, with workers=1 if memory is short"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return f"out of memory: use workers=1 or fewer images_per_step; then {again} ({error})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename or error}): make room, then {again}"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename}: cannot be written ({error.strerror}): change that, then {again}"
    if isinstance(error, (TrainingError, OSError, ValueError)):
        return str(error)
    return f"{type(error).__name__}: {error} (the traceback is in its log)"
