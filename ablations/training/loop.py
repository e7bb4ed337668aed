"""The training loop of all stages and runs. `Trainer.step` is one step of it: forward, backward, clip, update."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ablations.config.schema import ScheduleConfig
from ablations.errors import Stopped
from ablations.training.checkpoint import Checkpoint, TrainingState
from ablations.training.distributed import SharedTraining, rank, reduce_gradients, world_size
from ablations.training.loss_history import LossHistory
from ablations.training.optimizer import build_optimizer, set_learning_rate
from ablations.training.stopping import stop_requested

MAX_GRADIENT_NORM = 10.0

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions in which torch's autocast computes some of the layers."""


@dataclass(frozen=True)
class TrainingSpec:
    """What is trained, and how.

    losses(step, micro_batch): the losses, by name, of one of a step's micro batches. Their sum is minimised.
    precision: "float32", or "bfloat16" or "float16" for the layers that autocast computes so; weights stay float32.
    pretrained: the part of `model` that is pretrained; it learns at `schedule.pretrained_lr` times the rate.
    """

    model: nn.Module
    losses: Callable[[int, int], dict[str, Tensor]]
    schedule: ScheduleConfig
    precision: str = "float32"
    pretrained: nn.Module | None = None


@dataclass(frozen=True)
class Fit:
    """losses: means over the last tenth of training; seconds_per_step: on a CPU the median since training was last
    interrupted, on a GPU the mean of all steps; seconds: in all, checkpoints included."""

    losses: dict[str, float]
    seconds_per_step: float
    seconds: float


class Trainer:
    """A model with its optimiser, trained one step at a time.

    float16 rounds small gradients to 0, so there the loss is scaled up; the scaler skips a step whose gradients
    overflow and lowers the scale. In the other precisions it does nothing.

    shared: the training that other ranks share each step's micro batches of; None: this process computes all of them.
    """

    def __init__(self, spec: TrainingSpec, shared: SharedTraining | None = None) -> None:
        self.spec, self.shared = spec, shared
        self.parameters = [p for p in spec.model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = build_optimizer(spec.model, spec.schedule, spec.pretrained)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=spec.precision == "float16")
        self.one = torch.ones((), device=self.device)

    def step(self, step: int) -> dict[str, Tensor]:
        """Updates the weights once; returns the step's losses."""
        set_learning_rate(self.optimizer, step, self.spec.schedule)
        self.optimizer.zero_grad()
        losses = self.backward(step, self.scaler.scale(self.one))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses

    def backward(self, step: int, scale: Tensor) -> dict[str, Tensor]:
        """The gradients of all micro batches of a step, computed here or by all ranks together; returns the losses."""
        if self.shared is None:
            return accumulate_gradients(self.spec, step, scale)
        self.shared.start_step(step, self.spec.model, scale)
        losses = accumulate_gradients(self.spec, step, scale, rank(), world_size())
        return reduce_gradients(self.spec.model, losses)


def accumulate_gradients(
    spec: TrainingSpec, step: int, scale: Tensor, rank: int = 0, world_size: int = 1
) -> dict[str, Tensor]:
    """Adds up the gradients of a step's loss, times `scale`: the mean over the step's micro batches, of which this is
    the share of one rank. Returns what its micro batches contribute to each of the step's losses."""
    micro_batches = spec.schedule.micro_batches
    losses: dict[str, Tensor] = {}
    for micro_batch in range(rank, micro_batches, world_size):
        with torch.autocast(scale.device.type, AUTOCAST.get(spec.precision), enabled=spec.precision in AUTOCAST):
            contributions = {name: loss / micro_batches for name, loss in spec.losses(step, micro_batch).items()}
        (torch.stack(list(contributions.values())).sum() * scale).backward()
        losses = {name: losses.get(name, 0) + loss.detach() for name, loss in contributions.items()}
    return losses


def fit(
    spec: TrainingSpec,
    log: Callable[[int, dict[str, float]], None],
    log_every: int,
    checkpoint: Checkpoint | None = None,
    shared: SharedTraining | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Fit:
    """Trains the model for the schedule's steps, resuming from the checkpoint if there is one.

    log(step, values) gets the losses and the learning rate every `log_every` steps, after_step(steps_done) is called
    after each.
    Raises TrainingError at the first logged step with a loss that is not finite, and Stopped, with a checkpoint
    written, if it is asked to stop.
    """
    steps = spec.schedule.steps
    trainer = Trainer(spec, shared)
    state = TrainingState() if checkpoint is None else checkpoint.restore(spec.model, trainer.optimizer)
    if state.scaler:
        trainer.scaler.load_state_dict(state.scaler)
    history = LossHistory(state, steps, log, log_every)
    durations: list[float] = []
    began = time.perf_counter() - state.seconds
    for step in range(state.step, steps):
        start = time.perf_counter()
        losses = trainer.step(step)
        history.add(step, losses, trainer.optimizer.param_groups[0]["lr"])
        durations.append(time.perf_counter() - start)
        if after_step is not None:
            after_step(step + 1)
        state.step, state.seconds = step + 1, time.perf_counter() - began
        stop = stop_requested()
        if checkpoint is not None and (stop or state.step == steps or checkpoint.due(state.step)):
            history.read()
            state.scaler = trainer.scaler.state_dict()
            checkpoint.write(state, spec.model, trainer.optimizer)
        if stop:
            raise Stopped(f"stopped on request after step {state.step} of {steps}")
    # Launching a GPU's work takes less time than the work: of a GPU's steps only the mean is right.
    on_cpu = durations and trainer.device.type == "cpu"
    seconds_per_step = statistics.median(durations) if on_cpu else state.seconds / steps
    return Fit(history.means(), seconds_per_step, state.seconds)
