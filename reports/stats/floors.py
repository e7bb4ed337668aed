"""Whether a study's masks are worth comparing: better than masks that need no features, the floors.

The floors are what filling the true boxes and what ellipses in them reach (ablations/evaluation/true_boxes.py). Where
the reference arm is hardly above them, arms cannot differ by how they read features, and equality means nothing.
"""

import statistics
from dataclasses import dataclass

from reports.load import StudyResults

METRIC = "true_boxes.IoU"
FLOORS = {"floor_box.IoU": "filling the box", "floor_ellipse.IoU": "an ellipse in it"}
"""Metrics, and the masks that reach them in words."""


@dataclass(frozen=True)
class FloorCheck:
    """A study's reference arm against the floors: means over its finished runs, in points of IoU on true boxes.

    margin:  by which the arm has to be above the better floor.
    reached: None where no run of the arm has the figures.
    floors:  by metric, as in FLOORS.
    """

    arm: str
    margin: float
    reached: float | None
    floors: dict[str, float]

    @property
    def above(self) -> float | None:
        """Points by which the arm is above the better floor."""
        return None if self.reached is None else self.reached - max(self.floors.values())

    @property
    def passed(self) -> bool:
        return self.above is not None and self.above >= self.margin


def floor_check(study: StudyResults) -> FloorCheck | None:
    """None for a study without a floor."""
    floor = study.record.floor
    if floor is None:
        return None
    means = {metric: study.values(floor.arm, metric) for metric in (METRIC, *FLOORS)}
    if not all(means.values()):
        return FloorCheck(floor.arm, floor.margin, None, {})
    reached, *floors = (statistics.fmean(by_seed.values()) for by_seed in means.values())
    return FloorCheck(floor.arm, floor.margin, reached, dict(zip(FLOORS, floors, strict=True)))
