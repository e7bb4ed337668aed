"""The training loop: one for all stages. What a stage optimises is a function from a step to named losses."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablations.config.schema import ScheduleConfig
from ablations.errors import Stopped, TrainingError
from ablations.training.checkpoint import Checkpoint, Progress
from ablations.training.distributed import SharedTraining, rank, reduce_gradients, world_size
from ablations.training.stopping import stop_requested

MOMENTUM = 0.9

MAX_GRADIENT_NORM = 10.0

REDUCED = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions in which torch's autocast computes some of the layers."""


@dataclass(frozen=True)
class Fit:
    """losses: means over the last tenth of training; seconds_per_step: on a CPU the median since training was last
    interrupted, on a GPU the mean of all steps; seconds: in all, checkpoints included."""

    losses: dict[str, float]
    seconds_per_step: float
    seconds: float


def fit(
    module: nn.Module,
    losses_of: Callable[[int, int], dict[str, Tensor]],
    schedule: ScheduleConfig,
    log: Callable[[int, dict[str, float]], None],
    log_every: int,
    precision: str,
    slow: nn.Module | None = None,
    checkpoint: Checkpoint | None = None,
    shared: SharedTraining | None = None,
) -> Fit:
    """Trains `module` for the schedule's steps on the sum of `losses_of(step, part)`, the mean over a step's micro
    batches, going on from the checkpoint if it can.

    precision: "float32", or "bfloat16" or "float16" for the layers that torch's autocast computes so; weights stay
    float32. float16 loses small gradients, so the loss is scaled; a step whose gradients overflow is left out.
    slow: the part of it that is pretrained already; it learns at `pretrained_lr` times the rate.
    shared: the training that other ranks share each step's micro batches of; None: this process computes all of them.
    log(step, values) gets the losses and the learning rate every `log_every` steps.
    Raises TrainingError at the first logged step with a loss that is not finite, and Stopped, with a checkpoint
    written, if it is asked to stop.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    pretrained = set() if slow is None else set(slow.parameters())
    rates = (schedule.lr, schedule.lr * schedule.pretrained_lr)
    groups = [
        {"params": [p for p in parameters if p not in pretrained], "lr": rates[0]},
        {"params": [p for p in parameters if p in pretrained], "lr": rates[1]},
    ]
    optimizer = build_optimizer(groups, schedule)
    progress = Progress() if checkpoint is None else checkpoint.restore(module, optimizer)
    device = parameters[0].device.type
    scaler = torch.amp.GradScaler(device, enabled=precision == "float16")
    if progress.scaler:
        scaler.load_state_dict(progress.scaler)
    one = torch.ones((), device=parameters[0].device)
    curve = Curve(progress, schedule.steps, log, log_every)
    durations: list[float] = []
    began = time.perf_counter() - progress.seconds
    for step in range(progress.step, schedule.steps):
        start = time.perf_counter()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * learning_rate_factor(step, schedule)
        optimizer.zero_grad()
        scale = scaler.scale(one)
        if shared is None:
            losses = accumulate(losses_of, step, schedule, precision, scale)
        else:
            shared.start_step(step, module, scale)
            mine = accumulate(losses_of, step, schedule, precision, scale, rank(), world_size())
            losses = reduce_gradients(module, mine)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        scaler.step(optimizer)
        scaler.update()
        curve.add(step, losses, optimizer.param_groups[0]["lr"])
        durations.append(time.perf_counter() - start)
        progress.step, progress.seconds = step + 1, time.perf_counter() - began
        stop = stop_requested()
        if checkpoint is not None and (stop or progress.step == schedule.steps or checkpoint.due(progress.step)):
            curve.read()
            progress.scaler = scaler.state_dict()
            checkpoint.write(progress, module, optimizer)
        if stop:
            raise Stopped(f"stopped on request after step {progress.step} of {schedule.steps}")
    mean = progress.seconds / schedule.steps
    return Fit(
        losses={name: statistics.fmean(values[name] for values in progress.tail) for name in progress.tail[0]},
        # A GPU's steps are only launched one by one: of those the mean is right.
        seconds_per_step=statistics.median(durations) if durations and device == "cpu" else mean,
        seconds=progress.seconds,
    )


def accumulate(
    losses_of: Callable[[int, int], dict[str, Tensor]],
    step: int,
    schedule: ScheduleConfig,
    precision: str,
    scale: Tensor,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, Tensor]:
    """Adds the gradients, times `scale`, of a step's micro batches, those that are this process's share, one after
    another; returns what they add to the step's losses."""
    losses: dict[str, Tensor] = {}
    for part in range(rank, schedule.micro_batches, world_size):
        with torch.autocast(scale.device.type, REDUCED.get(precision), enabled=precision in REDUCED):
            shares = {name: loss / schedule.micro_batches for name, loss in losses_of(step, part).items()}
        (torch.stack(list(shares.values())).sum() * scale).backward()
        losses = {name: losses.get(name, 0) + share.detach() for name, share in shares.items()}
    return losses


def build_optimizer(groups: list[dict[str, Any]], schedule: ScheduleConfig) -> torch.optim.Optimizer:
    if schedule.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=schedule.weight_decay, fused=True)
        for parameter in [parameter for group in groups for parameter in group["params"]]:
            # Its first step would make these without filling them, also when float16 leaves that step out.
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(groups, weight_decay=schedule.weight_decay, fused=True)


def learning_rate_factor(step: int, schedule: ScheduleConfig) -> float:
    """The share of the peak learning rate at a step: up in a line, then down along a cosine or in steps of ten."""
    steps = schedule.steps
    warmup = max(schedule.warmup * steps, 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.decay == "steps":
        return 0.1 ** sum(step >= mark * steps for mark in schedule.milestones)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


class Curve:
    """The losses of logged steps and of the last tenth of training, on their way to the log and the progress.

    They are read as numbers at logged steps, at the last one and when `read` is called: a GPU has to be waited for.
    """

    def __init__(
        self, progress: Progress, steps: int, log: Callable[[int, dict[str, float]], None], log_every: int
    ) -> None:
        self.progress, self.steps, self.log, self.log_every = progress, steps, log, log_every
        self.tail = steps - max(steps // 10, 1)
        self.unread: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, step: int, losses: dict[str, Tensor], rate: float) -> None:
        """losses and learning rate of a step; reading them raises TrainingError where one is not finite."""
        logged = step % self.log_every == 0
        if logged or step >= self.tail:
            self.unread.append((step, losses))
        if logged or step == self.steps - 1:
            values = self.read()[-1] | {"lr": rate}
        if logged:
            self.progress.logged.append((step, values))
            self.log(step, values)

    def read(self) -> list[dict[str, float]]:
        """The losses that were not read yet, step by step; those of the last tenth go to the progress."""
        if not self.unread:
            return []
        numbers = iter(torch.stack([loss for _, losses in self.unread for loss in losses.values()]).tolist())
        found = [{name: next(numbers) for name in losses} for _, losses in self.unread]
        for (step, _), values in zip(self.unread, found, strict=True):
            _check_finite(values, step)
            if step >= self.tail:
                self.progress.tail.append(values)
        self.unread = []
        return found


def _check_finite(values: dict[str, float], step: int) -> None:
    if not all(math.isfinite(value) for value in values.values()):
        listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise TrainingError(
            f"step {step}: expected finite losses, got {listed}. The learning rate may be too high: lower budget.*.lr"
        )
