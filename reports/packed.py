"""The runs of a published study in one file: a line for each, with its record and its curves.

A folder for each run, as a study's own folder has them, would take twice the space of everything else in the gallery.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablations.errors import RecordError
from ablations.records.schema import RunRecord
from ablations.records.storage import as_json, run_of
from data import digests

FILE = "runs.jsonl"

PackedRun = tuple[RunRecord, list[dict[str, Any]]]
"""A run's record, and by step what it logged: see `StudyResults.curves`."""


def pack(runs: Iterable[PackedRun], folder: Path) -> None:
    """Writes a line for each run, with a digest of what it holds. Of the curves, columns are written, not rows."""
    with (folder / FILE).open("w", encoding="utf-8") as file:
        for record, rows in runs:
            names = dict.fromkeys(name for row in rows for name in row)
            columns = {name: [row.get(name) for row in rows] for name in names}
            line = {"record": json.loads(as_json(record)), "curves": columns}
            file.write(json.dumps(line | {"digest": digests.of_content(line)}, separators=(",", ":")) + "\n")


def unpack(folder: Path) -> dict[tuple[str, int], PackedRun] | None:
    """(arm, seed) -> run of a published study; None where the folder has no such file.

    Raises RecordError where the file is not what `pack` wrote.
    """
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(f"{folder / FILE}: cannot be read ({error}); check it out from git again") from error
    runs = {}
    for number, line in enumerate(lines, 1):
        record, rows = _unpack_line(line, f"{folder / FILE}, line {number}")
        runs[record.arm, record.seed] = record, rows
    return runs


def _unpack_line(line: str, source: str) -> PackedRun:
    try:
        content = json.loads(line)
        digest = content.pop("digest")
        if digest != digests.of_content(content):
            raise ValueError("its digest is another")
        columns = content["curves"]
        rows = [
            {name: value for name, value in zip(columns, row, strict=True) if value is not None}
            for row in zip(*columns.values(), strict=True)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{source}: damaged ({error}); check it out from git again") from error
    return run_of(json.dumps(content["record"]), source), rows
