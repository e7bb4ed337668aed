"""Pairs of overlapping objects from close by, as the exhibit "overlap" chose them, under every arm."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ablations.evaluation.cocoapi import decode
from reports.figures.canvas import Instance, paint
from reports.figures.closeups import square_around
from reports.figures.style import Figures, figure, wrap
from reports.load import StudyResults
from reports.text.labels import and_list, plural
from reports.text.markup import Marked, escape

COLOURS = ("#FFB000", "#0090FF")  # of the object that overlaps, and of the other
COLUMN = 2.5  # inches


def caption(study: StudyResults, content: dict[str, Any]) -> Marked:
    """What the picture of pairs shows, how they were chosen, and who is ahead on them."""
    ahead = []
    for ranks, pair in chosen(study, content):
        means = {arm: float(np.mean(values)) for arm, values in pair["overlaps"].items()}
        best = max(means, key=lambda arm: means[arm])
        values = " to ".join(f"{means[arm]:.2f}" for arm in sorted(means, key=lambda arm: -means[arm]))
        ahead.append(f"{escape(and_list(ranks))}: {escape(study.label(best))}, {values}")
    return Marked(
        f"An object that overlaps much (amber), the object that fills most of its box (blue), and the IoU of either "
        f"mask. Of the {plural(content['num_pairs'], 'pair')} that every arm found in seed "
        f"{escape(content['seed'])}, in the order of the two masks' mean IoU, these are each arm's median and its "
        f"worst: chosen by a rule, not by eye, and single pairs prove nothing. Ahead by mean IoU: {'; '.join(ahead)}."
    )


def draw(study: StudyResults, content: dict[str, Any], figures: Figures, name: str = "pairs") -> bool:
    """The chosen pairs, ground truth and every arm beside each other. Returns whether there were any to draw."""
    rows = [(*row, path) for row in chosen(study, content) if (path := _picture(study, row[1])) is not None]
    if not rows:
        return False
    arms = [arm for arm in study.record.arms if arm in rows[0][1]["masks"]]
    columns = 1 + len(arms)
    drawn, grid = figure(
        len(rows),
        columns,
        width=COLUMN * columns,
        height=(COLUMN + 0.12) * len(rows),
        gridspec_kw={"wspace": 0.04, "hspace": 0.06},
    )
    for axes_row, (ranks, pair, path) in zip(grid, rows, strict=True):
        _draw_pair(axes_row, pair, arms, path)
        style = {"xycoords": "axes fraction", "ha": "right", "va": "center", "ma": "center", "rotation": 90}
        title = wrap("\n".join(ranks), 0.95 * COLUMN)
        axes_row[0].annotate(title, (-0.04, 0.5), fontsize=9, **style)
    for axes, title in zip(grid[0], ["ground truth", *map(study.label, arms)], strict=True):
        axes.set_title(title, loc="center", fontsize=9)
    figures.save(drawn, name, vector=False)
    return True


def chosen(study: StudyResults, content: dict[str, Any]) -> list[tuple[list[str], dict[str, Any]]]:
    """Every pair once, with what it was chosen as: one pair can be the worst of both arms. The medians come first."""
    rows: dict[tuple[int, ...], tuple[list[str], dict[str, Any]]] = {}
    for pair in sorted(content["pairs"], key=lambda pair: pair["rank"] != "median"):
        ranks, _ = rows.setdefault((pair["image_id"], *pair["objects"]), ([], pair))
        ranks.append(f"{pair['rank']} of {study.label(pair['arm'])}")
    return list(rows.values())


def _picture(study: StudyResults, pair: dict[str, Any]) -> Path | None:
    return study.exhibit_picture("overlap", pair["image_id"]) if isinstance(pair["image_id"], int) else None


def _draw_pair(row: Any, pair: dict[str, Any], arms: list[str], path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    size = pixels.shape[:2]
    columns = [pair["truth"], *(pair["masks"][arm] for arm in arms)]
    masks = [[decode(segmentation, size) for segmentation in column] for column in columns]
    window = square_around([mask for column in masks for mask in column])
    notes = [("", ""), *([f"{value:.2f}" for value in pair["overlaps"][arm]] for arm in arms)]
    for axes, column, texts in zip(row, masks, notes, strict=True):
        instances = [
            Instance(mask[window], colour, text) for mask, colour, text in zip(column, COLOURS, texts, strict=True)
        ]
        paint(axes, pixels[window], instances, COLUMN)
