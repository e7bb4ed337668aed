"""The log and the status of a run or a stage while it is being made.

Its folder holds log.txt, status.json (schema.Status) and .lock, which the process that works there keeps locked: a
status "running" beside a free lock is that of a process that was killed.
"""

import contextlib
import dataclasses
import errno
import os
import socket
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

import torch

from ablations.errors import Desynchronised, Stopped, TrainingError, WorkerLost
from ablations.records.schema import State, Status
from ablations.records.storage import load_status, save
from data.terminal import OutputLost

SECONDS_BETWEEN = 1.0
"""A status is not written more often than this."""


class RunLog:
    """The log and status of a run, stage or exhibit while it is being made: a context manager around the work.

    Called with a step and its values, it logs them and brings the status up to date. An error that leaves the context
    is explained in the status, with its traceback in the log.

    echo: every tenth step is printed too.
    """

    def __init__(self, folder: Path, name: str, echo: bool = False) -> None:
        self.folder, self.name, self.echo = folder, name, echo
        self.step, self.steps, self.resumed, self.phase = 0, 0, 0, ""
        self.started = now()
        self.last_saved = 0.0
        self.num_calls = 0

    def __enter__(self) -> "RunLog":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = (self.folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self.write(f"started {time.strftime('%Y-%m-%d %H:%M:%S')}")
        self.save_status("running", "starting")
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, *__: object) -> None:
        with self.file:
            if error is None:
                self.step = self.steps
                self.save_status("done", "")
            elif isinstance(error, Stopped):
                self.save_status("stopped", str(error))
                self.write(str(error))
            elif isinstance(error, Exception):
                self.save_status("failed", explain(error))
                traceback.print_exception(error, file=self.file)

    def __call__(self, step: int, values: dict[str, float]) -> None:
        line = "  ".join([f"step {step}", *(f"{name} {value:.4g}" for name, value in values.items())])
        self.write(line, self.echo and self.num_calls % 10 == 0)
        self.num_calls += self.echo
        self.step = step
        if time.monotonic() - self.last_saved >= SECONDS_BETWEEN:
            self.save_status("running", self.phase)

    def write(self, line: str, echo: bool = False) -> None:
        """Appends a line to log.txt; with `echo` it is printed too."""
        with contextlib.suppress(OSError):  # a full disk is no reason to lose what can still be done
            print(line, file=self.file)
        if echo:
            with contextlib.suppress(OSError, OutputLost):  # the process that prints the progress will notice
                print(f"  {line}", flush=True)

    def resume(self, step: int) -> None:
        """Notes that training continues from a checkpoint."""
        self.step = self.resumed = step
        self.write(f"resuming at step {step}", self.echo)

    def start_training(self, steps: int) -> None:
        """Notes in the status that a training of `steps` steps begins."""
        self.steps = steps
        self.enter("training")

    def enter(self, phase: str) -> None:
        """Notes in the status what is being done, such as "evaluating"."""
        self.phase = phase
        self.save_status("running", phase)

    def save_status(self, state: State, message: str) -> None:
        """Writes status.json."""
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
        self.last_saved = time.monotonic()


def write_status(folder: Path, status: Status) -> None:
    """Writes status.json. A status that cannot be written is no reason for the work to fail."""
    with contextlib.suppress(OSError):
        save(status, folder / "status.json", durable=False)


def mark_failed(folder: Path, message: str) -> None:
    """Sets the status to "failed", for work whose process died and can no longer do so itself."""
    status = load_status(folder / "status.json")
    if status is not None:
        write_status(folder, dataclasses.replace(status, state="failed", message=message, updated=now()))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def explain(error: BaseException) -> str:
    """What happened and what to do, in one line."""
    again = "run the same command again to continue"
    if isinstance(error, Desynchronised) and error.__cause__ is not None:
        return explain(error.__cause__)
    if isinstance(error, WorkerLost):
        return f"{error}: {again}, with workers=1 if memory is short"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return f"out of memory: use workers=1 or fewer images_per_step; then {again} ({error})"
    if _disk_full(error):
        return f"the disk is full ({getattr(error, 'filename', None) or error}): make room, then {again}"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename}: cannot be written ({error.strerror}): change that, then {again}"
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return f"{error.filename2 or error.filename}: {error.strerror}: remove what is there, then {again}"
    if isinstance(error, (TrainingError, OSError, ValueError)):
        return str(error)
    return f"{type(error).__name__}: {error} (its log has the traceback)"


def _disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for lack of room; NumPy and safetensors say so without an error number."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(words in str(error) for words in ("No space left on device", "requested and", "StorageFull"))
