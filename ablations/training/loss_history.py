"""The losses of a training: those of logged steps, and the means over its last tenth."""

import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from ablations.errors import TrainingError
from ablations.training.checkpoint import TrainingState


class LossHistory:
    """Passes the losses and the rate of every `log_every`-th step to the log, with six digits, and keeps the losses of
    the last tenth of training, as they are.

    Reading a loss as a number waits for the GPU. So they are read together: at logged steps, at the last one, and when
    `read` is called. What was read is in `state`.
    """

    def __init__(
        self, state: TrainingState, steps: int, log: Callable[[int, dict[str, float]], None], log_every: int
    ) -> None:
        self.state, self.steps, self.log, self.log_every = state, steps, log, log_every
        self.tail_start = steps - max(steps // 10, 1)
        self.unread: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, step: int, losses: dict[str, Tensor], learning_rate: float) -> None:
        """Raises TrainingError when it reads a loss that is not finite."""
        logged = step % self.log_every == 0
        if logged or step >= self.tail_start:
            self.unread.append((step, losses))
        if logged or step == self.steps - 1:
            values = self.read()[-1] | {"lr": learning_rate}
        if logged:
            rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
            self.state.logged.append((step, rounded))
            self.log(step, rounded)

    def read(self) -> list[dict[str, float]]:
        """The losses that were not read yet, step by step; raises TrainingError where one is not finite."""
        if not self.unread:
            return []
        numbers = iter(torch.stack([loss for _, losses in self.unread for loss in losses.values()]).tolist())
        by_step = [{name: next(numbers) for name in losses} for _, losses in self.unread]
        for (step, _), values in zip(self.unread, by_step, strict=True):
            check_finite(values, step)
            if step >= self.tail_start:
                self.state.tail.append(values)
        self.unread = []
        return by_step

    def means(self) -> dict[str, float]:
        """Each loss's mean over the last tenth of training."""
        tail = self.state.tail
        return {name: statistics.fmean(values[name] for values in tail) for name in tail[0]}


def check_finite(losses: dict[str, float], step: int) -> None:
    if not all(math.isfinite(value) for value in losses.values()):
        listed = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        raise TrainingError(
            f"step {step}: expected finite losses, got {listed}. The learning rate may be too high: lower budget.*.lr"
        )
