"""Shows finished runs to a tracker that has not seen them: those of studies without a logger, and reused ones.

What a tracker has seen whole is noted in its own folder within the run's.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ablations.config.study import Run
from ablations.records.schema import RunRecord
from ablations.tracking.trackers import make_tracker, seen


def replay(runs: Iterable[Run], records: Mapping[Path, RunRecord]) -> int:
    """Gives the trackers all curves, metrics and sample masks of finished runs; returns how many were not there yet.

    records: of the finished ones, by run folder
    """
    unseen = [run for run in runs if run.folder in records and not seen(run)]
    for run in unseen:
        tracker = make_tracker(run)
        for step, values in _curves(run.folder / "metrics.jsonl"):
            tracker.log(step, values)
        tracker.finish(records[run.folder].metrics)
    return len(unseen)


def _curves(path: Path) -> list[tuple[int, dict[str, float]]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return [(line.pop("step"), line) for line in lines]


def offline_note(runs: Sequence[Run]) -> str:
    """A line on how to send what W&B keeps offline of these runs and their study's report; "" if there is nothing."""
    if runs[0].config.logger.kind != "wandb":
        return ""
    folders = [run.folder for run in runs]
    kept = {folder: _unsent(folder) for folder in [*folders, folders[0].parents[1]]}
    count = sum(kept.values())
    if not count:
        return ""
    study = shlex.quote(str(folders[0].parents[1]))
    patterns = [f"{study}/{depth}wandb/offline-run-*" for depth in ("*/*/", "") if kept[folders[0].parents[1]] or depth]
    return f"W&B: {count} runs are kept offline; to send them: wandb sync {' '.join(patterns)}\n"


def _unsent(folder: Path) -> int:
    return sum(not any(path.glob("*.synced")) for path in (folder / "wandb").glob("offline-run-*"))
