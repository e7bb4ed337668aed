"""Which runs are done, why others that have a record are not, and where those go when they are made again."""

import os
from pathlib import Path
from typing import Any

from ablations.config.schema import Config
from ablations.errors import RecordError
from ablations.records.code_version import code_version
from ablations.records.schema import RunRecord
from ablations.records.storage import LOCK, load_run
from ablations.stages.store import Stages

REPLACED = "replaced"


def finished(folder: Path, config: Config, stages: Stages) -> RunRecord | None:
    """The record of this run if it is done with these settings, on these stages, by this code; else None."""
    record, _ = _read(folder, config, stages)
    return record


def outdated(folder: Path, config: Config, stages: Stages) -> str:
    """Why the record in `folder` is not this run's; "" if it is, or if there is none."""
    return _read(folder, config, stages)[1]


def _read(folder: Path, config: Config, stages: Stages) -> tuple[RunRecord | None, str]:
    path = folder / "run.json"
    if not path.exists():
        return None, ""
    try:
        record = load_run(path)
    except (RecordError, OSError):
        return None, "its record cannot be read"
    if record.config_hash != config.hash():
        return None, f"settings changed: {_changes(record.config, config.settings())}"
    if record.stages != stages.keys:
        return None, "the data or the stages that it stands on changed"
    if config.code == "redo" and record.provenance.get("code") != code_version():
        return None, "the code changed since (code=keep would take it as it is)"
    return record, ""


def set_aside(folder: Path) -> Path | None:
    """Moves a run's files to <study>/replaced/<arm>/seed<k>-<n>; where to, or None if there is no record to keep.

    run.json goes last: after a kill, the next call goes on with the same folder.
    """
    if not (folder / "run.json").exists():
        return None
    home = folder.parent.parent / REPLACED / folder.parent.name
    number = 1
    while (home / f"{folder.name}-{number}" / "run.json").exists():
        number += 1
    target = home / f"{folder.name}-{number}"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        if path.name != LOCK:
            os.replace(path, target / path.name)
    return target


def _changes(old: Any, new: dict[str, Any]) -> str:
    """The first few settings that differ, with both values."""
    before, after = _flat(old), _flat(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    shown = [f"{key} {before.get(key)} -> {after.get(key)}" for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix.removesuffix("."): list(content) if isinstance(content, tuple) else content}
    return {key: value for name, part in content.items() for key, value in _flat(part, f"{prefix}{name}.").items()}
