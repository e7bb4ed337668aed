"""A task: what a run trains and how it is evaluated."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ablations.records.schema import Metrics
from ablations.training.loop import TrainingSpec


@dataclass(frozen=True)
class Task:
    """training: the model, its losses and its schedule.

    evaluate(folder): the metrics of the trained model on the images that are evaluated; what they are computed from is
    left in `folder`.
    operators: which backend serves each RoI operator of the model, such as {"roi_align": "compiled"}.
    """

    training: TrainingSpec
    evaluate: Callable[[Path], Metrics]
    operators: dict[str, str] = field(default_factory=dict)
