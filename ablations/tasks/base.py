"""What a run trains and how it is measured. Everything else about a run is the same, whatever its work is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ablations.config.schema import ScheduleConfig

Metrics = dict[str, dict[str, float | None]]
"""kind -> name -> figure in points, as in `RunRecord.metrics`."""


@dataclass(frozen=True)
class Work:
    """losses(step, part): what training minimises, on a micro batch of a step.

    slow: the part of `model` that is pretrained already.
    measure(folder): the figures of the trained model on the validation images; leaves what they rest on in `folder`.
    """

    model: nn.Module
    losses: Callable[[int, int], dict[str, Tensor]]
    schedule: ScheduleConfig
    slow: nn.Module
    measure: Callable[[Path], Metrics]
