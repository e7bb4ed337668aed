"""Executes runs and the stages that they share: whatever is not done yet, in parallel, with progress reported."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.config.study import Run
from ablations.errors import Stopped, WorkerLost
from ablations.execution.exhibits import Exhibit
from ablations.execution.jobs import WORK, Job, RunningElsewhere, job_name, plan, plan_exhibits, run_job
from ablations.execution.launchers import Launcher, make_launcher
from ablations.execution.local import stop_signals
from ablations.execution.progress import ProgressReporter
from ablations.execution.reuse import REPLACED, finished_record, outdated_reason, reuse_finished_run
from ablations.records.run_log import explain, mark_failed
from ablations.records.schema import RunRecord
from ablations.records.storage import LOCK
from ablations.stages.store import CHECKPOINT, stages_of
from ablations.training import distributed
from data.folders import clear_abandoned, held, locked

POLL = 0.2
"""Seconds between checks for signals and for jobs that other processes have finished."""


@dataclass
class Outcome:
    """What became of the runs.

    records:     by run folder
    failures:    by job: what went wrong
    interrupted: whether a stop was requested before everything was done
    """

    records: dict[Path, RunRecord] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def execute(
    runs: list[Run],
    exhibits: Sequence[Exhibit] = (),
    print_line: Callable[[str], None] = print,
    launch: Callable[..., Launcher] = make_launcher,
    work: Mapping[str, Callable[..., Any]] = WORK,
) -> Outcome:
    """Executes the runs that are not done yet, and then the exhibits of them that are not up to date.

    A failed job stops only those that need it. `launch` and `work` are arguments for tests.
    """
    outcome = Outcome()
    remaining = find_finished(runs, outcome, print_line)
    jobs = plan(remaining, work)
    jobs += plan_exhibits([exhibit for exhibit in exhibits if remaining or not exhibit.is_current()])
    if not jobs:
        return outcome
    root = stages_of(runs[0].config).root
    for parent in (root, root / "data"):
        clear_abandoned(parent, keep=lambda partial: (partial / CHECKPOINT).exists())
    done = {job_name(run) for run in runs if run.folder in outcome.records}
    with stop_signals() as stop_requested:
        launcher = launch(runs[0].config, len(runs), stop_requested)
        try:
            with ProgressReporter(len(runs), len(outcome.records), launcher.num_slots, print_line) as progress:
                Scheduler(jobs, done, launcher, progress, outcome, echo=len(runs) == 1).run(stop_requested)
        except BaseException:  # such as a lost standard output: what runs stops at its next checkpoint
            launcher.request_stop()
            raise
        finally:
            launcher.close()
    return outcome


def find_finished(runs: list[Run], outcome: Outcome, print_line: Callable[[str], None]) -> list[Run]:
    """The runs that remain to be done. Records of the others, from this study or another, go into `outcome`."""
    reasons: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        record = None if run.config.force else finished_record(run)
        if record is not None:
            outcome.records[run.folder] = record
        elif (run.folder / "run.json").exists():
            reasons[outdated_reason(run) or "force=true"].append(run)
    if outcome.records:
        print_line(f"{len(outcome.records)} of {len(runs)} runs are done already")
    for reason, outdated in reasons.items():
        names = ", ".join(map(str, outdated[:3])) + (f" and {len(outdated) - 3} more" if len(outdated) > 3 else "")
        folder = outdated[0].folder.parents[1] / REPLACED
        print_line(f"running again: {names}: {reason}; the old files are kept in {folder}")
    for run in [run for run in runs if run.folder not in outcome.records and not run.config.force]:
        try:
            with locked(run.folder / LOCK, wait=False) as acquired:
                record = reuse_finished_run(run) if acquired else None
        except OSError as error:
            outcome.failures[job_name(run)] = explain(error)
            print_line(f"FAILED {job_name(run)}: {explain(error)}")
            continue
        if record is not None:
            outcome.records[run.folder] = record
            print_line(f"{run}: reusing {record.taken_from or 'a replaced run'}, which has the same settings")
    return [run for run in runs if run.folder not in outcome.records and job_name(run) not in outcome.failures]


class Scheduler:
    """Gives jobs to a launcher, each once the jobs that it needs are done, and collects what they return.

    done: names of the jobs that are done
    echo: what jobs log is printed too
    """

    def __init__(
        self,
        jobs: list[Job],
        done: set[str],
        launcher: Launcher,
        progress: ProgressReporter,
        outcome: Outcome,
        echo: bool = False,
    ) -> None:
        self.waiting, self.done, self.launcher = list(jobs), done, launcher
        self.progress, self.outcome, self.echo = progress, outcome, echo
        self.running: dict[Future[Any], Job] = {}
        self.results: dict[str, Any] = {}  # of jobs that are inputs of others, by name
        self.parts = {name for job in jobs for name in job.inputs}
        self.announced: set[str] = set()  # jobs that another process does and this one waits for

    def run(self, stop_requested: Callable[[], bool]) -> None:
        """Returns once all jobs are done or have failed or, after a stop is requested, once none is running."""
        while self.waiting or self.running:
            if stop_requested():
                self.launcher.request_stop()
                self.outcome.interrupted = True
                self.waiting = []
            ready = [job for job in self.waiting if job.needs <= self.done]
            self.submit(ready)
            if not self.running and not ready:
                for job in self.waiting:
                    if job.name not in self.parts:  # the job that it is a part of is there
                        self.outcome.failures[job.name] = "skipped: a job it depends on failed"
                return
            if not self.running:
                time.sleep(POLL)
            self.progress.update(job.folder for job in self.running.values())
            for future in wait(self.running, timeout=POLL, return_when=FIRST_COMPLETED).done:
                self.collect(future)

    def submit(self, ready: list[Job]) -> None:
        """Fills the free slots, no more: jobs start in the order of the plan, so that seeds are finished in turn."""
        startable = [job for job in ready if not held(job.folder / LOCK)]
        for job in startable[: self.launcher.free_slots]:
            self.waiting.remove(job)
            inputs = [self.results[name] for name in job.inputs]
            self.running[self.launcher.submit(run_job, job, self.echo, inputs)] = job
        for job in ready if not self.running else []:
            if job.name not in self.announced:
                self.announced.add(job.name)
                self.progress.write(f"waiting for {job.name}, which another process is running")

    def collect(self, future: Future[Any]) -> None:
        """Notes what came of a job that has ended."""
        job = self.running.pop(future)
        try:
            result = self.launcher.result(future)
        except Stopped:
            return
        except RunningElsewhere:
            self.waiting.append(job)
            return
        except Exception as error:
            self.fail(job, error)
            return
        self.done.add(job.name)
        if job.name in self.parts:
            self.results[job.name] = result
        elif job.run is None:
            self.progress.job_done(job.name)
        else:
            self.outcome.records[job.run.folder] = result
            self.progress.job_done(str(job.run), result)

    def fail(self, job: Job, error: Exception) -> None:
        """Notes that a job has failed, and why; ends all ranks if they are desynchronised."""
        self.outcome.failures[job.name] = explain(error)
        try:
            self.progress.write(f"FAILED {job.name}: {explain(error)}")
        finally:
            if distributed.desynchronised(error):
                distributed.abort_all_ranks()
        if isinstance(error, WorkerLost):
            mark_failed(job.folder, explain(error))
