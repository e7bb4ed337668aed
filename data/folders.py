"""Folders that processes share: locks that end with their owner, and folders that appear only when complete."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock file `path`. Yields whether it was acquired; with wait=False, another process may hold it.

    The system releases the lock when the process ends, however it ends. Raises OSError where nothing can be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            yield False
            return
        if _is_same_file(path, handle):
            break
        os.close(handle)  # its last owner has removed the file meanwhile: others lock a new one
    try:
        yield True
    finally:
        os.close(handle)


def held(path: Path) -> bool:
    """Whether a process, this one included, holds the lock file `path` right now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def complete(folder: Path, make: Callable[[Path], None], good: Callable[[Path], bool] = Path.is_dir) -> None:
    """Calls make(partial folder) and moves the result to `folder`, unless a good one is there already.

    One process makes it while others wait. What a killed process left in the partial folder is still there when `make`
    is called again, to be used or overwritten. A folder that is not good is kept in `replaced` beside it.
    """
    if good(folder):
        return
    lock = folder.parent / f".{folder.name}.lock"
    with locked(lock):
        if good(folder):
            return
        if folder.exists():
            replaced = folder.parent / "replaced"
            replaced.mkdir(exist_ok=True)
            number = 1
            while (replaced / f"{folder.name}-{number}").exists():
                number += 1
            os.rename(folder, replaced / f"{folder.name}-{number}")
        partial = folder.parent / f".partial-{folder.name}"
        partial.mkdir(exist_ok=True)
        make(partial)
        os.rename(partial, folder)
        lock.unlink()


def clear_abandoned(parent: Path, keep: Callable[[Path], bool]) -> None:
    """Removes the partial folders in `parent` that no process is working on, except those that `keep` names."""
    for partial in parent.glob(".partial-*"):
        lock = parent / f".{partial.name.removeprefix('.partial-')}.lock"
        with locked(lock, wait=False) as acquired:
            if acquired and not keep(partial):
                shutil.rmtree(partial, ignore_errors=True)
            if acquired and not partial.exists():
                lock.unlink(missing_ok=True)


def _is_same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
