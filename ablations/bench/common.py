"""What the benchmarks share: command line, record, calls that are timed in turns, and torchvision's form of a batch."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablations.records.provenance import provenance
from ablations.training.batches import uniform
from data.dataset import IMAGE_MEAN, IMAGE_STD, Batch
from models.detector import Detector
from models.structures import GroundTruth


def make_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/out/bench"), help="folder of the record")
    return parser


def run_benchmark(
    name: str,
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Measures with the options of the command line, writes the record to OUT/name.json and prints its table."""
    options = parser.parse_args()
    started = datetime.now(UTC)
    record = measure(options) | {"provenance": provenance(started)}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{table(record)}\n\nrecord: {path}")


def take_turns(calls: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int) -> dict[str, dict[str, list[float]]]:
    """For each call its seconds round by round: "wall", the time that passed, and "processor", what processors spent.

    Calls take turns, so that whatever disturbs the machine disturbs all. warm_up: rounds before those that count.
    """
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "processor": []} for name in calls}
    for call in calls.values():
        for _ in range(warm_up):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            seconds[name]["wall"].append(time.perf_counter() - wall)
            seconds[name]["processor"].append(time.process_time() - processor)
    return seconds


def compare(seconds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The part of a record that compares "ours" with "torchvision": medians, all values and ratios of the medians.

    seconds: phase -> "ours" or "torchvision" -> values, or kind -> values.
    """
    medians = {phase: {side: _median(values) for side, values in sides.items()} for phase, sides in seconds.items()}
    ratios = {phase: _ratio(sides["torchvision"], sides["ours"]) for phase, sides in medians.items()}
    return {"seconds": medians, "all_seconds": seconds, "ratio": ratios}


def _median(values: Any) -> Any:
    if isinstance(values, dict):
        return {kind: _median(times) for kind, times in values.items()}
    return statistics.median(values)


def _ratio(numerator: Any, denominator: Any) -> Any:
    if isinstance(numerator, dict):
        return {kind: _ratio(numerator[kind], denominator[kind]) for kind in numerator}
    return numerator / denominator


def comparison_table(rows: list[tuple[str, float, float, float]]) -> str:
    """rows: what was timed, seconds of ours, seconds of torchvision, ratio."""
    lines = [f"{'':28}{'ours':>12}{'torchvision':>14}{'ratio':>9}"]
    for name, ours, torchvision, ratio in rows:
        lines.append(f"{name:28}{1e3 * ours:9.0f} ms{1e3 * torchvision:11.0f} ms{ratio:8.2f}x")
    return "\n".join(lines)


def as_list(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The batch in torchvision's form: images of 0..1, and a dictionary of the objects of each."""
    std, mean = (torch.tensor(rgb, device=batch.images.device)[:, None, None] for rgb in (IMAGE_STD, IMAGE_MEAN))
    sizes = batch.sizes.tolist()
    images = [(image[:, :h, :w] * std + mean).contiguous() for image, (h, w) in zip(batch.images, sizes, strict=True)]
    real = [labels > 0 for labels in batch.labels]
    targets = [
        {"boxes": batch.boxes[i][keep], "labels": batch.labels[i][keep], "masks": batch.masks[i][keep][:, :h, :w]}
        for i, (keep, (h, w)) in enumerate(zip(real, sizes, strict=True))
    ]
    return images, targets


def training_steps(ours: Detector, torchvision: nn.Module, batch: Batch) -> dict[str, Callable[[], None]]:
    """A training step of each side on the same batch."""
    truth = GroundTruth(batch.boxes, batch.labels, batch.masks, batch.crowds)
    images, targets = as_list(batch)

    def draw_there(name: str, shape: tuple[int, ...]) -> Tensor:
        return draw(name, shape).to(batch.images.device)

    return {
        "ours": training_step(ours, lambda: ours(batch.images, batch.sizes, truth, None, draw_there)),
        "torchvision": training_step(torchvision, lambda: torchvision(images, targets)),
    }


def training_step(network: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
    optimizer = adamw(network)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(losses().values())).sum().backward()
        optimizer.step()

    return step


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, fused=True)


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """The same random numbers in every step, so that all steps do the same work."""
    return uniform(shape, 0, name)
