"""What a neighbour takes from an object's mask, by class, overlap and depth, and one scene under every arm."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from PIL import Image

from ablations.evaluation.cocoapi import decode
from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.canvas import Instance, paint
from reports.figures.closeups import square_around
from reports.figures.style import INK, Figures, arm_styles, despine, figure, wrap
from reports.load import StudyResults
from reports.text.labels import number, plural
from reports.text.markup import Marked, emphasis, escape, paragraphs, table
from reports.text.tables import mean_sd

KINDS = {"same": "same class", "other": "another class"}
MEASURES = {"iou_loss": "mask IoU lost (points)", "leakage": "leakage (% of the mask)"}
COLUMN = 2.1  # inches
SIDEWAYS: dict[str, Any] = {"ha": "right", "va": "center", "ma": "center", "rotation": 90, "fontsize": 9}


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study, content = analysis.study, exhibit.content
    drawn = draw_scene(study, content["shown"], figures)
    _draw_effects(study, content["places"], figures)
    return paragraphs(
        Marked("## What a neighbour takes from a mask"),
        Marked(
            f"Ordinary images can't say what a neighbour does: objects that have one differ from those that have none "
            f"in size, class and place as well. These {plural(content['num_scenes'], 'scene')}, drawn for this "
            f"purpose, come in sets of pictures that differ in one thing: the object alone, and with a neighbour of "
            f"its own class or of another, which covers part of its box, in front or behind. FCIS's score maps say "
            f"only *inside* or *outside* an object of a class, so the class of the neighbour should matter to it more."
        ),
        Marked("![One scene in five pictures, under every arm](figures/neighbours.png)" if drawn else ""),
        emphasis(caption(content["shown"])) if drawn else Marked(""),
        Marked("![IoU lost and leakage by degree of overlap and depth](figures/neighbours_effects.svg)"),
        emphasis(
            Marked(
                "By the share of the object's box that the neighbour covers, and by which of the two is in front. A "
                "thin line is a seed, the thick one the mean."
            )
        ),
        _table(study),
        emphasis(
            Marked(
                "Mean and standard deviation over seeds. IoU is lost compared with the same object alone; leakage is "
                "the share of the object's mask that lies on the neighbour. Pictures with either kind of neighbour "
                "count only where the object is detected in both and alone."
            )
        ),
    )


def _table(study: StudyResults) -> Marked:
    rows = []
    for arm in study.record.arms:
        rows.append([study.label(arm), mean_sd(study, arm, "neighbours.iou_alone")])
        for measure in MEASURES:
            rows[-1] += [mean_sd(study, arm, f"neighbours.{measure}_{kind}") for kind in KINDS]
        rows[-1] += [mean_sd(study, arm, f"neighbours.detected_{kind}") for kind in ("alone", *KINDS)]
    header = ["", "IoU alone"]
    header += [f"{name}, {kind}" for name in ("IoU lost", "leakage") for kind in KINDS.values()]
    return table([*header, "detected (%): alone", *(f"detected, {kind}" for kind in KINDS.values())], rows)


def caption(shown: dict[str, Any]) -> Marked:
    """What the drawn scene shows, and how it was chosen."""
    return Marked(
        f"Outlines of the object's mask under each arm, and its IoU, in seed {escape(shown['seed'])}. Of the "
        f"{plural(shown['num_scenes'], 'scene')} in which every arm detects the object in all five pictures, this is "
        f"the one in which neighbours of its class take the median amount of IoU: chosen by a rule, not by eye."
    )


def draw_scene(study: StudyResults, shown: dict[str, Any], figures: Figures, name: str = "neighbours") -> bool:
    """A row for each arm, a column for each picture. Returns whether there was a scene to draw."""
    pictures = [picture for picture in shown["pictures"] if _file(study, picture) is not None]
    if not pictures:
        return False
    arms = [arm for arm in study.record.arms if arm in pictures[0]["masks"]]
    size = {"width": COLUMN * len(pictures), "height": (COLUMN + 0.1) * len(arms)}
    drawn, grid = figure(len(arms), len(pictures), **size, gridspec_kw={"wspace": 0.04, "hspace": 0.06})
    window = _window(study, pictures)
    for axes_row, arm in zip(grid, arms, strict=True):
        for axes, picture in zip(axes_row, pictures, strict=True):
            _draw_mask(axes, study, picture, arm, window)
        axes_row[0].annotate(wrap(study.label(arm), 0.95 * COLUMN), (-0.05, 0.5), xycoords="axes fraction", **SIDEWAYS)
    for axes, picture in zip(grid[0], pictures, strict=True):
        axes.set_title(_title(picture), loc="center", fontsize=8.5)
    figures.save(drawn, name, vector=False)
    return True


def _window(study: StudyResults, pictures: list[dict[str, Any]]) -> tuple[slice, slice]:
    """The part of the pictures that is drawn: a square around the object's masks under every arm, with some room."""
    size = _pixels(study, pictures[0]).shape[:2]
    masks = [decode(mask, size) for picture in pictures for mask in picture["masks"].values()]
    spans = square_around(masks)
    wider = [(span.stop - span.start) // 4 for span in spans]
    down, across = (
        slice(max(span.start - more, 0), min(span.stop + more, side))
        for span, more, side in zip(spans, wider, size, strict=True)
    )
    return down, across


def _draw_mask(axes: Any, study: StudyResults, picture: dict[str, Any], arm: str, window: tuple[slice, slice]) -> None:
    pixels = _pixels(study, picture)
    mask = decode(picture["masks"][arm], pixels.shape[:2])[window]
    colour = arm_styles(study)[arm].colour
    paint(axes, pixels[window], [Instance(mask, colour, f"{picture['ious'][arm]:.2f}")], COLUMN)


def _pixels(study: StudyResults, picture: dict[str, Any]) -> np.ndarray:
    path = _file(study, picture)
    assert path is not None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _file(study: StudyResults, picture: dict[str, Any]) -> Path | None:
    number = picture["image_id"]
    return study.exhibit_picture("neighbours", number) if isinstance(number, int) else None


def _title(picture: dict[str, Any]) -> str:
    if picture["neighbour"] == "none":
        return "alone"
    return f"{KINDS[picture['neighbour']]},\n{'in front' if picture['in_front'] else 'behind'}"


def _draw_effects(study: StudyResults, places: dict[str, Any], figures: Figures) -> None:
    """A panel for each measure: the arms' lines over the conditions, solid for the same class, dashed for another."""
    drawn, [grid] = figure(1, len(MEASURES), width=8.6, height=3.2, layout="constrained")
    styles, handles = arm_styles(study), []
    for arm in [arm for arm in study.record.arms if arm in places]:
        for kind, dash in zip(KINDS, ("-", (0, (4, 2))), strict=True):
            style: dict[str, Any] = {"color": styles[arm].colour, "linestyle": dash, "marker": styles[arm].marker}
            handles.append(Line2D([], [], label=f"{study.label(arm)}, {KINDS[kind]}", markersize=4.5, **style))
            for axes, measure in zip(grid, MEASURES, strict=True):
                rows = [by_kind[kind] for by_kind in places[arm].values()]
                values = np.array([[row[measure] for row in seed] for seed in rows], dtype=float)
                axes.plot(values.T, color=styles[arm].colour, linestyle=dash, linewidth=0.5, alpha=0.4)
                means = np.array([_mean(column) for column in values.T])
                axes.plot(means, linewidth=1.8, markersize=4.5, **style)
    conditions = next(iter(places.values())) if places else {}
    rows = next(iter(conditions.values()))["same"] if conditions else []
    names = [f"{number(100 * row['degree'], 0)} %\n{'in front' if row['in_front'] else 'behind'}" for row in rows]
    for axes, label in zip(grid, MEASURES.values(), strict=True):
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.grid(axis="y")
        despine(axes)
    columns = max(1, len(handles) // len(KINDS))  # one for each arm
    drawn.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3, labelcolor=INK)
    figures.save(drawn, "neighbours_effects")


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
