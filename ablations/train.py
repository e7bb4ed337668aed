"""The training loop: one for all stages. What a stage optimises is a function from a step to named losses."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ablations.config import ScheduleConfig

WARMUP = 0.1
"""Share of a stage in which the learning rate rises to its peak; afterwards it falls to nothing along a cosine."""

MAX_GRADIENT_NORM = 10.0


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what happened and what to do."""


@dataclass(frozen=True)
class Fit:
    """losses: means over the last tenth of training; seconds_per_step: the median (on a GPU the mean)."""

    losses: dict[str, float]
    seconds_per_step: float
    seconds: float


def fit(
    module: nn.Module,
    losses_of: Callable[[int], dict[str, Tensor]],
    schedule: ScheduleConfig,
    log: Callable[[int, dict[str, float]], None],
    log_every: int,
    precision: str,
    slow: nn.Module | None = None,
) -> Fit:
    """Trains `module` for the schedule's steps on the sum of `losses_of(step)`.

    precision: "float32", or "bfloat16" for the layers that torch's autocast computes so; weights stay float32.
    slow: the part of it that is pretrained already; it learns at `pretrained_lr` times the rate.
    log(step, values) gets the losses and the learning rate every `log_every` steps.
    Raises TrainingError at the first logged step with a loss that is not finite.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    pretrained = set() if slow is None else set(slow.parameters())
    groups = [
        {"params": [p for p in parameters if p not in pretrained], "lr": schedule.lr},
        {"params": [p for p in parameters if p in pretrained], "lr": schedule.lr * schedule.pretrained_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=schedule.weight_decay, fused=True)
    one_cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, schedule.steps))
    device = parameters[0].device.type
    history: list[dict[str, float]] = []
    durations: list[float] = []
    began = time.perf_counter()
    for step in range(schedule.steps):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            losses = losses_of(step)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        if step % log_every == 0 or step >= schedule.steps - max(schedule.steps // 10, 1):
            values = {name: loss.item() for name, loss in losses.items()}
            _check_finite(values, step)
            history.append(values)
            if step % log_every == 0:
                log(step, values | {"lr": optimizer.param_groups[0]["lr"]})
        one_cycle.step()
        durations.append(time.perf_counter() - start)
    tail = history[-max(schedule.steps // 10, 1) :]
    return Fit(
        losses={name: statistics.fmean(values[name] for values in tail) for name in tail[0]},
        # A GPU's steps are only launched one by one: of those the mean is right.
        seconds_per_step=statistics.median(durations) if device == "cpu" else sum(durations) / len(durations),
        seconds=time.perf_counter() - began,
    )


def learning_rate_factor(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step: up in a line, down along a cosine."""
    warmup = max(WARMUP * steps, 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _check_finite(values: dict[str, float], step: int) -> None:
    if not all(math.isfinite(value) for value in values.values()):
        listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise TrainingError(
            f"step {step}: expected finite losses, got {listed}. The learning rate may be too high: lower budget.*.lr"
        )
