"""python -m ablations.status [STUDY ...]: what is done, running, failed or missing, the time left, and disk use."""

import argparse
import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

from ablations.errors import RecordError
from ablations.execution.progress import phase
from ablations.records.schema import SNAPSHOTS, WEIGHTS, RunRecord, Status
from ablations.records.storage import LOCK, UNPACKED, load_run, load_status, load_study
from ablations.records.summary import duration, headline
from data.folders import held
from data.terminal import run_command

STATES = ("running", "failed", "unreadable", "stopped", "killed", "missing", "done")
MOST_LISTED = 4
"""If more runs are missing than this, only the first, the last and their number are shown."""

BEGIN = "`make smoke` checks the installation, `make ablation-roialign` starts the main study"


@dataclass(frozen=True)
class Entry:
    """A run, a stage or an exhibit. state: one of STATES; record: of a run that is done."""

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
    parser.add_argument("study", nargs="*", help="names of studies; by default all studies, single runs and stages")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs go")
    options = parser.parse_args(arguments)
    outputs = options.outputs
    names = options.study or sorted({path.parent.name for path in outputs.glob("*/study.json")})
    failed = 0
    if not names and not any(outputs.glob("s*/*")):  # neither single runs nor stages
        print(f"nothing has been started under {outputs}; {BEGIN}")
        return 0
    for name in names:
        try:
            print("\n".join(study_lines(outputs / name)))
        except (RecordError, OSError) as error:
            print(f"error: {name}: expected a study under {outputs}: {error}", file=sys.stderr)
            failed = 1
    if not options.study:
        others = [entry_of(path.parent) for path in sorted(outputs.glob("stages/work/*/status.json"))]
        others += [entry_of(path) for path in sorted(outputs.glob("single/*/seed*")) if path.is_dir()]
        print("\n".join(list_entries("single runs and shared stages", others)))
    print(disk_line(outputs))
    return failed


def study_lines(folder: Path) -> list[str]:
    """Raises RecordError or OSError if there is no study in `folder`."""
    study = load_study(folder / "study.json")
    runs = [entry_of(folder / arm / f"seed{seed}", f"{arm} seed {seed}") for seed in study.seeds for arm in study.arms]
    lines = list_entries(study.name, runs)
    lines[0] += f"; {time_left(runs)}"
    for name in study.exhibits:
        entry = entry_of(folder / "exhibits/work" / name, f"exhibit {name}")
        if (folder / f"exhibits/{name}.json").exists():
            entry = Entry(entry.name, "done")
        lines.append(f"  {entry.state:10} {entry.name}  {entry.detail}".rstrip())
    return lines


def entry_of(folder: Path, name: str = "") -> Entry:
    """The state of a run, stage or exhibit, read from its folder."""
    status = load_status(folder / "status.json")
    name = name or (status.name if status is not None else f"{folder.parent.name} {folder.name}")
    if held(folder / LOCK):
        if status is None or status.state != "running":
            return Entry(name, "running", "starting")
        entry = Entry(name, "running", phase(status), status)
        rate = entry.steps_per_second
        pace = ""
        if rate is not None:
            pace = f", {rate:.3g} steps/s, about {duration((status.steps - status.step) / rate)} left"
        resumed = f"; resumed at step {status.resumed}" if status.resumed else ""
        return Entry(name, "running", f"{entry.detail}{pace} (process {status.pid} on {status.host}{resumed})", status)
    if (folder / "run.json").exists():
        try:
            record = load_run(folder / "run.json")
        except RecordError as error:
            return Entry(name, "unreadable", str(error))
        origin = f" (reused from {record.taken_from})" if record.taken_from else ""
        origin += " (unpacked from an archive)" if (folder / UNPACKED).exists() else ""
        return Entry(name, "done", headline(record) + origin, record=record)
    if status is None:
        return Entry(name, "missing")
    if status.state == "running":
        return Entry(name, "killed", f"{phase(status)}; the same command continues it", status)
    if status.state == "stopped":
        detail = f"at step {status.step} of {status.steps}; the same command continues it"
        return Entry(name, "stopped", detail, status)
    return Entry(name, status.state, status.message, status)


def list_entries(title: str, entries: list[Entry]) -> list[str]:
    """A line with the counts, then one for each entry, except that many missing ones are abbreviated."""
    by_state = {state: [entry for entry in entries if entry.state == state] for state in STATES}
    counts = ", ".join(f"{len(alike)} {state}" for state, alike in by_state.items() if alike and state != "done")
    lines = [f"{title}: {len(by_state['done'])} of {len(entries)} done" + (f", {counts}" if counts else "")]
    for state, alike in by_state.items():
        if state == "missing" and len(alike) > MOST_LISTED:
            lines.append(f"  missing    {alike[0].name} ... {alike[-1].name}, {len(alike)} in all")
            continue
        lines += [f"  {entry.state:10} {entry.name}  {entry.detail}".rstrip() for entry in alike]
    return lines


def time_left(runs: list[Entry]) -> str:
    """How long the remaining runs of a study take, judging by those that are done or running."""
    remaining = [entry for entry in runs if entry.state != "done"]
    if not remaining:
        return "complete"
    seconds = [run.record.cost["train_seconds"] + run.record.cost["eval_seconds"] for run in runs if run.record]
    rates = [(entry.status, rate) for entry in runs if entry.status and (rate := entry.steps_per_second)]
    if seconds:
        seconds_per_run = statistics.median(seconds)
    elif rates:
        seconds_per_run = statistics.median(status.steps / rate for status, rate in rates)
    else:
        return "time remaining unknown"
    begun = sum(entry.status.step / entry.status.steps for entry in remaining if entry.status and entry.status.steps)
    num_running = sum(entry.state == "running" for entry in runs)
    total = (len(remaining) - begun) * seconds_per_run
    if num_running:
        return f"about {duration(total / num_running)} left with {num_running} at a time"
    return f"not running; about {duration(total)} left for one worker"


def disk_line(outputs: Path) -> str:
    """The disk space that everything under `outputs` takes; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    sizes: dict[str, int] = {}
    weights = 0
    for parent, _, names in os.walk(outputs):
        top = Path(parent).relative_to(outputs).parts[:1]
        for name in names:
            try:
                file = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:  # a temporary file of a running job
                continue
            if (file.st_dev, file.st_ino) in seen:
                continue
            seen.add((file.st_dev, file.st_ino))
            sizes[top[0] if top else "."] = sizes.get(top[0] if top else ".", 0) + file.st_size
            weights += file.st_size if name == WEIGHTS or fnmatch(name, SNAPSHOTS) else 0
    if not sizes:
        return f"disk: nothing under {outputs}"
    folders = ", ".join(f"{name} {megabytes(size)}" for name, size in sorted(sizes.items()) if size >= 50_000)
    free = shutil.disk_usage(outputs).free
    total = f"{megabytes(sum(sizes.values()))} under {outputs} ({folders}; of these weights {megabytes(weights)})"
    return f"disk: {total}, {megabytes(free)} free"


def megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    run_command(main)
