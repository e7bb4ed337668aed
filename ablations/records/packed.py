"""The runs of a published study in one file: a line for each, with its record and its curves.

A folder for each run, as a study's own folder has them, takes more than twice the space on a disk.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablations.errors import RecordError
from ablations.records.schema import RunRecord
from ablations.records.storage import as_json, run_of, write_atomically
from data import digests

FILE = "runs.jsonl"

PackedRun = tuple[RunRecord, list[dict[str, Any]]]
"""A run's record, and by step what it logged, None standing for what it did not."""


def pack(runs: Iterable[PackedRun], folder: Path) -> None:
    """Writes a line for each run, with a digest of what it holds. Of the curves, columns are written, not rows."""
    lines = []
    for record, rows in runs:
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
        content = json.loads(as_json(record))
        if not record.digest:  # of an older version
            content["digest"] = ""
        line = {"record": content, "curves": columns}
        lines.append(json.dumps(line | {"digest": digests.of_content(line)}, separators=(",", ":")) + "\n")
    write_atomically(folder / FILE, "".join(lines))


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
        source = f"{folder / FILE}, line {number}"
        record, rows = _unpack_line(line, source)
        if (record.arm, record.seed) in runs:
            raise RecordError(f"{source}: expected each run once, got '{record.arm}', seed {record.seed}, again")
        runs[record.arm, record.seed] = record, rows
    return runs


def _unpack_line(line: str, source: str) -> PackedRun:
    try:
        content = json.loads(line)
        digest = content.pop("digest")
        if digest != digests.of_content(content):
            raise ValueError("its digest is another")
        columns = content["curves"]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return run_of(json.dumps(content["record"]), "the record"), rows
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = str(error).partition("; delete it")[0]
        raise RecordError(f"{source}: damaged ({why}); check it out from git again") from error
