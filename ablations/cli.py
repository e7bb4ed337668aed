"""What `python run.py` does once Hydra has composed its configuration."""

import json
import os
from pathlib import Path

import torch
from omegaconf import DictConfig
from PIL import Image

from ablations.config import Config, ConfigError
from ablations.device import choose_device
from ablations.exhibition import exhibits_of
from ablations.provenance import cores, git_state
from ablations.record import StudyRecord, save, write_atomically
from ablations.results import table
from ablations.runner import Outcome, execute
from ablations.stages import stages_of
from ablations.study import Compose, Run, Study, compose_study, single_run
from ablations.workers import INTERRUPTED

NUM_SAMPLES = 6
"""Validation images that every report draws: spread evenly over the set, so chosen before anything is trained."""


def run(composed: DictConfig, overrides: list[str], compose: Compose) -> int:
    """Carries out the run or the study that was asked for.

    The exit code is 0 if everything is done, 1 if something failed, and 130 if it was stopped on request.
    Raises ConfigError before any work is done if something in the configuration cannot work.
    """
    if composed.study is None:
        runs = [single_run(composed, overrides)]
        check_outputs(runs[0].config)
        print(describe(runs[0].config))
        outcome = execute(runs)
        for folder, record in outcome.records.items():
            print(f"{record.num_parameters:,} parameters\n{table(record)}\nfiles: {folder}")
        return conclude(outcome)

    study, runs = compose_study(composed, overrides, compose)
    check_outputs(runs[0].config)
    print(describe(runs[0].config))
    print(f"study {study.name}: {len(study.arms)} arms x {len(runs) // len(study.arms)} seeds")
    start_study(study, runs)
    outcome = execute(runs, exhibits=exhibits_of(study, runs))
    print(f"records: {runs[0].folder.parent.parent}\nreport:  python -m reports {study.name}")
    return conclude(outcome)


def start_study(study: Study, runs: list[Run]) -> None:
    """Writes what is asked, and what reports draw, before anything is trained."""
    config = runs[0].config
    folder = Path(config.outputs) / study.name
    try:
        val = stages_of(config).dataset("val")
    except (ValueError, OSError) as error:
        raise ConfigError(f"data: {error}") from error
    count = min(NUM_SAMPLES, len(val))
    chosen = [val[index * len(val) // count] for index in range(count)]
    for sample in chosen:
        path = folder / "samples" / f"{sample.image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        if sample.original_size is not None:  # ground truth and detections are in the original image's pixels
            image = image.resize(sample.original_size[::-1])
        image.save(path)
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
    device, reason = choose_device(config.device)
    git = git_state()
    state = f"commit {git['commit'][:10]}" + (" with changes" if git["dirty"] else "") if git["commit"] else "no git"
    where = f"device {device} ({reason}), {cores()} cores, training in {config.precision}"
    return f"{where}; {state}; torch {torch.__version__}"


def conclude(outcome: Outcome) -> int:
    for name, message in outcome.failures.items():
        print(f"failed: {name}: {message}")
    if outcome.interrupted:
        print("stopped; finished runs and checkpoints are kept: give the same command again to go on")
        return INTERRUPTED
    return 1 if outcome.failures else 0
