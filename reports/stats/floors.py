"""Whether a study's masks are worth comparing: better than masks that need no features, the floors.

The floors are what filling the true boxes and what ellipses in them reach (ablations/evaluation/true_boxes.py). Where
the reference arm is hardly above them, arms cannot differ by how they read features, and equality means nothing.
"""

import statistics
from dataclasses import dataclass

from reports.load import StudyResults

FLOORS = {"floor_box": "filling the box", "floor_ellipse": "an ellipse in it"}
"""Kinds of metrics, and the masks that reach them in words."""


@dataclass(frozen=True)
class FloorCheck:
    """A study's reference arm against the floors: means over its finished runs, in points of IoU on true boxes.

    margin:  by which the arm has to be above the better floor.
    figure:  "IoU" over all objects, or "IoU_96_px_and_more" over large ones.
    reached: None where no run of the arm has the figures.
    floors:  by kind, as in FLOORS.
    """

    arm: str
    margin: float
    figure: str
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
    means = [study.values(floor.arm, f"{kind}.{floor.figure}") for kind in ("true_boxes", *FLOORS)]
    if not all(means):
        return FloorCheck(floor.arm, floor.margin, floor.figure, None, {})
    reached, *floors = (statistics.fmean(by_seed.values()) for by_seed in means)
    return FloorCheck(floor.arm, floor.margin, floor.figure, reached, dict(zip(FLOORS, floors, strict=True)))
