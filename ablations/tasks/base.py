"""What a run trains and how it is evaluated: all that sets one task apart from another."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ablations.config.schema import ScheduleConfig

Metrics = dict[str, dict[str, float | None]]
"""kind -> name -> figure in points, as in `RunRecord.metrics`."""


@dataclass(frozen=True)
class Task:
    """losses(step, part): what training minimises, on a micro batch of a step.

    pretrained: the part of `model` that is pretrained.
    evaluate(folder): the metrics of the trained model on the validation images; leaves what they are computed from in
    `folder`.
    """

    model: nn.Module
    losses: Callable[[int, int], dict[str, Tensor]]
    schedule: ScheduleConfig
    pretrained: nn.Module
    evaluate: Callable[[Path], Metrics]
