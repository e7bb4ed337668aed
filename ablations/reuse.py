"""A run that another study has finished already is taken over, not trained again.

Studies share arms: RoIAlign at stride 16 with sigmoid masks stands in most of them. The same settings on the same
stages give the same run, whatever study and arm it is filed under.
"""

import dataclasses
import os
import shutil
from pathlib import Path

from ablations.arm import finished
from ablations.record import RecordError, RunRecord, save
from ablations.stages import Stages
from ablations.study import Run

LINKED = ("config.yaml", "metrics.jsonl", "detections.json", "model.safetensors")
"""Files that are only ever replaced, never written into, so that both runs can own the same copy."""


def take_over(run: Run, stages: Stages) -> RunRecord | None:
    """Files a finished run with the same settings and stages under `run`'s study and arm; None if there is none."""
    for path in sorted(Path(run.config.outputs).glob(f"*/*/seed{run.config.seed}/run.json")):
        source = path.parent
        if source == run.folder:
            continue
        try:
            record = finished(source, run.config, stages)
        except RecordError:
            continue  # whoever asks for that study is told
        if record is None or not all((source / name).exists() for name in LINKED):
            continue
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "run.json").unlink(missing_ok=True)
        for name in LINKED:
            _link(source / name, run.folder / name)
        origin = record.taken_from or f"{record.study}/{record.arm}"
        record = dataclasses.replace(record, study=run.study, arm=run.arm, taken_from=origin)
        save(record, run.folder / "run.json")
        return record
    return None


def _link(source: Path, target: Path) -> None:
    """Both names for one file where the file system can do that, else a copy; `target` is never half there."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    os.replace(temporary, target)
