"""Writes the losses of a run to metrics.jsonl and to a tracker."""

import json
from pathlib import Path

from ablations.records.storage import write_atomically
from ablations.tracking.trackers import Tracker


class Curves:
    """Both first get the lines of earlier attempts, so that they do not show interruptions."""

    def __init__(self, path: Path, logged: list[tuple[int, dict[str, float]]], tracker: Tracker) -> None:
        write_atomically(path, "".join(_line(step, values) for step, values in logged))
        for step, values in logged:
            tracker.log(step, values)
        self.file, self.tracker = path.open("a", encoding="utf-8", buffering=1), tracker

    def add(self, step: int, values: dict[str, float]) -> None:
        self.file.write(_line(step, values))
        self.tracker.log(step, values)

    def __enter__(self) -> "Curves":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _line(step: int, values: dict[str, float]) -> str:
    return json.dumps({"step": step, **values}) + "\n"
