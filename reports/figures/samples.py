"""The sample images under each arm: the same evaluated images, chosen before training, with what was found of them.

An object has one colour in its whole row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.figures.canvas import OBJECT_COLOURS, Instance, paint
from reports.figures.style import Figures, figure, wrap
from reports.load import StudyResults
from reports.scenes import SampleScene, Shown, middling

MOST_NOTES = 20  # an image with more objects gets no notes: they would hide it
ROWS = 4
COLUMN = 2.15  # inches


@dataclass(frozen=True)
class Samples:
    """What was drawn: detections of this seed; whether some images have too many objects for notes."""

    seed: int
    crowded: bool


def samples(
    study: StudyResults, scenes: Sequence[SampleScene], figures: Figures, name: str = "samples"
) -> Samples | None:
    """A row for each of a few scenes: the truth, then what each arm found of every object in one seed.

    Returns None when there was nothing to draw.
    """
    seed = study.shown_seed()
    arms = [arm for arm in study.record.arms if any((arm, seed) in scene.matched for scene in scenes)]
    if seed is None or not arms:
        return None
    rows = middling(scenes, seed, ROWS)
    columns = 1 + len(arms)
    drawn, grid = figure(
        len(rows),
        columns,
        width=COLUMN * columns,
        height=COLUMN * len(rows) + 0.2,
        gridspec_kw={"wspace": 0.03, "hspace": 0.03, "left": 0, "right": 1, "bottom": 0, "top": 1},
    )
    for axes_row, scene in zip(grid, rows, strict=True):
        pixels, notes = scene.pixels(), len(scene.masks) <= MOST_NOTES
        paint(axes_row[0], pixels, truth_of(scene), COLUMN, notes)
        for axes, arm in zip(axes_row[1:], arms, strict=True):
            paint(axes, pixels, found_of(scene, scene.matched[arm, seed]), COLUMN, notes)
            others = scene.others[arm, seed]
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
    for axes, title in zip(grid[0], ["ground truth", *(study.label(arm) for arm in arms)], strict=True):
        axes.set_title(wrap(title.replace(", ", "\n"), COLUMN - 0.1, 9, bold=True), loc="center", fontsize=9)
    figures.save(drawn, name, vector=False)
    return Samples(seed, any(len(scene.masks) > MOST_NOTES for scene in rows))


def truth_of(scene: SampleScene) -> list[Instance]:
    """The objects' own outlines with their classes."""
    return [
        Instance(mask, OBJECT_COLOURS[index % len(OBJECT_COLOURS)], name)
        for index, (mask, name) in enumerate(zip(scene.masks, scene.names, strict=True))
    ]


def found_of(scene: SampleScene, found: Sequence[Shown | None]) -> list[Instance]:
    """The best detection of every object with its IoU; where there is none, the object's own outline, dashed."""
    instances = []
    for index, (shown, mask) in enumerate(zip(found, scene.masks, strict=True)):
        colour = OBJECT_COLOURS[index % len(OBJECT_COLOURS)]
        if shown is None:
            instances.append(Instance(mask, "#FFFFFF", "missed", dashed=True))
        else:
            instances.append(Instance(shown.mask, colour, f"{shown.iou:.2f}"))
    return instances
