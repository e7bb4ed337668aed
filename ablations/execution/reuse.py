"""A run that another study has finished already is taken over, not trained again.

Studies share arms: RoIAlign at stride 16 with sigmoid masks stands in most of them. The same settings on the same
stages give the same run, whatever study and arm it is filed under.
"""

import dataclasses
import os
import shutil
from pathlib import Path

from ablations.config.study import Run
from ablations.execution.finished import REPLACED, finished, set_aside
from ablations.records.schema import RunRecord
from ablations.records.storage import LOCK, TEMPORARY, save
from ablations.stages.store import Stages

OWN = ("run.json", "log.txt", "status.json", LOCK)
"""What a run has of its own; all else in its folder is only ever replaced, never written into: both can own it."""


def take_over(run: Run, stages: Stages) -> RunRecord | None:
    """Files a finished run with the same settings and stages under `run`'s study and arm; None if there is none.

    Runs that were replaced are looked through too: with the old settings come back the old runs.
    The caller holds the lock of run.folder.
    """
    outputs, seed = Path(run.config.outputs), f"seed{run.config.seed}"
    for path in [*outputs.glob(f"*/*/{seed}/run.json"), *outputs.glob(f"*/{REPLACED}/*/{seed}-*/run.json")]:
        source = path.parent
        if source == run.folder:
            continue
        record = finished(source, run.config, stages)
        if record is None or not (source / "model.safetensors").exists():
            continue
        set_aside(run.folder)
        try:
            for file in source.iterdir():
                if file.is_file() and file.name not in OWN:
                    _link(file, run.folder / file.name)
        except FileNotFoundError:  # another process does that run again: this one trains its own
            continue
        origin = record.taken_from or f"{record.study}/{record.arm}"
        origin = "" if origin == f"{run.study}/{run.arm}" else origin
        record = dataclasses.replace(record, study=run.study, arm=run.arm, taken_from=origin)
        save(record, run.folder / "run.json")
        return record
    return None


def _link(source: Path, target: Path) -> None:
    """Both names for one file where the file system can do that, else a copy; `target` is never half there."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    os.replace(temporary, target)
