"""Finished runs: which of them still hold, why others do not, and where those go when they are run again.

Studies share arms: RoIAlign at stride 16 with sigmoid masks is in most of them. The same settings on the same stages
give the same run, whatever study and arm it is filed under, so a run that another study has finished is reused.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ablations.config.schema import Config
from ablations.config.study import Run
from ablations.errors import DamagedRecord, RecordError
from ablations.records.code_version import code_version
from ablations.records.schema import WEIGHTS, RunRecord, flatten
from ablations.records.storage import LOCK, TEMPORARY, UNPACKED, load_run, save
from ablations.stages.store import stages_of
from data import digests

REPLACED = "replaced"
"""The folder, in that of a study, of runs that were run again."""

OWN_FILES = ("run.json", "log.txt", "status.json", LOCK)
"""The files that a reused run does not share with its original. All others are only ever replaced, never written
into, so that one file can belong to both."""


def finished_record(run: Run) -> RunRecord | None:
    """The record of this run if it is done with these settings, on these stages, by this code, and its files are as
    they were written; else None."""
    return _check(run.folder, run.config)[0]


def outdated_reason(run: Run) -> str:
    """Why the record in the run's folder is not this run's; "" if it is, or if there is none."""
    return _check(run.folder, run.config)[1]


def reuse_finished_run(run: Run) -> RunRecord | None:
    """Files a finished run with the same settings and stages under `run`'s study and arm; None if there is none.

    Replaced runs count too, so that going back to old settings brings their runs back. The caller holds the lock of
    run.folder.
    """
    outputs, seed = Path(run.config.outputs), f"seed{run.config.seed}"
    for path in [*outputs.glob(f"*/*/{seed}/run.json"), *outputs.glob(f"*/{REPLACED}/*/{seed}-*/run.json")]:
        source = path.parent
        if source == run.folder:
            continue
        record, _ = _check(source, run.config)
        if record is None:
            continue
        move_to_replaced(run.folder)
        try:
            for file in source.iterdir():
                if file.is_file() and file.name not in OWN_FILES:
                    _link(file, run.folder / file.name)
        except FileNotFoundError:  # another process is moving that run: this one is trained
            continue
        origin = record.taken_from or f"{record.study}/{record.arm}"
        origin = "" if origin == f"{run.study}/{run.arm}" else origin
        record = dataclasses.replace(record, study=run.study, arm=run.arm, taken_from=origin)
        save(record, run.folder / "run.json")
        return record
    return None


def move_to_replaced(folder: Path) -> Path | None:
    """Moves a run's files to <study>/replaced/<arm>/seed<k>-<n>. Returns that folder, or None if there is no record.

    run.json is moved last: after a kill, the next call continues with the same folder.
    """
    if not (folder / "run.json").exists():
        return None
    parent = folder.parent.parent / REPLACED / folder.parent.name
    number = 1
    while (parent / f"{folder.name}-{number}" / "run.json").exists():
        number += 1
    target = parent / f"{folder.name}-{number}"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        if path.name != LOCK:
            os.replace(path, target / path.name)
    return target


def _check(folder: Path, config: Config) -> tuple[RunRecord | None, str]:
    """The record in a folder if it is of a run with this configuration; else None, and why it is not."""
    path = folder / "run.json"
    if not path.exists():
        return None, ""
    try:
        record = load_run(path)
    except DamagedRecord:
        return None, "run.json is damaged: it is not what was written"
    except (RecordError, OSError):
        return None, "its record cannot be read"
    if (folder / UNPACKED).exists():
        return (
            None,
            "it was unpacked from an archive (`python -m ablations.export --unpack FILE --trust` accepts such runs)",
        )
    if record.config_hash != config.hash():
        return None, f"settings changed: {_changes(record.config, config.settings())}"
    if record.stages != stages_of(config).keys:
        return None, "the data or the stages that it depends on changed"
    if config.code == "redo" and record.provenance.get("code") != code_version():
        return None, "the code has changed (code=keep accepts runs of other versions)"
    problem = digests.damage(folder, record.files)
    if not problem and not (folder / WEIGHTS).is_file():  # records of older versions have no digests
        problem = f"{WEIGHTS} is missing"
    return (None, problem) if problem else (record, "")


def _changes(old: Any, new: dict[str, Any]) -> str:
    """The first few settings that differ, with both values."""
    before, after = flatten(old), flatten(json.loads(json.dumps(new)))  # in a record, tuples are lists
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    shown = [f"{key} {before.get(key)} -> {after.get(key)}" for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _link(source: Path, target: Path) -> None:
    """Makes `target` a second name of `source` where the file system can, else a copy; it is never incomplete."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    os.replace(temporary, target)
