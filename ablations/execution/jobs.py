"""Jobs: which runs, stages and exhibits a command consists of, what each of them needs, and how a worker does one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ablations.config.study import Run
from ablations.execution.exhibits import Exhibit, make_exhibit, measure_run
from ablations.execution.reuse import finished_record, move_to_replaced, reuse_finished_run
from ablations.execution.run import run_arm
from ablations.records.run_log import RunLog
from ablations.records.storage import LOCK, clear_temporaries
from ablations.stages.make import make_backbone, make_data, make_features, make_proposals
from ablations.stages.store import stages_of
from data.folders import locked

WORK: Mapping[str, Callable[..., Any]] = {
    "data": make_data,
    "backbone": make_backbone,
    "features": make_features,
    "proposals": make_proposals,
    "run": run_arm,
}
"""The function that does the work of each kind of job; called with its Stages or Run, and its RunLog."""


@dataclass(frozen=True)
class Job:
    """Something that a worker does once the jobs that it needs are done.

    name:   unique, and readable
    folder: of its log, status and lock
    work:   called as work(log), or as work(results of the inputs, log) if it has inputs
    needs:  names of other jobs
    run:    set for runs, which are counted and have records
    inputs: names of jobs that do a part of this one's work; it needs them too
    """

    name: str
    folder: Path
    work: Callable[..., Any]
    needs: frozenset[str]
    run: Run | None = None
    inputs: tuple[str, ...] = ()


class RunningElsewhere(Exception):
    """Another process is doing this job."""


def plan(runs: Sequence[Run], work: Mapping[str, Callable[..., Any]] = WORK) -> list[Job]:
    """The runs, in their order, each after the stages that it depends on; a stage that several need is there once."""
    jobs: dict[str, Job] = {}
    for run in runs:
        stages, stride = stages_of(run.config), run.config.stride
        names = {"data": f"data {stages.data_key}", "backbone": f"backbone {stages.backbone_key}"}
        if stages.caches_features:
            names["features"] = f"features stride {stride} {stages.features_key}"
        if stages.shares_proposals:
            names["proposals"] = f"proposals stride {stride} {stages.rpn_key}"
        needs: frozenset[str] = frozenset()
        for kind, name in names.items():
            jobs.setdefault(name, Job(name, stages.work_folder(name), partial(work[kind], stages), needs))
            needs = frozenset({name})
        jobs[job_name(run)] = Job(job_name(run), run.folder, partial(work["run"], run), needs, run)
    return list(jobs.values())


def plan_exhibits(exhibits: Sequence[Exhibit]) -> list[Job]:
    """One exhibit after another, once all runs are done: one that measures times must not share the machine. What an
    exhibit measures of each run is a job of its own, so that the workers share it."""
    jobs: list[Job] = []
    for exhibit in exhibits:
        needs = frozenset(map(job_name, exhibit.runs)) | {job.name for job in jobs[-1:]}
        folder = exhibit.path.parent / "work" / exhibit.name
        name = f"{exhibit.runs[0].study}: exhibit {exhibit.name}"
        parts = [
            Job(
                f"{name} of {run}",
                folder / f"{run.arm}-seed{run.config.seed}",
                partial(measure_run, exhibit, run),
                needs,
            )
            for run in (exhibit.runs if exhibit.measures_runs else [])
        ]
        inputs = tuple(part.name for part in parts)
        make = partial(make_exhibit, exhibit) if parts else partial(make_exhibit, exhibit, [])
        jobs += [*parts, Job(name, folder, make, needs | set(inputs), inputs=inputs)]
    return jobs


def job_name(run: Run) -> str:
    return f"{run.study}: {run}"


def run_job(job: Job, echo: bool, inputs: list[Any] | None = None) -> Any:
    """Does a job, in a worker; returns what its work returns. Raises RunningElsewhere if another process is doing it.

    echo: what it logs is printed too
    inputs: what the jobs of job.inputs returned
    """
    with locked(job.folder / LOCK, wait=False) as acquired:
        if not acquired:
            raise RunningElsewhere
        clear_temporaries(job.folder)
        if job.run is not None:
            if not job.run.config.force:
                record = finished_record(job.run) or reuse_finished_run(job.run)
                if record is not None:  # another process has finished it meanwhile, here or for another study
                    return record
            move_to_replaced(job.run.folder)
        with RunLog(job.folder, job.name, echo) as log:
            return job.work(inputs, log) if job.inputs else job.work(log)
