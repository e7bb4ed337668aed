"""The sample images under each arm: the same evaluated images, chosen before training, with what was found of them.

An object has one colour in its whole row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from reports.figures.canvas import OBJECT_COLOURS, Instance, paint
from reports.figures.style import Figures, figure, wrap
from reports.load import StudyResults
from reports.scenes import SampleScene, Shown, middling

MOST_NOTES = 20  # an image with more objects gets no notes: they would hide it
LINES = 4
MOST_ARMS = 5  # side by side; of more, each scene takes several lines
COLUMN = 2.15  # inches
EDGE_TO_EDGE = {"wspace": 0.03, "left": 0, "right": 1, "bottom": 0, "top": 1}


@dataclass(frozen=True)
class Samples:
    """What was drawn: detections of this seed; whether some images have too many objects for notes."""

    seed: int
    crowded: bool


def samples(
    study: StudyResults, scenes: Sequence[SampleScene], figures: Figures, name: str = "samples"
) -> Samples | None:
    """A line or more for each of a few scenes: the truth, then what each arm found of every object in one seed.

    Returns None when there was nothing to draw.
    """
    seed = study.shown_seed()
    arms = [arm for arm in study.record.arms if any((arm, seed) in scene.matched for scene in scenes)]
    if seed is None or not arms:
        return None
    lines = math.ceil(len(arms) / MOST_ARMS)
    shown = middling(scenes, seed, max(1, LINES // lines))
    columns = 1 + math.ceil(len(arms) / lines)
    more = 0.16 * max(0, max(_wrapped(study.label(arm)).count("\n") for arm in arms) - 1)  # inches, beyond two lines
    drawn, grid = figure(
        lines * len(shown),
        columns,
        width=COLUMN * columns,
        height=(COLUMN + (0.2 + more if lines > 1 else 0)) * lines * len(shown) + 0.2,
        gridspec_kw={
            "wspace": 0.03,
            "hspace": 0.16 + more / COLUMN if lines > 1 else 0.03,
            "left": 0,
            "right": 1,
            "bottom": 0,
            "top": 1,
        },
    )
    for row, scene in enumerate(shown):
        cells = grid[lines * row : lines * (row + 1)]
        notes = len(scene.masks) <= MOST_NOTES
        paint(cells[0][0], scene.pixels(), truth_of(scene), COLUMN, notes)
        arm_axes = [axes for line in cells for axes in line[1:]]
        for axes, arm in zip(arm_axes, arms, strict=False):
            _paint_detections(axes, scene, (arm, seed), notes, "no mask fits" if study.boxes_are_given else "missed")
        for axes in [*(line[0] for line in cells[1:]), *arm_axes[len(arms) :]]:
            axes.axis("off")
        if row == 0 or lines > 1:
            _title(cells[0][0], "ground truth")
            for axes, arm in zip(arm_axes, arms, strict=False):
                _title(axes, study.label(arm))
    figures.save(drawn, name, vector=False, photographs=study.on_photographs)
    return Samples(seed, any(len(scene.masks) > MOST_NOTES for scene in shown))


def _paint_detections(axes: Axes, scene: SampleScene, run: tuple[str, int], notes: bool, missed: str) -> None:
    """run: the arm and seed whose detections are drawn. missed: what an object without one is called."""
    paint(axes, scene.pixels(), detections_of(scene, scene.matched[run], missed), COLUMN, notes)
    others = scene.others[run]
    if others:
        axes.annotate(
            f"and {others} more",
            (0.98, 0.02),
            xycoords="axes fraction",
            ha="right",
            va="bottom",
            fontsize=6.5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.2},
        )


def _title(axes: Axes, label: str) -> None:
    axes.set_title(_wrapped(label), loc="center", fontsize=9)


def _wrapped(label: str) -> str:
    return wrap(label.replace(", ", "\n"), COLUMN - 0.1, 9, bold=True)


def truth_of(scene: SampleScene) -> list[Instance]:
    """The objects' own outlines with their classes."""
    return [
        Instance(mask, OBJECT_COLOURS[index % len(OBJECT_COLOURS)], name)
        for index, (mask, name) in enumerate(zip(scene.masks, scene.names, strict=True))
    ]


def detections_of(scene: SampleScene, matched: Sequence[Shown | None], missed: str = "missed") -> list[Instance]:
    """The best detection of every object with its IoU; where there is none, the object's own outline, dashed."""
    instances = []
    for index, (shown, mask) in enumerate(zip(matched, scene.masks, strict=True)):
        colour = OBJECT_COLOURS[index % len(OBJECT_COLOURS)]
        if shown is None:
            instances.append(Instance(mask, "#FFFFFF", missed, dashed=True))
        else:
            instances.append(Instance(shown.mask, colour, f"{shown.iou:.2f}"))
    return instances
