"""Losses over the training steps."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.figures.style import ArmStyle, Figures, arm_styles, figure
from reports.load import StudyResults

PANELS_IN_A_ROW = 3
MOST_POINTS = 60  # of a line: more cannot be told apart
NO_LOSSES = {"step", "lr", "seconds", "time"}  # what else a line of the log holds


def curves(study: StudyResults, figures: Figures) -> bool:
    """Every logged loss: the mean over an arm's seeds, and a band from the smallest to the largest."""
    logged = {(arm, seed): study.curves(arm, seed) for arm, seed in study.runs}
    losses = list(
        dict.fromkeys(
            key
            for lines in logged.values()
            for line in lines
            for key, value in line.items()
            if key not in NO_LOSSES and isinstance(value, int | float)
        )
    )
    if not losses:
        return False
    columns = min(len(losses), PANELS_IN_A_ROW)
    rows = -(-len(losses) // columns)
    drawn, grid = figure(rows, columns, width=3.1 * columns + 0.4, height=2.5 * rows + 0.4, layout="constrained")
    styles = {arm: style for arm, style in arm_styles(study).items() if any(key[0] == arm for key in logged)}
    for index, axes in enumerate(grid.flat):
        if index >= len(losses):
            axes.set_axis_off()
            continue
        for number, (arm, style) in enumerate(styles.items(), start=1):
            runs = [lines for key, lines in logged.items() if key[0] == arm]
            _curve(axes, runs, losses[index], style, number / (len(styles) + 1))
        axes.set_title(losses[index].removeprefix("loss_").replace("_", " ") + " loss")
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
    handles = [Line2D([], [], label=study.label(arm), **_line(style)) for arm, style in styles.items()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    figures.save(drawn, "curves")
    return True


def _line(style: ArmStyle) -> dict[str, Any]:
    edge = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.5}
    return {"color": style.colour, "marker": style.marker, "linestyle": style.dash, "linewidth": 1.6, **edge}


def _curve(axes: Axes, runs: list[list[dict]], loss: str, style: ArmStyle, offset: float) -> None:
    """offset: where in the first stretch between two markers an arm's first one stands, so that arms alternate."""
    series = [{line["step"]: line[loss] for line in lines if loss in line} for lines in runs]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    if not steps:
        return
    values = np.array([[curve[step] for step in steps] for curve in series])
    # Neighbouring steps are averaged where there are too many.
    starts = np.arange(0, len(steps), -(-len(steps) // MOST_POINTS))
    values = np.add.reduceat(values, starts, axis=1) / np.diff([*starts, len(steps)])
    middles = np.add.reduceat(np.array(steps, dtype=float), starts) / np.diff([*starts, len(steps)])
    axes.fill_between(middles, values.min(axis=0), values.max(axis=0), color=style.colour, linewidth=0, alpha=0.2)
    every = max(1, len(starts) // 6)
    axes.plot(middles, values.mean(axis=0), markevery=(int(every * offset), every), **_line(style))
