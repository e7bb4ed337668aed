"""How far the runs of one command are: lines that read well in a log file, and a bar below them on a terminal."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from ablations.records.schema import RunRecord, Status
from ablations.records.storage import load_status
from ablations.records.summary import duration, headline

SECONDS_BETWEEN_LOOKS = 1.0
QUIET_SECONDS = 60.0
"""After so long without a line, one says what is being done; on a terminal the bar does."""


class Progress:
    """One line for each finished task, with the time that is left.

    total, already: how many runs there are and how many are done; places: how many are done at a time.
    """

    def __init__(self, total: int, already: int, places: int, report: Callable[[str], None]) -> None:
        self.total, self.finished, self.places, self.report = total, already, places, report
        self.began = self.looked = self.spoke = time.monotonic()
        self.seconds: list[float] = []  # of each finished run
        self.projected: list[float] = []  # of each run at hand, by its pace, while none is finished
        # A single run echoes its own log. `disable=None`: not where the output is no terminal.
        self.bar = tqdm(
            total=total,
            initial=already,
            bar_format="{bar:20} {desc}",
            leave=False,
            dynamic_ncols=True,
            disable=True if total == 1 else None,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.bar.clear()
        self.report(line)
        self.bar.refresh()
        self.spoke = time.monotonic()

    def done(self, name: str, record: RunRecord | None = None) -> None:
        """A stage, or with its record a run, is done."""
        clock = f"[{time.monotonic() - self.began:5.0f} s]"
        if record is None:
            self.say(f"{clock} {name} ready")
            return
        self.finished += 1
        self.seconds.append(record.cost["train_seconds"] + record.cost["eval_seconds"])
        left = self._left(self.total - self.finished)
        self.say(f"{clock} run {self.finished} of {self.total}: {name}: {headline(record)}; {left}")

    def look(self, folders: Iterable[Path]) -> None:
        """Brings the bar up to date from the status files of what is being done; called often."""
        now = time.monotonic()
        if self.total == 1 or now - self.looked < SECONDS_BETWEEN_LOOKS:
            return
        self.looked = now
        statuses = [status for folder in folders if (status := load_status(folder / "status.json")) is not None]
        runs = [status for status in statuses if status.state == "running"]
        self.projected = [seconds for status in runs if (seconds := projected_seconds(status)) is not None]
        begun = sum(status.step / status.steps for status in runs if status.steps and not _is_stage(status))
        left = self._left(self.total - self.finished - begun)
        doing = ", ".join(f"{status.name.rpartition(': ')[2]} {where(status)}" for status in runs)
        text = f"{self.finished} of {self.total} runs; {left}: {doing}"
        if not self.bar.disable:
            self.bar.n = self.finished + begun
            self.bar.set_description_str(text)
        elif now - self.spoke >= QUIET_SECONDS and doing:
            self.say(f"[{now - self.began:5.0f} s] {text}")

    def _left(self, runs: float) -> str:
        seconds = self.seconds or self.projected
        if not seconds:
            return "time left not known yet"
        return f"about {duration(runs * sum(seconds) / len(seconds) / self.places)} left"


def projected_seconds(status: Status) -> float | None:
    """What a run's training takes in all at the pace of its steps so far; None where that cannot be told."""
    if _is_stage(status) or status.message != "training" or status.step <= status.resumed:
        return None
    elapsed = (datetime.fromisoformat(status.updated) - datetime.fromisoformat(status.started)).total_seconds()
    return elapsed * status.steps / (status.step - status.resumed) if elapsed > 0 else None


def where(status: Status) -> str:
    """How far a run or stage is, in a few words."""
    if status.message == "training" and status.steps:
        return f"at step {status.step} of {status.steps}"
    return status.message


def _is_stage(status: Status) -> bool:
    """Stages are named by what they are, runs by their study: `roialign: pool-16 seed 0`."""
    return ": " not in status.name
