"""The progress of one command: lines that read well in a log file, and a bar below them on a terminal."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from ablations.records.schema import RunRecord, Status
from ablations.records.storage import load_status
from ablations.records.summary import duration, headline

SECONDS_BETWEEN_UPDATES = 1.0
QUIET_SECONDS = 60.0
"""After so long without a line, one says what is running; on a terminal the bar does."""


class ProgressReporter:
    """Prints a line for each finished job, with an estimate of the time that remains.

    num_runs, num_done: runs in all, and those that were done before
    num_slots:          how many run at a time
    print_line:         where lines go
    """

    def __init__(self, num_runs: int, num_done: int, num_slots: int, print_line: Callable[[str], None]) -> None:
        self.num_runs, self.num_done, self.num_slots, self.print_line = num_runs, num_done, num_slots, print_line
        self.began = self.updated = self.printed = time.monotonic()
        self.seconds: list[float] = []  # of each finished run
        self.projected: list[float] = []  # of each running one, from its pace: used until one is finished
        # A single run echoes its own log. `disable=None` leaves the bar out where the output is not a terminal.
        self.bar = tqdm(
            total=num_runs,
            initial=num_done,
            bar_format="{bar:20} {desc}",
            leave=False,
            dynamic_ncols=True,
            disable=True if num_runs == 1 else None,
        )

    def __enter__(self) -> "ProgressReporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def write(self, line: str) -> None:
        """Prints a line above the bar."""
        self.bar.clear()
        self.print_line(line)
        self.bar.refresh()
        self.printed = time.monotonic()

    def job_done(self, name: str, record: RunRecord | None = None) -> None:
        """Reports that a stage or an exhibit or, with its record, a run is done."""
        clock = f"[{time.monotonic() - self.began:5.0f} s]"
        if record is None:
            self.write(f"{clock} {name} ready")
            return
        self.num_done += 1
        self.seconds.append(record.cost["train_seconds"] + record.cost["eval_seconds"])
        remaining = self._time_for(self.num_runs - self.num_done)
        self.write(f"{clock} run {self.num_done} of {self.num_runs}: {name}: {headline(record)}; {remaining}")

    def update(self, folders: Iterable[Path]) -> None:
        """Updates the bar from the status files of the running jobs; called often."""
        now = time.monotonic()
        if self.num_runs == 1 or now - self.updated < SECONDS_BETWEEN_UPDATES:
            return
        self.updated = now
        statuses = [status for folder in folders if (status := load_status(folder / "status.json")) is not None]
        running = [status for status in statuses if status.state == "running"]
        self.projected = [seconds for status in running if (seconds := projected_seconds(status)) is not None]
        begun = sum(status.step / status.steps for status in running if status.steps and not _is_stage(status))
        remaining = self._time_for(self.num_runs - self.num_done - begun)
        phases = ", ".join(f"{status.name.rpartition(': ')[2]} {phase(status)}" for status in running)
        text = f"{self.num_done} of {self.num_runs} runs; {remaining}: {phases}"
        if not self.bar.disable:
            self.bar.n = self.num_done + begun
            self.bar.set_description_str(text)
        elif now - self.printed >= QUIET_SECONDS and phases:
            self.write(f"[{now - self.began:5.0f} s] {text}")

    def _time_for(self, runs: float) -> str:
        seconds = self.seconds or self.projected
        if not seconds:
            return "time remaining unknown"
        return f"about {duration(runs * sum(seconds) / len(seconds) / self.num_slots)} left"


def projected_seconds(status: Status) -> float | None:
    """The time that a run's whole training takes at its pace so far; None where that is not known."""
    if _is_stage(status) or status.message != "training" or status.step <= status.resumed:
        return None
    elapsed = (datetime.fromisoformat(status.updated) - datetime.fromisoformat(status.started)).total_seconds()
    return elapsed * status.steps / (status.step - status.resumed) if elapsed > 0 else None


def phase(status: Status) -> str:
    """What a run or stage is doing, in a few words."""
    if status.message == "training" and status.steps:
        return f"at step {status.step} of {status.steps}"
    return status.message


def _is_stage(status: Status) -> bool:
    """Stages are named by what they are, runs by their study: `roialign: pool-16 seed 0`."""
    return ": " not in status.name
