"""What an object's place under the grid does to its mask: IoU against the shift, and the masks of one scene."""

import statistics
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from ablations.evaluation.cocoapi import decode
from ablations.evaluation.phase import PERIOD, variation
from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.canvas import Instance, paint
from reports.figures.style import MUTED, Figures, arm_styles, figure
from reports.load import StudyResults
from reports.stats.bootstrap import draw_images
from reports.stats.contrasts import Weights
from reports.stats.paired import LEVEL
from reports.text.labels import and_list, interval, number, plural, signed
from reports.text.markup import Marked, emphasis, escape, paragraphs, table
from reports.text.tables import mean_sd

COLUMN = 1.3  # inches
AROUND = 20  # pixels shown around the object's box
LAST = 2 * PERIOD - 1  # the shift at which an image's columns are those of the whole scene


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study, content = analysis.study, exhibit.content
    shown = content["shown"]
    drawn = _draw_strip(study, content, figures)
    _draw_curves(study, content, figures)
    return paragraphs(
        Marked("## An object slides under the grid"),
        Marked(
            f"Nothing changes in these scenes but their position on the grid of the feature map: each is drawn once, "
            f"with an object of {number(content['side'], 0)} px (COCO's median), and moved to the right pixel by pixel "
            f"over {2 * PERIOD} px. The RoI is the object's true box, moved along. A mask that did not depend on the "
            f"grid would be the same at every shift."
        ),
        Marked("![Mask IoU against the shift, at each stride](figures/phase.svg)"),
        emphasis(
            Marked(
                f"Seed {escape(shown['seed'])}. A thick line is the scene shown below, thin lines are the others. "
                f"Vertical lines mark where the box's edge crosses a cell border and RoIPool's rounding jumps: the "
                f"left edge (solid; in all scenes) or the right edge (dotted; of the scene shown)."
            )
        ),
        Marked("![The masks of one scene at several shifts](figures/phase_strip.png)" if drawn else ""),
        emphasis(_caption(content)) if drawn else Marked(""),
        _found(study, content),
        _table(analysis, content),
        emphasis(
            Marked(
                f"Over all seeds. Variation: standard deviation, in points, of a scene's mask IoU over the places "
                f"under the grid, as far as it repeats when the scene has moved by {PERIOD} px, which leaves out what "
                f"the image's border does. In brackets the middle {100 * LEVEL:.0f} % of a bootstrap over the "
                f"{plural(content['num_scenes'], 'scene')}."
            )
        ),
    )


def _caption(content: dict[str, Any]) -> Marked:
    return Marked(
        f"The masks and their IoU in seed {escape(content['shown']['seed'])}, moved back so that the object stays "
        f"where it is and the cells (white lines) move. Of the {plural(content['num_scenes'], 'scene')} this is the "
        f"one with the median variance, averaged over the arms: chosen by a rule, not by eye."
    )


def _found(study: StudyResults, content: dict[str, Any]) -> Marked:
    """The variation of every arm in a sentence."""
    measured = [
        f"**{number(statistics.fmean(values))} points** under {escape(study.label(arm))}"
        for arm in content["variances"]
        if (values := study.values(arm, "phase.variation").values())
    ]
    if not measured:
        return Marked("")
    return Marked(f"Its place under the grid alone makes the IoU of a mask vary by {and_list(measured)}.")


def _table(analysis: Analysis, content: dict[str, Any]) -> Marked:
    study = analysis.study
    values = {arm: np.array(list(by_seed.values())) for arm, by_seed in content["variances"].items()}
    draws = draw_images(content["num_scenes"])
    rows = [
        [study.label(arm), mean_sd(study, arm, "phase.IoU"), _bootstrapped({arm: 1}, values, draws)]
        for arm in study.record.arms
        if arm in values
    ]
    for weights in analysis.differences:
        if all(arm in values for arm in weights):
            rows.append([analysis.label(weights), "", _bootstrapped(weights, values, draws, difference=True)])
    return table(["", "mask IoU", "variation"], rows)


