"""Carries out runs and the stages that they share, on all cores, and says how far it is."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.config.study import Run
from ablations.errors import Stopped, WorkerLost
from ablations.execution.exhibits import Exhibit, make_exhibit
from ablations.execution.finished import finished, outdated, set_aside
from ablations.execution.launchers import Engine, start
from ablations.execution.local import stop_signals
from ablations.execution.progress import Progress
from ablations.execution.reuse import take_over
from ablations.execution.run import run_arm
from ablations.machine import one_thread
from ablations.records.run_log import RunLog, explain, mark_failed
from ablations.records.schema import ExhibitRecord, RunRecord
from ablations.records.storage import LOCK, clear_temporaries
from ablations.stages.make import make_backbone, make_data, make_proposals
from ablations.stages.store import CHECKPOINT, Stages, stages_of
from ablations.training import distributed
from data.folders import clear_abandoned, held, locked

POLL = 0.2
"""Seconds between looks at what other processes and signals have brought."""


@dataclass(frozen=True)
class Task:
    """Something that a worker does once what it needs is done; called with its RunLog.

    folder: where its log, status and lock are
    run:    set for runs, which are counted
    """

    name: str
    folder: Path
    function: Callable[[RunLog], Any]
    needs: frozenset[str]
    run: Run | None = None


class Elsewhere(Exception):
    """Another process is doing this task."""


@dataclass
class Outcome:
    """What came of it.

    records:     by run folder
    failures:    by task: what went wrong
    interrupted: it was asked to stop, and did before all was done
    """

    records: dict[Path, RunRecord] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def plan(runs: list[Run]) -> list[Task]:
    """The runs and, once each, the stages that they stand on."""
    tasks: dict[str, Task] = {}
    for run in runs:
        stages = stages_of(run.config)
        data = _stage(make_data, stages, f"data {stages.data_key}", [])
        backbone = f"backbone stride {run.config.stride} {stages.backbone_key}"
        steps = [data, _stage(make_backbone, stages, backbone, [data])]
        if stages.shares_proposals:
            proposals = f"proposals stride {run.config.stride} {stages.rpn_key}"
            steps.append(_stage(make_proposals, stages, proposals, steps[-1:]))
        for step in steps:
            tasks.setdefault(step.name, step)
        work = functools.partial(run_arm, run)
        tasks[_name(run)] = Task(_name(run), run.folder, work, frozenset({steps[-1].name}), run)
    return list(tasks.values())


def plan_exhibits(exhibits: Sequence[Exhibit]) -> list[Task]:
    """One after another once all runs are done: an exhibit that takes times must be alone."""
    tasks: list[Task] = []
    for exhibit in exhibits:
        needs = frozenset(map(_name, exhibit.runs)) | {task.name for task in tasks[-1:]}
        folder = exhibit.path.parent / "work" / exhibit.name
        name = f"{exhibit.runs[0].study}: exhibit {exhibit.name}"
        tasks.append(Task(name, folder, functools.partial(_exhibit, exhibit), needs))
    return tasks


def execute(runs: list[Run], report: Callable[[str], None] = print, exhibits: Sequence[Exhibit] = ()) -> Outcome:
    """Carries out what is not done yet, `exhibits` of the runs last. A failure stops only what stands on it."""
    outcome = Outcome()
    left = take_stock(runs, outcome, report)
    tasks = plan(left)
    tasks += plan_exhibits([exhibit for exhibit in exhibits if left or not exhibit.is_current()])
    if not tasks:
        return outcome
    root = stages_of(runs[0].config).root
    for parent in (root, root / "data"):
        clear_abandoned(parent, keep=lambda partial: (partial / CHECKPOINT).exists())
    done = {_name(run) for run in runs if run.folder in outcome.records}
    with stop_signals() as stop_came:
        engine = start(runs[0].config, len(runs), stop_came)
        try:
            with Progress(len(runs), len(outcome.records), engine.count, report) as progress:
                _carry_out_all(tasks, done, engine, stop_came, outcome, progress, echo=len(runs) == 1)
        finally:
            engine.close()
    return outcome


def take_stock(runs: list[Run], outcome: Outcome, report: Callable[[str], None]) -> list[Run]:
    """The runs that are left to do; the finished ones and those of other studies go into `outcome`."""
    reasons: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        stages = stages_of(run.config)
        record = None if run.config.force else finished(run.folder, run.config, stages)
        if record is not None:
            outcome.records[run.folder] = record
        elif (run.folder / "run.json").exists():
            reasons[outdated(run.folder, run.config, stages) or "force=true"].append(run)
    if outcome.records:
        report(f"{len(outcome.records)} of {len(runs)} runs are done already")
    for reason, again in reasons.items():
        names = ", ".join(map(str, again[:3])) + (f" and {len(again) - 3} more" if len(again) > 3 else "")
        report(f"done again: {names}: {reason}; the old files are kept in {again[0].folder.parents[1] / 'replaced'}")
    for run in [run for run in runs if run.folder not in outcome.records and not run.config.force]:
        try:
            with locked(run.folder / LOCK, wait=False) as ours:
                record = take_over(run, stages_of(run.config)) if ours else None
        except OSError as error:
            outcome.failures[_name(run)] = explain(error)
            report(f"FAILED {_name(run)}: {explain(error)}")
            continue
        if record is not None:
            outcome.records[run.folder] = record
            report(f"{run}: taken over from {record.taken_from or 'replaced runs'}, which has the same settings")
    return [run for run in runs if run.folder not in outcome.records and _name(run) not in outcome.failures]


def _carry_out_all(
    waiting: list[Task],
    done: set[str],
    engine: Engine,
    stop_came: Callable[[], bool],
    outcome: Outcome,
    progress: Progress,
    echo: bool,
) -> None:
    """Gives the engine one task after another until all are done, or those begun when a stop is asked for."""
    pending: dict[Future[Any], Task] = {}
    waited_for: set[str] = set()
    while waiting or pending:
        if stop_came():
            engine.ask_to_stop()
            outcome.interrupted = True
            waiting = []
        # No more than there are places, so that runs start in the order of the plan: seed by seed.
        ready = [task for task in waiting if task.needs <= done]
        free = [task for task in ready if not held(task.folder / LOCK)]
        for task in free[: engine.free]:
            waiting.remove(task)
            pending[engine.submit(_carry_out, task, echo)] = task
        for task in ready if not pending else []:
            if task.name not in waited_for:
                waited_for.add(task.name)
                progress.say(f"waiting for another process that is at {task.name}")
        if not pending and not ready:
            for task in waiting:
                outcome.failures[task.name] = "not started, because something that it needs failed"
            return
        if not pending:
            time.sleep(POLL)
        progress.look(task.folder for task in pending.values())
        for future in wait(pending, timeout=POLL, return_when=FIRST_COMPLETED).done:
            task = pending.pop(future)
            try:
                result = engine.result(future)
            except Stopped:
                continue
            except Elsewhere:
                waiting.append(task)
                continue
            except Exception as error:
                outcome.failures[task.name] = explain(error)
                try:
                    progress.say(f"FAILED {task.name}: {explain(error)}")
                finally:
                    if distributed.desynchronised():
                        distributed.abort_all_ranks()
                if isinstance(error, WorkerLost):
                    mark_failed(task.folder, explain(error))
                continue
            done.add(task.name)
            if task.run is None:
                progress.done(task.name)
            else:
                outcome.records[task.run.folder] = result
                progress.done(str(task.run), result)


def _name(run: Run) -> str:
    return f"{run.study}: {run}"


def _carry_out(task: Task, echo: bool) -> Any:
    """In a worker: the task, unless another process is at it. echo: what it logs goes to the terminal too."""
    with locked(task.folder / LOCK, wait=False) as ours:
        if not ours:
            raise Elsewhere
        clear_temporaries(task.folder)
        if task.run is not None and not task.run.config.force:
            record = finished(task.run.folder, task.run.config, stages_of(task.run.config))
            record = record or take_over(task.run, stages_of(task.run.config))
            if record is not None:  # another process has finished it meanwhile, here or for another study
                return record
        if task.run is not None:
            set_aside(task.run.folder)
        with RunLog(task.folder, task.name, echo) as log:
            return task.function(log)


def _stage(make: Callable[[Stages, RunLog], None], stages: Stages, name: str, needs: list[Task]) -> Task:
    work = functools.partial(_on_one_thread, make, stages)
    return Task(name, stages.work_folder(name), work, frozenset(task.name for task in needs))


def _on_one_thread(make: Callable[[Stages, RunLog], None], stages: Stages, log: RunLog) -> None:
    """Stages are shared, so their bits must not depend on whether a study or a single run makes them: one thread."""
    with one_thread():
        make(stages, log)


def _exhibit(exhibit: Exhibit, log: RunLog) -> ExhibitRecord:
    return make_exhibit(exhibit)
