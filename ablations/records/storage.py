"""Reading and writing records: every file is written whole or not at all, and checked when it is read.

A record's digest tells of damage, such as a flipped bit that leaves the file valid JSON but changes a number. It is
no signature: who edits a record on purpose can write another digest, or none, as older versions did.

This module imports neither torch nor Hydra, so that a report needs neither.
"""

import dataclasses
import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ablations.errors import DamagedRecord, RecordError
from ablations.records.schema import SCHEMA, Arm, ExhibitRecord, Floor, Hypothesis, RunRecord, Status, StudyRecord
from data import digests

LOCK = ".lock"
"""The lock file beside a status, held by the process that works there. A status "running" beside a free lock is that of
a process that was killed."""

UNPACKED = "unpacked.txt"
"""The file that marks a run as unpacked from an archive of others; it names the archive."""

Record = StudyRecord | RunRecord | ExhibitRecord | Status

TEMPORARY = ".tmp"
"""Suffix of files that are still being written. One that a killed process left behind can be removed."""


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Writes so that `path` holds either its old content or all of the new one, whatever happens.

    durable: even if the power fails; without it, only if the process is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # errors of writing do not name the file
        raise


def clear_temporaries(folder: Path) -> None:
    """Removes what a killed process was writing in `folder`; no process may be writing there."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def save(record: Record, path: Path, durable: bool = True) -> None:
    write_atomically(path, as_json(record), durable)


def as_json(record: Record) -> str:
    """The text of a record, with its digest."""
    content = json.loads(json.dumps(dataclasses.asdict(record)))  # as it will be read: every key is text
    content["digest"] = _digest_of(content)
    return json.dumps(content, indent=1) + "\n"


def load_run(path: Path) -> RunRecord:
    return _build(RunRecord, _read(path, RunRecord), path)


def run_of(text: str, source: str) -> RunRecord:
    """The record of a run, of which `text` is the JSON. source: what errors call the text."""
    return _build(RunRecord, _checked(text, RunRecord, source), source)


def result_file(folder: Path, name: str) -> Path:
    """A file of a finished run, to be read. Raises RecordError if it is not what the run wrote, by its record."""
    record = load_run(folder / "run.json")
    try:
        if name in record.files:  # records of older versions have no digests
            digests.check(folder / name, record.files[name])
    except digests.DamagedFile as error:
        raise RecordError(f"{folder}: {error}; run it again") from error
    return folder / name


def load_exhibit(path: Path) -> ExhibitRecord:
    return _build(ExhibitRecord, _read(path, ExhibitRecord), path)


def load_status(path: Path) -> Status | None:
    """None if there is none that can be read: a status informs people and decides nothing."""
    try:
        return _build(Status, _read(path, Status), path)
    except (OSError, RecordError):
        return None


def load_study(path: Path) -> StudyRecord:
    content = _read(path, StudyRecord)
    try:
        content["arms"] = {name: Arm(**arm) for name, arm in content["arms"].items()}
        content["hypotheses"] = [Hypothesis(**hypothesis) for hypothesis in content["hypotheses"]]
        if content.get("floor") is not None:
            content["floor"] = Floor(**content["floor"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: not a study record ({error}); delete it and run the study again") from error
    study: StudyRecord = _build(StudyRecord, content, path)
    named = {arm for hypothesis in study.hypotheses for arm in hypothesis.contrast}
    unknown = (named | ({study.floor.arm} if study.floor else set())) - set(study.arms)
    if unknown:
        raise RecordError(
            f"{path}: hypotheses or floor name unknown arms {sorted(unknown)}; delete it and run the study again"
        )
    return study


def _digest_of(content: dict[str, Any]) -> str:
    return digests.of_content({key: value for key, value in content.items() if key != "digest"})


def _read(path: Path, kind: type) -> dict[str, Any]:
    """What a record's file holds, checked."""
    if path.exists() and not path.is_file():  # reading a pipe would never end
        raise RecordError(f"{path}: expected a record, got a folder or a device; delete it and run again")
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}); delete it and run again") from error
    return _checked(text, kind, path)


def _checked(text: str, kind: type, path: Path | str) -> dict[str, Any]:
    """The JSON of a record whose fields have the types of `kind`, and whose digest is right if it has one."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not JSON ({error}); delete it and run again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise RecordError(f"{path}: expected a record of schema {SCHEMA}, got {got}; delete it and run again")
    if content.get("digest", "") not in ("", _digest_of(content)):
        raise DamagedRecord(f"{path}: damaged: it is not what was written; delete it and run again")
    try:
        _checker(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: {place}: {first['msg']} ({kind.__name__}); delete it and run again") from error
    return content


@functools.cache
def _checker(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _build(kind: type, content: dict[str, Any], path: Path | str) -> Any:
    try:
        return kind(**content)
    except TypeError as error:
        raise RecordError(f"{path}: not a {kind.__name__} ({error}); delete it and run again") from error
