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
from reports.scenes import SampleScene, Shown, arms_to_show, middling

MOST_NOTES = 20  # an image with more objects gets no notes: they would hide it
LINES = 4
MOST_ARMS = 5  # side by side; of more, each scene takes several lines
COLUMN = 2.15  # inches
EDGE_TO_EDGE = {"wspace": 0.03, "left": 0, "right": 1, "bottom": 0, "top": 1}


@dataclass(frozen=True)
class Samples:
    """What was drawn: detections of this seed; whether some images have too many objects for notes; which images;
    whether some arms are left out; whether some objects, which no claim is about, have no notes."""

    seed: int
    crowded: bool
    image_ids: tuple[int, ...] = ()
    few_arms: bool = False
    few_notes: bool = False


def samples(
    study: StudyResults, scenes: Sequence[SampleScene], figures: Figures, name: str = "samples"
) -> Samples | None:
    """A line or more for each of a few scenes: the truth, then what each arm found of every object in one seed.

    Returns None when there was nothing to draw.
    """
    seed = study.shown_seed()
    known = [arm for arm in study.record.arms if any((arm, seed) in scene.matched for scene in scenes)]
    if seed is None or not known:
        return None
    arms = arms_to_show(study, known)
    lines = math.ceil(len(arms) / MOST_ARMS)
    shown = middling(scenes, seed, max(1, LINES // lines))
    columns = 1 + math.ceil(len(arms) / lines)
    column = COLUMN if len(arms) == len(known) else max(COLUMN, COLUMN * MOST_ARMS / columns)
    sides = [scene.pixels().shape for scene in shown]
    heights = [min(1.0, height / width) for height, width, _ in sides]  # of a line, by its width
    titles = {arm: wrap(study.label(arm).replace(", ", "\n"), column - 0.1, 9, bold=True) for arm in arms}
    more = 0.16 * max(0, max(title.count("\n") for title in titles.values()) - 1)  # inches, beyond two lines
    drawn, grid = figure(
        lines * len(shown),
        columns,
        width=column * columns,
        height=(column + (0.2 + more if lines > 1 else 0)) * lines * sum(heights) + 0.2,
        gridspec_kw=EDGE_TO_EDGE
        | {"hspace": 0.16 + more / column if lines > 1 else 0.03}
        | {"height_ratios": [height for height in heights for _ in range(lines)]},
    )
    named = len(study.ground_truth["categories"]) > 1 if study.ground_truth else True
    missed = "no mask fits" if study.boxes_are_given else "missed"
    for row, scene in enumerate(shown):
        cells = grid[lines * row : lines * (row + 1)]
        inches = column * min(1.0, sides[row][1] / sides[row][0])
        notes = sum(scene.asked) <= MOST_NOTES
        paint(cells[0][0], scene.pixels(), truth_of(scene, named), inches, notes)
        arm_axes = [axes for line in cells for axes in line[1:]]
        for axes, arm in zip(arm_axes, arms, strict=False):
            paint(axes, scene.pixels(), detections_of(scene, scene.matched[arm, seed], missed), inches, notes)
            _count_others(axes, scene.others[arm, seed])
        for axes in [*(line[0] for line in cells[1:]), *arm_axes[len(arms) :]]:
            axes.axis("off")
        if row == 0 or lines > 1:
            _title(cells[0][0], "ground truth")
            for axes, arm in zip(arm_axes, arms, strict=False):
                _title(axes, titles[arm])
    figures.save(drawn, name, vector=False, photographs=study.on_photographs)
    return Samples(
        seed=seed,
        crowded=any(sum(scene.asked) > MOST_NOTES for scene in shown),
        image_ids=tuple(scene.image_id for scene in shown),
        few_arms=len(arms) < len(known),
        few_notes=not all(asked for scene in shown for asked in scene.asked),
    )


def _count_others(axes: Axes, others: int) -> None:
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
    axes.set_title(label, loc="center", fontsize=9)


def truth_of(scene: SampleScene, named: bool = True) -> list[Instance]:
    """The objects' own outlines, with their classes where these differ (`named`) and claims are about the object."""
    objects = enumerate(zip(scene.masks, scene.names, scene.asked, strict=True))
    return [
        Instance(mask, OBJECT_COLOURS[index % len(OBJECT_COLOURS)], name if named and asked else "")
        for index, (mask, name, asked) in objects
    ]


def detections_of(scene: SampleScene, matched: Sequence[Shown | None], missed: str = "missed") -> list[Instance]:
    """The best detection of every object with its IoU; where there is none, the object's own outline, dashed.

    Objects that no claim is about have no notes.
    """
    instances = []
    for index, (shown, mask, asked) in enumerate(zip(matched, scene.masks, scene.asked, strict=True)):
        colour = OBJECT_COLOURS[index % len(OBJECT_COLOURS)]
        if shown is None:
            instances.append(Instance(mask, "#FFFFFF", missed if asked else "", dashed=True))
        else:
            instances.append(Instance(shown.mask, colour, f"{shown.iou:.2f}" if asked else ""))
    return instances
