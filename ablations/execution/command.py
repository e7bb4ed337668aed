"""What `python run.py` does once Hydra has composed its configuration."""

import json
import os
import sys
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from ablations.config.schema import Config
from ablations.config.study import Compose, Run, Study, compose_study, single_run
from ablations.errors import ConfigError, RecordError
from ablations.execution.distributed_worker import worker_loop
from ablations.execution.exhibits import exhibits_of
from ablations.execution.local import INTERRUPTED
from ablations.execution.scheduler import Outcome, execute
from ablations.machine import cores
from ablations.records.provenance import git_state
from ablations.records.schema import StudyRecord
from ablations.records.storage import save, write_atomically
from ablations.records.summary import table
from ablations.stages.store import stages_of
from ablations.tracking.trackers import publish_report
from ablations.training import distributed
from ablations.training.device import choose_device

NUM_SAMPLES = 12
"""Validation images from which a report picks those that it draws: chosen before anything is trained."""


@dataclass(frozen=True)
class Request:
    """What a command line asks for, or one of the many that a sweep stands for. study is None for a single run."""

    runs: list[Run]
    study: Study | None = None


def prepare(composed: DictConfig, overrides: list[str], compose: Compose) -> Request:
    """What is asked for. Raises ConfigError before any work is done if something in it cannot work."""
    if composed.study is None:
        request = Request([single_run(composed, overrides)])
    else:
        study, runs = compose_study(composed, overrides, compose)
        request = Request(runs, study)
    check_outputs(request.runs[0].config)
    return request


def carry_out(requests: list[Request]) -> int:
    """Single runs side by side, then one study after another.

    The exit code is 0 if everything is done, 1 if something failed, 2 if something that was asked for cannot work,
    and 130 if it was stopped on request.
    """
    if distributed.world_size() == 1:
        return lead(requests)
    try:
        for request in requests:
            distributed.check_config(request.runs[0].config)
    except ConfigError as error:
        return refuse(error)
    if not requests:
        return 0
    distributed.init_process_group(choose_device(requests[0].runs[0].config.device)[0])
    if distributed.rank() > 0:
        return worker_loop()
    try:
        return lead(requests)
    finally:
        distributed.destroy_process_group()


def lead(requests: list[Request]) -> int:
    """As carry_out, by this process and those that it calls for."""
    single = {request.runs[0].folder: request.runs[0] for request in requests if request.study is None}
    work = [partial(carry_out_single, list(single.values()))] if single else []
    work += [partial(carry_out_study, request.study, request.runs) for request in requests if request.study is not None]
    codes = [0]
    for part in work:
        try:
            codes.append(part())
        except (ConfigError, RecordError) as error:
            codes.append(refuse(error))
        if codes[-1] == INTERRUPTED:
            break
    return max(codes)


def refuse(error: Exception) -> int:
    """Says what is wrong with what was asked for; gives the exit code of that."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def carry_out_single(runs: list[Run]) -> int:
    print(describe(runs[0].config))
    outcome = execute(runs)
    for folder, record in outcome.records.items():
        print(f"{record.num_parameters:,} parameters\n{table(record)}\nfiles: {folder}")
    return conclude(outcome)


def carry_out_study(study: Study, runs: list[Run]) -> int:
    print(describe(runs[0].config))
    print(f"study {study.name}: {len(study.arms)} arms x {len(runs) // len(study.arms)} seeds; {cost(runs)}")
    start_study(study, runs)
    outcome = execute(runs, exhibits=exhibits_of(study, runs))
    if not outcome.interrupted:
        publish_report(study.name, runs[0].config)
    print(f"records: {runs[0].folder.parent.parent}\nreport:  python -m reports {study.name}")
    return conclude(outcome)


def cost(runs: list[Run]) -> str:
    """What the runs amount to, before any is started; the stages that they share come on top."""
    schedules = [run.config.budget.rpn if run.config.task == "proposals" else run.config.budget.train for run in runs]
    steps = " or ".join(f"{count:,}" for count in sorted({schedule.steps for schedule in schedules}))
    images = " or ".join(str(count) for count in sorted({schedule.images_per_step for schedule in schedules}))
    total = sum(schedule.steps * schedule.images_per_step for schedule in schedules)
    return f"{len(runs)} runs x {steps} steps x {images} images, {total:,} images to train on"


def sample_indices(study: str, num_images: int) -> list[int]:
    """The validation images that a study's report draws: evenly spaced, and other ones in every study."""
    count = min(NUM_SAMPLES, num_images)
    first = zlib.crc32(study.encode()) % (num_images // count)
    return [first + index * num_images // count for index in range(count)]


def start_study(study: Study, runs: list[Run]) -> None:
    """Writes what is asked, and what reports draw, before anything is trained."""
    config = runs[0].config
    folder = Path(config.outputs) / study.name
    try:
        val = stages_of(config).dataset("val")
    except (ValueError, OSError) as error:
        raise ConfigError(f"data: {error}") from error
    chosen = [val[index] for index in sample_indices(study.name, len(val))]
    for sample in chosen:
        path = folder / "samples" / f"{sample.image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.picture().save(path)
    write_atomically(folder / "ground_truth.json", json.dumps(val.coco))
    record = StudyRecord(
        name=study.name,
        title=study.title,
        question=study.question,
        factors=study.factors,
        arms=study.arms,
        seeds=sorted({run.config.seed for run in runs}),
        hypotheses=study.hypotheses,
        sample_image_ids=[sample.image_id for sample in chosen],
        config=config.settings(),
        data={
            "name": val.name.partition("/")[0],
            "digest": val.digest,
            "num_val": len(val),
            "classes": list(val.classes),
        },
        exhibits=study.exhibits,
    )
    save(record, folder / "study.json")


def check_outputs(config: Config) -> None:
    """Raises ConfigError if nothing can be written where runs go."""
    folder = Path(config.outputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"outputs: expected a folder that can be written, got {folder} ({error.strerror})") from error


def describe(config: Config) -> str:
    """The first lines of a run: where it computes and why, and which code this is."""
    git = git_state()
    state = f"commit {git['commit'][:10]}" + (" with changes" if git["dirty"] else "") if git["commit"] else "no git"
    if config.launcher.kind == "local":
        device, reason = choose_device(config.device)
        where = f"device {device} ({reason}), {cores()} cores, training in {config.precision}"
    else:
        where = f"launcher {config.launcher.kind}, device {config.device}, training in {config.precision}"
    return f"{where}; {state}; torch {torch.__version__}"


def conclude(outcome: Outcome) -> int:
    for name, message in outcome.failures.items():
        print(f"failed: {name}: {message}")
    if outcome.interrupted:
        print("stopped; finished runs and checkpoints are kept: give the same command again to continue")
        return INTERRUPTED
    return 1 if outcome.failures else 0