def _bootstrapped(
    weights: Weights | dict[str, int], values: dict[str, np.ndarray], draws: np.ndarray, difference: bool = False
) -> str:
    """The contrast's variation with its interval. values: variances [seeds, scenes] by arm; draws [R, scenes]."""
    shares = np.vstack([np.ones(draws.shape[1]), draws])  # the first row: the scenes as they are
    resampled = np.sum(
        [weight * variation(shares[:, None] * values[arm]).mean(1) for arm, weight in weights.items()], axis=0
    )
    low, high = np.quantile(resampled[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if difference:
        return f"{signed(resampled[0])} ({interval(low, high)})"
    return f"{number(resampled[0])} ({number(low)} to {number(high)})"


def _draw_curves(study: StudyResults, content: dict[str, Any], figures: Figures) -> None:
    """A panel for each stride: a line for every scene and arm."""
    strides, curves, shown = content["strides"], content["curves"], content["shown"]
    styles = arm_styles(study)
    panels = sorted(set(strides.values()))
    drawn, [row] = figure(1, len(panels), width=4.4 * len(panels), height=3.0, layout="constrained", sharey=True)
    for axes, stride in zip(row, panels, strict=True):
        left, _, width, _ = shown["box"]
        _borders(axes, left - LAST, stride, "-")
        _borders(axes, left - LAST + width, stride, ":")
        for arm in [arm for arm in study.record.arms if strides.get(arm) == stride]:
            values, colour = np.array(curves[arm], dtype=float), styles[arm].colour
            axes.plot(np.delete(values, shown["scene"], axis=0).T, color=colour, linewidth=0.6, alpha=0.35)
            axes.plot(values[shown["scene"]], color=colour, linewidth=2, label=study.label(arm))
        axes.set_xlabel("shift (px)")
        axes.set_xticks(range(0, 2 * PERIOD + 1, 16))
        axes.margins(x=0.01)
        axes.grid(axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    row[0].set_ylabel("mask IoU on the true box")
    figures.save(drawn, "phase")


def _borders(axes: Axes, edge: int, stride: int, dash: str) -> None:
    """Lines at the shifts at which an edge, at `edge` when the shift is 0, crosses a border between cells."""
    first = (stride // 2 - edge) % stride
    for shift in range(first, 2 * PERIOD, stride):
        axes.axvline(shift - 0.5, color=MUTED, linestyle=dash, linewidth=0.9, zorder=0)


def _draw_strip(study: StudyResults, content: dict[str, Any], figures: Figures) -> bool:
    """A row for each arm, a column for each shift. Returns whether there was a picture to draw on."""
    path, shown = study.exhibit_picture("phase", "scene"), content["shown"]
    if path is None:
        return False
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    x, y, width, height = shown["box"]
    part = slice(max(0, y - AROUND), y + height + AROUND), slice(x - AROUND, x + width + AROUND)
    left = part[1].start - LAST
    tall = COLUMN * pixels[part].shape[0] / pixels[part].shape[1]
    arms = [arm for arm in study.record.arms if arm in shown["masks"]]
    size = {"width": COLUMN * len(shown["shifts"]), "height": (tall + 0.04) * len(arms)}
    drawn, grid = figure(len(arms), len(shown["shifts"]), **size, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    styles = arm_styles(study)
    for row, arm in zip(grid, arms, strict=True):
        ious = content["curves"][arm][shown["scene"]]
        for axes, shift, mask in zip(row, shown["shifts"], shown["masks"][arm], strict=True):
            predicted = decode(mask, pixels.shape[:2])[part]
            paint(axes, pixels[part], [Instance(predicted, styles[arm].colour, number(ious[shift], 0))], COLUMN)
            _grid(axes, content["strides"][arm], (left + shift, part[0].start), predicted.shape)
        label = study.label(arm).replace(", ", ",\n")
        row[0].annotate(label, (-0.06, 0.5), xycoords="axes fraction", ha="right", va="center", fontsize=8.5)
    for axes, shift in zip(grid[0], shown["shifts"], strict=True):
        axes.set_title(f"{shift} px", loc="center", fontsize=8.5)
    figures.save(drawn, "phase_strip", vector=False)
    return True


def _grid(axes: Axes, stride: int, corner: tuple[int, int], size: tuple[int, ...]) -> None:
    """The borders of cells in a part of an image: its upper left pixel (x, y), and its height and width."""
    for line, start, length in zip((axes.axvline, axes.axhline), corner, reversed(size), strict=True):
        for place in range((stride // 2 - start) % stride, length + 1, stride):
            line(place, color="white", linewidth=0.6, alpha=0.6)
