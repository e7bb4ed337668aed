"""Carries out runs and the stages that they share, on all cores, and says how far it is."""

import contextlib
import functools
import itertools
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from ablations.arm import finished, run_arm
from ablations.config import ConfigError
from ablations.device import choose_device
from ablations.exhibition import Exhibit, make_exhibit
from ablations.provenance import cores
from ablations.record import ExhibitRecord, RunRecord
from ablations.results import headline
from ablations.reuse import take_over
from ablations.stages import Log, Stages, make_backbone, make_data, make_proposals, stages_of
from ablations.study import Run
from ablations.train import TrainingError


@dataclass(frozen=True)
class Task:
    """Something that a worker does once what it needs is done. `run` is set for runs, which are counted."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    needs: frozenset[str]
    run: Run | None = None


@dataclass
class Outcome:
    """records by run folder; failures by task: what went wrong."""

    records: dict[Path, RunRecord] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def plan(runs: list[Run], echo: bool = False) -> list[Task]:
    """The runs and, once each, the stages that they stand on; echo: what they log goes to the terminal too."""
    tasks: dict[str, Task] = {}
    for run in runs:
        stages = stages_of(run.config)
        data = f"data {stages.data_key}"
        backbone = f"backbone stride {run.config.stride} {stages.backbone_key}"
        proposals = f"proposals stride {run.config.stride} {stages.rpn_key}"
        steps = [
            Task(data, _stage, (make_data, stages, data, echo), frozenset()),
            Task(backbone, _stage, (make_backbone, stages, backbone, echo), frozenset({data})),
        ]
        if stages.shares_proposals:
            steps.append(Task(proposals, _stage, (make_proposals, stages, proposals, echo), frozenset({backbone})))
        for step in steps:
            tasks.setdefault(step.name, step)
        tasks[_name(run)] = Task(_name(run), _arm, (run, echo), frozenset({steps[-1].name}), run)
    return list(tasks.values())


def plan_exhibits(exhibits: Sequence[Exhibit]) -> list[Task]:
    """One after another once all runs are done: an exhibit that takes times must be alone."""
    tasks: list[Task] = []
    for exhibit in exhibits:
        needs = frozenset(map(_name, exhibit.runs)) | {task.name for task in tasks[-1:]}
        tasks.append(Task(f"{exhibit.runs[0].study}: exhibit {exhibit.name}", _exhibit, (exhibit,), needs))
    return tasks


def execute(runs: list[Run], report: Callable[[str], None] = print, exhibits: Sequence[Exhibit] = ()) -> Outcome:
    """Carries out what is not done yet, `exhibits` of the runs last. A failure stops only what stands on it."""
    outcome = Outcome()
    for run in runs:
        record = finished(run.folder, run.config, stages_of(run.config))
        if record is not None:
            outcome.records[run.folder] = record
    if outcome.records:
        report(f"{len(outcome.records)} of {len(runs)} runs are done already")
    for run in [run for run in runs if run.folder not in outcome.records]:
        record = take_over(run, stages_of(run.config))
        if record is not None:
            outcome.records[run.folder] = record
            report(f"{run}: taken over from {record.taken_from}, which has the same settings")
    left = [run for run in runs if run.folder not in outcome.records]
    tasks = plan(left, echo=len(runs) == 1)
    tasks += plan_exhibits([exhibit for exhibit in exhibits if left or not exhibit.is_current()])
    if not tasks:
        return outcome
    # By all runs, not by those left: the number of threads decides the last digits of sums.
    gpu = choose_device(runs[0].config.device)[0].type == "cuda"
    workers = min(runs[0].config.workers or (1 if gpu else cores()), len(runs))
    threads = runs[0].config.threads or max(cores() // workers, 1)
    progress = Progress(len(runs), len(outcome.records), workers, report)
    with worker_pool(workers, threads) as pool:
        pending: dict[Future[Any], Task] = {}
        waiting = list(tasks)
        done = {_name(run) for run in runs if run.folder in outcome.records}
        while waiting or pending:
            # No more than there are workers, so that runs start in the order of the plan: seed by seed.
            ready = [task for task in waiting if task.needs <= done]
            for task in ready[: workers - len(pending)]:
                waiting.remove(task)
                pending[pool.submit(task.function, *task.arguments)] = task
            if not pending:
                for task in waiting:
                    outcome.failures[task.name] = "not started, because something that it needs failed"
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                task = pending.pop(future)
                try:
                    result = future.result()
                except Exception as error:
                    outcome.failures[task.name] = _message(error)
                    report(f"FAILED {task.name}: {outcome.failures[task.name]}")
                    if isinstance(error, BrokenProcessPool):
                        for other in [*waiting, *pending.values()]:
                            outcome.failures[other.name] = "not done, because the workers stopped"
                        return outcome
                    continue
                done.add(task.name)
                if task.run is not None:
                    outcome.records[task.run.folder] = result
                progress.done(task, result)
    return outcome


@contextlib.contextmanager
def worker_pool(workers: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that import everything once and then take one task after another."""
    # glibc returns the memory of large tensors to the kernel and asks for it again at every step, which costs 7 % of
    # the time in page faults. It reads these limits when a process starts; other systems ignore them.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(64 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 * 2**20))
    context = get_context("spawn")  # a forked process would inherit thread pools that do not run in it
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(threads,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Progress:
    """One line for each finished task, with the time that is left."""

    def __init__(self, total: int, already: int, workers: int, report: Callable[[str], None]) -> None:
        self.total, self.finished, self.workers, self.report = total, already, workers, report
        self.began = time.monotonic()
        self.seconds: list[float] = []

    def done(self, task: Task, result: Any) -> None:
        elapsed = time.monotonic() - self.began
        if task.run is None:
            self.report(f"[{elapsed:5.0f} s] {task.name} ready")
            return
        self.finished += 1
        self.seconds.append(result.cost["train_seconds"] + result.cost["eval_seconds"])
        left = (self.total - self.finished) * sum(self.seconds) / len(self.seconds) / self.workers
        line = f"run {self.finished} of {self.total}: {task.run}: {headline(result)}; about {left:.0f} s left"
        self.report(f"[{elapsed:5.0f} s] {line}")


def _name(run: Run) -> str:
    return f"{run.study}: {run}"


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise finish its run and then wait for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _stage(make: Callable[[Stages, Log], None], stages: Stages, name: str, echo: bool) -> None:
    """Stages are shared, so their bits must not depend on whether a study or a single run makes them: one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _with_log(stages.root / f"{name.replace(' ', '-')}.log", functools.partial(make, stages), echo)
    finally:
        torch.set_num_threads(threads)


def _arm(run: Run, echo: bool) -> RunRecord:
    work = functools.partial(run_arm, run.study, run.arm, run.config, run.folder, stages_of(run.config))
    return _with_log(run.folder / "log.txt", work, echo)


def _exhibit(exhibit: Exhibit) -> ExhibitRecord:
    return _with_log(exhibit.path.with_suffix(".log"), lambda _: make_exhibit(exhibit), echo=False)


def _with_log(path: Path, work: Callable[[Log], Any], echo: bool) -> Any:
    """Calls work(log) with a log that goes to a file, which also gets the traceback of what goes wrong.

    echo: every tenth line goes to the terminal too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file:
        lines = itertools.count()

        def log(step: int, values: dict[str, float]) -> None:
            line = "  ".join([f"step {step}", *(f"{name} {value:.4g}" for name, value in values.items())])
            print(line, file=file)
            if echo and next(lines) % 10 == 0:
                print(f"  {line}", flush=True)

        print(f"started {time.strftime('%Y-%m-%d %H:%M:%S')}", file=file)
        try:
            return work(log)
        except Exception:
            traceback.print_exc(file=file)
            raise


def _message(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "a worker process died (killed, or out of memory?); finished runs are kept: give the same command again"
    if isinstance(error, (ConfigError, TrainingError, OSError, ValueError)):
        return str(error)
    return f"{type(error).__name__}: {error} (the traceback is in its log)"
