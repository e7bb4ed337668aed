"""What a study costs besides its training: how well its runs share the cores, and how long checkpoints take.

    python -m ablations.bench.study [--runs 6] [--steps 60] [--rounds 2] [--out FOLDER]

The same runs are executed by two workers with one thread each, by one worker with one thread, and by one with two. The
stages are made beforehand; the time is from the start of the first run to the end of the last, without the workers'
imports. Checkpoints are timed in turns with the steps of one training; their share is that at the default interval.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from ablations.bench.common import adamw, make_parser, run_benchmark
from ablations.config.loading import from_hydra
from ablations.config.schema import CheckpointConfig, Config
from ablations.config.study import Run
from ablations.execution.scheduler import execute
from ablations.paths import CONF
from ablations.records.run_log import RunLog
from ablations.records.storage import load_status
from ablations.stages.store import stages_of
from ablations.tasks.build import build_task
from ablations.training.checkpoint import CHECKPOINT, Checkpoint, TrainingState
from data.terminal import run_command

WAYS = {"two workers, one thread each": (2, 1), "one worker, one thread": (1, 1), "one worker, two threads": (1, 2)}
CHECKPOINTS = 5


def configuration(outputs: Path, steps: int) -> Config:
    """Runs on few images, because only training matters here."""
    overrides = [
        f"outputs={outputs}",
        "device=cpu",
        "budget=smoke",
        f"budget.train.steps={steps}",
        "budget.val_images=40",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return from_hydra(compose("config", overrides))


def seconds_of(config: Config, workers: int, threads: int, count: int, name: str) -> float:
    """From the start of the first run to the end of the last, by their statuses, which exclude the workers' imports."""
    config = dataclasses.replace(config, workers=workers, threads=threads, force=True)
    runs = [Run(name, "arm", dataclasses.replace(config, seed=seed)) for seed in range(count)]
    outcome = execute(runs, print_line=lambda _: None)
    if outcome.failures:
        raise SystemExit(f"a run failed: {outcome.failures}")
    statuses = [load_status(run.folder / "status.json") for run in runs]
    spent = [record.cost["train_seconds"] + record.cost["eval_seconds"] for record in outcome.records.values()]
    times = [(_moment(status.started), _moment(status.updated)) for status in statuses if status is not None]
    elapsed = max(end for _, end in times) - min(start for start, _ in times)
    return max(elapsed, sum(spent) / workers)  # statuses have whole seconds only


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def checkpoint_cost(config: Config, folder: Path) -> dict[str, float]:
    """Seconds of a step and of a checkpoint of this run's training, and the checkpoints' share of the time."""
    spec = build_task(stages_of(config)).training
    optimizer = adamw(spec.model)
    log = RunLog(folder, "bench")
    checkpoint = Checkpoint(folder / CHECKPOINT, "bench", CheckpointConfig(), log)
    steps, writes = [], []
    for step in range(4 * CHECKPOINTS):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.stack(list(spec.losses(step, 0).values())).sum().backward()
        optimizer.step()
        steps.append(time.perf_counter() - start)
        if step % 4 == 3:
            start = time.perf_counter()
            checkpoint.write(TrainingState(step=step), spec.model, optimizer)
            writes.append(time.perf_counter() - start)
    write = statistics.median(writes)
    return {
        "seconds_per_step": statistics.median(steps),
        "seconds_per_checkpoint": write,
        "bytes": (folder / CHECKPOINT).stat().st_size,
        "interval_seconds": CheckpointConfig().seconds,
        "share_of_time": write / (CheckpointConfig().seconds + write),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        config = configuration(folder, options.steps)
        seconds_of(config, 2, 1, 2, "warm-up")  # makes the stages that all others depend on
        for _ in range(options.rounds):
            for way, (workers, threads) in WAYS.items():
                seconds[way].append(seconds_of(config, workers, threads, options.runs, "study"))
        checkpoints = checkpoint_cost(config, folder / "checkpoints")
    two, one, both = (statistics.median(seconds[way]) for way in WAYS)
    return {
        "runs": options.runs,
        "steps": options.steps,
        "seconds": seconds,
        "ratio_to_one_thread": one / two,
        "ratio_to_two_threads": both / two,
        "checkpoints": checkpoints,
    }


def table(record: dict[str, Any]) -> str:
    lines = [f"{way:32}{statistics.median(values):8.1f} s" for way, values in record["seconds"].items()]
    lines.append(
        f"two workers are {record['ratio_to_one_thread']:.2f} times as fast as one run after another on one thread, "
        f"{record['ratio_to_two_threads']:.2f} times as fast as on two"
    )
    cost = record["checkpoints"]
    lines.append(
        f"a checkpoint of {cost['bytes'] / 1e6:.1f} MB takes {1e3 * cost['seconds_per_checkpoint']:.0f} ms, "
        f"a training step {1e3 * cost['seconds_per_step']:.0f} ms: one every {cost['interval_seconds']:.0f} s takes "
        f"{cost['share_of_time']:.2%} of the time"
    )
    return "\n".join(lines)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=int, default=6, help="runs of the study (6)")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each run (60)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each way is taken (2)")
    run_benchmark("study", parser, measure, table)


if __name__ == "__main__":
    run_command(main)
