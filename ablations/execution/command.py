"""What a command does once its settings are checked: runs and studies, on this process or all ranks of torchrun."""

import json
import zlib
from pathlib import Path

import torch

from ablations.config.schema import Config
from ablations.config.study import Run, Study
from ablations.errors import ConfigError, RecordError
from ablations.execution.distributed_worker import worker_loop
from ablations.execution.exhibits import exhibits_of
from ablations.execution.local import INTERRUPTED
from ablations.execution.picture import write_picture
from ablations.execution.report import report_command, verdict_text, write_report
from ablations.execution.request import Request, refuse
from ablations.execution.scheduler import Outcome, execute
from ablations.machine import cores
from ablations.records.provenance import git_summary
from ablations.records.schema import RunRecord, StudyRecord
from ablations.records.storage import save, write_atomically
from ablations.records.summary import headline, table
from ablations.stages.store import stages_of
from ablations.tracking.replay import offline_note, replay
from ablations.tracking.trackers import publish_report
from ablations.training import distributed
from ablations.training.device import choose_device

NUM_SAMPLES = 12
"""Evaluated images from which a report picks those that it draws: chosen before anything is trained."""


def execute_requests(requests: list[Request]) -> int:
    """Executes all single runs at once, so that they share the machine, and then one study after another. Returns the
    exit code: 0 if everything is done, 1 if something failed, 2 if a request cannot work, 130 after a stop on request.

    Of several processes that torchrun started, rank 0 does so. Raises ConfigError if they cannot share the work.
    """
    if distributed.world_size() > 1 and requests:
        for request in requests:
            distributed.check_config(request.runs[0].config)
        distributed.init_process_group(choose_device(requests[0].runs[0].config.device)[0])
        if distributed.rank() > 0:
            return worker_loop()
    singles = {run.folder: run for request in requests if request.study is None for run in request.runs}
    merged = [Request(list(singles.values()))] if singles else []
    merged += [request for request in requests if request.study is not None]
    exit_code = 0
    try:
        for request in merged:
            try:
                exit_code = max(exit_code, execute_request(request))
            except (ConfigError, RecordError) as error:
                exit_code = max(exit_code, refuse(error))
            if exit_code == INTERRUPTED:
                break
    finally:
        distributed.destroy_process_group()
    return exit_code


def execute_request(request: Request) -> int:
    """Executes single runs, or a study's runs and exhibits; prints what is found and where the files are."""
    runs, study = request.runs, request.study
    print(describe(runs[0].config))
    if study is not None:
        print(f"study {study.name}: {len(study.arms)} arms x {len(runs) // len(study.arms)} seeds; {cost(runs)}")
        start_study(study, runs)
    outcome = execute(runs, () if study is None else exhibits_of(study, runs))
    track(runs, outcome)
    if study is None:
        show_runs({run.folder: run for run in runs}, outcome.records)
    else:
        show_study(request, outcome.interrupted)
    print(offline_note(runs), end="")
    return conclude(outcome)


def track(runs: list[Run], outcome: Outcome) -> None:
    """Shows the tracker, if one is asked for, the finished runs that it has not seen."""
    if not outcome.interrupted and (count := replay(runs, outcome.records)):
        print(f"logger={runs[0].config.logger.kind}: {count} runs that were finished without it are shown there too")


def show_runs(runs: dict[Path, Run], records: dict[Path, RunRecord]) -> None:
    """Prints what single runs reached and where their files are: all metrics of one run, or of several a line each.

    runs: by run folder, as records.
    """
    for folder, record in records.items():
        picture = write_picture(runs[folder])
        where = f"picture: {picture}\nfiles: {folder}" if picture else f"files: {folder}"
        if len(records) == 1:
            print(f"{record.num_parameters:,} parameters\n{table(record)}\n{where}")
        else:
            print(f"{headline(record)}  {picture or folder}")


def show_study(request: Request, interrupted: bool) -> None:
    """Prints a study's verdicts, once it was not interrupted, and where its files are; shows the tracker its report."""
    folder = request.folder
    if not interrupted:
        publish_report(folder.name, request.runs[0].config, write_report)
        print(verdict_text(folder))
    print(f"records: {folder}\nreport:  {report_command(folder)}")


def cost(runs: list[Run]) -> str:
    """How much training the runs amount to, without the stages that they share."""
    schedules = [run.config.budget.rpn if run.config.task == "proposals" else run.config.budget.train for run in runs]
    steps = " or ".join(f"{count:,}" for count in sorted({schedule.steps for schedule in schedules}))
    images = " or ".join(str(count) for count in sorted({schedule.images_per_step for schedule in schedules}))
    total = sum(schedule.steps * schedule.images_per_step for schedule in schedules)
    return f"{len(runs)} runs x {steps} steps x {images} images, {total:,} images to train on"


def sample_indices(study: str, num_images: int) -> list[int]:
    """Which of the images that may be shown a study's report draws: evenly spaced, and other ones in every study."""
    count = min(NUM_SAMPLES, num_images)
    if not count:
        return []
    first = zlib.crc32(study.encode()) % (num_images // count)
    return [first + index * num_images // count for index in range(count)]


def start_study(study: Study, runs: list[Run]) -> None:
    """Writes what the study asks, and the images that its report draws, before anything is trained."""
    config = runs[0].config
    folder = Path(config.outputs) / study.name
    try:
        stages = stages_of(config)
        images = stages.evaluated
    except (ValueError, OSError) as error:
        raise ConfigError(f"data: {error}") from error
    samples = [images[images.showable[index]] for index in sample_indices(study.name, len(images.showable))]
    for sample in samples:
        path = folder / "samples" / f"{sample.image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.picture().save(path)
    write_atomically(folder / "ground_truth.json", json.dumps(images.coco))
    record = StudyRecord(
        name=study.name,
        title=study.title,
        question=study.question,
        factors=study.factors,
        arms=study.arms,
        seeds=sorted({run.config.seed for run in runs}),
        hypotheses=study.hypotheses,
        sample_image_ids=[sample.image_id for sample in samples],
        config=config.settings(),
        data={
            "name": images.name.partition("/")[0],
            "split": stages.split,
            "digest": images.digest,
            "num_val": len(images),
            "classes": list(images.classes),
        },
        exhibits=study.exhibits,
        floor=study.floor,
    )
    save(record, folder / "study.json")


def describe(config: Config) -> str:
    """The first line of output: where it computes and why, and which version of the code this is."""
    if config.launcher.kind == "local":
        device, reason = choose_device(config.device)
        where = f"device {device} ({reason}), {cores()} cores, training in {config.precision}"
    else:
        where = f"launcher {config.launcher.kind}, device {config.device}, training in {config.precision}"
    return f"{where}; {git_summary()}; torch {torch.__version__}"


def conclude(outcome: Outcome) -> int:
    """Prints what failed, and whether there was a stop; returns the exit code."""
    for name, message in outcome.failures.items():
        print(f"failed: {name}: {message}")
    if outcome.interrupted:
        print("stopped; finished runs and checkpoints are kept: run the same command again to continue")
        return INTERRUPTED
    return 1 if outcome.failures else 0
