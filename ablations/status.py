"""python -m ablations.status [STUDY ...]: what is done, running, failed and missing, how long to go, and disk use."""

import argparse
import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ablations.errors import RecordError
from ablations.execution.progress import where
from ablations.records.schema import RunRecord, Status, StudyRecord
from ablations.records.storage import LOCK, load_run, load_status, load_study
from ablations.records.summary import duration, headline
from data.folders import held

ORDER = ("running", "failed", "unreadable", "stopped", "killed", "missing", "done")
SEVERAL = 4
"""More missing runs of an arm than this are counted, not listed."""


@dataclass(frozen=True)
class Entry:
    """A run, a stage or an exhibit. state: one of ORDER; record: of a run that is done."""

    name: str
    state: str
    detail: str = ""
    status: Status | None = None
    record: RunRecord | None = None

    @property
    def steps_per_second(self) -> float | None:
        if self.status is None or self.state != "running":
            return None
        seconds = datetime.fromisoformat(self.status.updated) - datetime.fromisoformat(self.status.started)
        steps = self.status.step - self.status.resumed
        return steps / seconds.total_seconds() if steps > 0 and seconds.total_seconds() > 0 else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ablations.status", description=__doc__)
    parser.add_argument("study", nargs="*", help="names of studies; all, single runs and stages when none is given")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs go")
    options = parser.parse_args(arguments)
    outputs = options.outputs
    names = options.study or sorted({path.parent.name for path in outputs.glob("*/study.json")})
    failed = 0
    for name in names:
        try:
            print("\n".join(study_lines(outputs / name)))
        except (RecordError, OSError) as error:
            print(f"{name}: no study that can be read under {outputs}: {error}", file=sys.stderr)
            failed = 1
    if not options.study:
        others = [entry_of(path.parent) for path in sorted(outputs.glob("stages/work/*/status.json"))]
        others += [entry_of(path) for path in sorted(outputs.glob("single/*/seed*")) if path.is_dir()]
        print("\n".join(listed("single runs and shared stages", others)))
    print(disk_line(outputs))
    return failed


def study_lines(folder: Path) -> list[str]:
    """Raises RecordError or OSError if there is no study in `folder`."""
    study = load_study(folder / "study.json")
    runs = [entry_of(folder / arm / f"seed{seed}", f"{arm} seed {seed}") for seed in study.seeds for arm in study.arms]
    lines = listed(study.name, runs)
    lines[0] += f"; {to_go(study, runs)}"
    for name in study.exhibits:
        entry = entry_of(folder / "exhibits/work" / name, f"exhibit {name}")
        if (folder / f"exhibits/{name}.json").exists():
            entry = Entry(entry.name, "done")
        lines.append(f"  {entry.state:10} {entry.name}  {entry.detail}".rstrip())
    return lines


def entry_of(folder: Path, name: str = "") -> Entry:
    """What the files of a run, stage or exhibit say of it."""
    status = load_status(folder / "status.json")
    name = name or (status.name if status is not None else f"{folder.parent.name} {folder.name}")
    if held(folder / LOCK):
        if status is None or status.state != "running":
            return Entry(name, "running", "starting")
        entry = Entry(name, "running", where(status), status)
        rate = entry.steps_per_second
        left = "" if rate is None else f", {rate:.3g} steps/s, about {duration((status.steps - status.step) / rate)}"
        since = f"; resumed at step {status.resumed}" if status.resumed else ""
        return Entry(name, "running", f"{entry.detail}{left} (process {status.pid} on {status.host}{since})", status)
    if (folder / "run.json").exists():
        try:
            record = load_run(folder / "run.json")
        except RecordError as error:
            return Entry(name, "unreadable", str(error))
        taken = f" (taken over from {record.taken_from})" if record.taken_from else ""
        return Entry(name, "done", headline(record) + taken, record=record)
    if status is None:
        return Entry(name, "missing")
    if status.state == "running":
        return Entry(name, "killed", f"{where(status)}; the same command goes on with it", status)
    if status.state == "stopped":
        return Entry(
            name, "stopped", f"at step {status.step} of {status.steps}; the same command goes on with it", status
        )
    return Entry(name, status.state, status.message, status)


def listed(title: str, entries: list[Entry]) -> list[str]:
    """A line with the counts, then one for each entry; of the missing ones no more than are of use."""
    counts = {state: [entry for entry in entries if entry.state == state] for state in ORDER}
    told = ", ".join(f"{len(found)} {state}" for state, found in counts.items() if found and state != "done")
    lines = [f"{title}: {len(counts['done'])} of {len(entries)} done" + (f", {told}" if told else "")]
    for state, found in counts.items():
        if state == "missing" and len(found) > SEVERAL:
            lines.append(f"  missing    {found[0].name} ... {found[-1].name}, {len(found)} in all")
            continue
        lines += [f"  {entry.state:10} {entry.name}  {entry.detail}".rstrip() for entry in found]
    return lines


def to_go(study: StudyRecord, runs: list[Entry]) -> str:
    """How long the rest takes, from what runs of this study have taken so far."""
    left = [entry for entry in runs if entry.state not in ("done",)]
    if not left:
        return "complete"
    seconds = [run.record.cost["train_seconds"] + run.record.cost["eval_seconds"] for run in runs if run.record]
    rates = [(entry.status, rate) for entry in runs if entry.status and (rate := entry.steps_per_second)]
    if seconds:
        each = statistics.median(seconds)
    elif rates:
        each = statistics.median(status.steps / rate for status, rate in rates)
    else:
        return "time to go not known yet"
    begun = sum(entry.status.step / entry.status.steps for entry in left if entry.status and entry.status.steps)
    running = sum(entry.state == "running" for entry in runs)
    work = (len(left) - begun) * each
    if running:
        return f"about {duration(work / running)} to go with {running} at a time"
    return f"nobody is at it; about {duration(work)} of one worker's time to go"


def disk_line(outputs: Path) -> str:
    """How much everything under `outputs` takes; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    sizes: dict[str, int] = {}
    weights = 0
    for parent, _, names in os.walk(outputs):
        top = Path(parent).relative_to(outputs).parts[:1]
        for name in names:
            try:
                found = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:  # a temporary file of a run that goes on
                continue
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            sizes[top[0] if top else "."] = sizes.get(top[0] if top else ".", 0) + found.st_size
            weights += found.st_size if name == "model.safetensors" else 0
    if not sizes:
        return f"disk: nothing under {outputs}"
    parts = ", ".join(f"{name} {megabytes(size)}" for name, size in sorted(sizes.items()) if size >= 50_000)
    free = shutil.disk_usage(outputs).free
    total = f"{megabytes(sum(sizes.values()))} under {outputs} ({parts}; of these weights {megabytes(weights)})"
    return f"disk: {total}, {megabytes(free)} free"


def megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
