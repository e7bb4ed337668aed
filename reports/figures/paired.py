"""The charts of a report. Every seed is a dot; an interval is always drawn with the values that it comes from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.analysis import Analysis
from reports.figures.style import INK, MARKERS, MUTED, PAPER_MARK, arm_styles, despine, figure, save
from reports.load import StudyResults
from reports.stats.contrasts import Interaction, Weights
from reports.stats.paired import estimate
from reports.text.labels import arms_of, context_label, contrast_label, metric_label, number, signed

PANELS_IN_A_ROW = 3


def paired(analysis: Analysis, metric: str, folder: Path, name: str = "paired") -> bool:
    """One panel a contrast: the two arms' seeds joined in pairs, and beside them, on the same scale, the differences.

    The axis of differences is shifted so that its 0 stands at the first arm's mean. Returns whether there was
    anything to draw.
    """
    study = analysis.study
    drawable = [weights for weights in analysis.differences if analysis.estimate(weights, metric).n]
    if not drawable:
        return False
    styles = arm_styles(study)
    panels = []
    for weights in drawable:
        plus, minus = arms_of(weights)
        titles = [_short(study, arm, weights) for arm in (minus, plus)]
        panels.append(
            Panel(
                title=context_label(study, weights),
                pairs=_pairs(study.values(minus, metric), study.values(plus, metric)),
                names=titles,
                styles=[styles[minus], styles[plus]],
                paper=analysis.paper(weights, metric),
            )
        )
    _draw_panels(panels, f"{metric_label(metric)} (points)", folder, name)
    return True


def side_by_side(
    analysis: Analysis, weights: Weights, metrics: dict[str, str], folder: Path, name: str, label: str
) -> bool:
    """One panel a metric for a single contrast, on one scale, each as in `paired`.

    metrics: metric -> the panel's title; label: of the scale.
    """
    study = analysis.study
    styles, (plus, minus) = arm_styles(study), arms_of(weights)
    panels = [
        Panel(
            title=title,
            pairs=pairs,
            names=[_short(study, arm, weights) for arm in (minus, plus)],
            styles=[styles[minus], styles[plus]],
            paper=analysis.paper(weights, metric),
        )
        for metric, title in metrics.items()
        if (pairs := _pairs(study.values(minus, metric), study.values(plus, metric)))
    ]
    if panels:
        _draw_panels(panels, label, folder, name)
    return bool(panels)


def interaction(analysis: Analysis, found: Interaction, folder: Path, name: str = "interaction") -> bool:
    """The two differences of an interaction, seed by seed, and how much the second exceeds the first."""
    study = analysis.study
    gains = [analysis.estimate(weights, found.metric).values for weights in (found.first, found.second)]
    pairs = _pairs(*gains)
    if not pairs:
        return False
    styles = arm_styles(study)
    plus = [arms_of(weights)[0] for weights in (found.first, found.second)]
    panel = Panel(
        title="",
        pairs=pairs,
        names=[context_label(study, found.first), context_label(study, found.second)],
        styles=[(INK, styles[arm][1]) for arm in plus],
        paper=analysis.paper(found.weights, found.metric),
    )
    label = contrast_label(study, found.first).split(", ")[0]
    _draw_panels([panel], f"{label},\n{metric_label(found.metric)} (points)", folder, name, from_zero=True)
    return True


class Panel:
    """One paired comparison to draw. pairs: seed -> (first, second); styles: (colour, marker) of each."""

    def __init__(
        self,
        title: str,
        pairs: dict[int, tuple[float, float]],
        names: Sequence[str],
        styles: Sequence[tuple[str, str]],
        paper: float | None,
    ) -> None:
        self.title, self.pairs, self.names, self.styles, self.paper = title, pairs, names, styles, paper
        self.difference = estimate({seed: second - first for seed, (first, second) in pairs.items()})
        self.base = float(np.mean([first for first, _ in pairs.values()]))
        self.gain = float(np.mean([second for _, second in pairs.values()])) - self.base


def _draw_panels(panels: list[Panel], label: str, folder: Path, name: str, from_zero: bool = False) -> None:
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = -(-len(panels) // columns)
    drawn, grid = figure(
        rows,
        2 * columns,
        width=3.6 * columns + 0.5,
        height=3.6 * rows,
        gridspec_kw={"width_ratios": [2.3, 1] * columns, "wspace": 0.0, "hspace": 0.35},
    )
    low, high = _range(panels, from_zero)
    for index in range(rows * columns):
        left, right = grid[index // columns][2 * (index % columns) : 2 * (index % columns) + 2]
        if index >= len(panels):
            left.set_axis_off()
            right.set_axis_off()
            continue
        _slopes(left, panels[index])
        left.set_ylim(low, high)
        _differences(right, panels[index], low, high)
        left.set_title(panels[index].title, pad=8)
        if index % columns == 0:
            left.set_ylabel(label)
        else:
            left.tick_params(axis="y", labelleft=False, length=0)
            despine(left, "left")
    _legend(drawn, any(panel.paper is not None for panel in panels))
    save(drawn, folder, name)


def _range(panels: list[Panel], from_zero: bool) -> tuple[float, float]:
    """One scale for all panels: values, and the differences drawn from the first arm's mean."""
    values = [value for panel in panels for pair in panel.pairs.values() for value in pair]
    for panel in panels:
        found = panel.difference
        values += [panel.base + value for value in (found.low, found.high, panel.paper) if value is not None]
    if from_zero:
        values.append(0.0)
    spare = 0.07 * (max(values) - min(values)) or 1.0
    return min(values) - spare, max(values) + spare


def _slopes(axes: Axes, panel: Panel) -> None:
    for first, second in panel.pairs.values():
        axes.plot([0, 1], [first, second], color=MUTED, linewidth=0.8, alpha=0.6, zorder=1)
    for side, (colour, marker) in enumerate(panel.styles):
        values = [pair[side] for pair in panel.pairs.values()]
        axes.plot(
            [side] * len(values),
            values,
            marker,
            color=colour,
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=3,
        )
        outward = -1 if side == 0 else 1
        mean = float(np.mean(values))
        axes.plot(
            [side + 0.10 * outward, side + 0.22 * outward],
            [mean, mean],
            color=colour,
            linewidth=2.6,
            solid_capstyle="butt",
        )
        axes.annotate(
            number(mean),
            (side + 0.26 * outward, mean),
            ha="right" if side == 0 else "left",
            va="center",
            fontsize=9,
            fontweight="bold",
        )
        if side == 0:
            axes.plot([0.26, 1.75], [mean, mean], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    axes.set_xlim(-0.65, 1.75)
    axes.set_xticks([0, 1], panel.names)
    axes.grid(axis="y")
    despine(axes, "bottom")


def _differences(axes: Axes, panel: Panel, low: float, high: float) -> None:
    found, mean = panel.difference, panel.gain
    axes.set_ylim(low - panel.base, high - panel.base)
    axes.plot([-0.7, 0.5], [0, 0], color=INK, linewidth=1)
    near = 0.07 * (high - low)
    if all(value is None or abs(value) > near for value in (mean, panel.paper)):
        axes.annotate("0", (0.55, 0), va="center", fontsize=9)
    values = list(found.values.values())
    axes.plot(_spread(values, -0.34), values, "o", color=MUTED, markersize=3.6, alpha=0.75, markeredgewidth=0)
    if found.low is not None and found.high is not None:
        axes.plot([0, 0], [found.low, found.high], color=INK, linewidth=2.2, solid_capstyle="butt")
    axes.plot([0], [mean], "o", color=INK, markersize=7)
    lift = 0  # of the mean's label, away from the paper's where the two would collide
    if panel.paper is not None and abs(mean - panel.paper) < near:
        lift = 6 if mean >= panel.paper else -6
    label: dict[str, Any] = {
        "textcoords": "offset points",
        "va": "center",
        "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
    }
    axes.annotate(signed(mean), (0, mean), xytext=(8, lift), fontsize=10, fontweight="bold", **label)
    if panel.paper is not None:
        axes.plot([0], [panel.paper], linestyle="none", markersize=6.5, **PAPER_MARK)
        axes.annotate(signed(panel.paper), (0, panel.paper), xytext=(8, -lift), fontsize=9, color=MUTED, **label)
    axes.set_xlim(-0.7, 1.5)
    axes.set_xticks([0.0], ["difference"])
    axes.tick_params(axis="y", labelleft=False)
    despine(axes, "left", "bottom")


def curves(study: StudyResults, folder: Path, name: str = "curves") -> bool:
    """Every logged loss over the steps: a thin line a seed, a thick one for the mean over an arm's seeds."""
    logged = {(arm, seed): study.curves(arm, seed) for arm, seed in study.runs}
    skipped = {"step", "lr", "seconds", "time"}
    losses = list(
        dict.fromkeys(
            key
            for lines in logged.values()
            for line in lines
            for key, value in line.items()
            if key not in skipped and isinstance(value, int | float)
        )
    )
    if not losses:
        return False
    columns = min(len(losses), PANELS_IN_A_ROW)
    rows = -(-len(losses) // columns)
    drawn, grid = figure(rows, columns, width=3.1 * columns + 0.4, height=2.5 * rows + 0.4, layout="constrained")
    styles = arm_styles(study)
    for index, axes in enumerate(grid.flat):
        if index >= len(losses):
            axes.set_axis_off()
            continue
        for arm in study.record.arms:
            _curve(axes, [logged[key] for key in logged if key[0] == arm], losses[index], *styles[arm], study)
        axes.set_title(losses[index].removeprefix("loss_").replace("_", " ") + " loss")
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
    handles = [
        Line2D([], [], color=colour, marker=marker, label=study.label(arm), linewidth=1.8)
        for arm, (colour, marker) in styles.items()
        if any(key[0] == arm for key in logged)
    ]
    drawn.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=8.5)
    save(drawn, folder, name)
    return True


def _curve(axes: Axes, runs: list[list[dict]], loss: str, colour: str, marker: str, study: StudyResults) -> None:
    series = [{line["step"]: line[loss] for line in lines if loss in line} for lines in runs]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    if not steps:
        return
    for one in series:
        axes.plot(steps, [one[step] for step in steps], color=colour, linewidth=0.5, alpha=0.35)
    mean = np.mean([[one[step] for step in steps] for one in series], axis=0)
    contexts = [style[1] for style in arm_styles(study).values()]
    every = max(1, len(steps) // 6)
    start = every * (1 + MARKERS.index(marker) % len(set(contexts))) // (1 + len(set(contexts)))
    axes.plot(
        steps,
        mean,
        color=colour,
        linewidth=1.8,
        marker=marker,
        markersize=4.5,
        markevery=(start, every),
        markeredgecolor="white",
        markeredgewidth=0.5,
    )


def _legend(drawn, with_paper: bool) -> None:
    handles = [
        Line2D([], [], color=MUTED, marker="o", markersize=5, linewidth=0.8, label="one seed"),
        Line2D([], [], color=INK, marker="o", markersize=7, linewidth=2.2, label="mean and 95 % paired t interval"),
    ]
    if with_paper:
        handles.append(Line2D([], [], linestyle="none", markersize=6.5, label="the paper's difference", **PAPER_MARK))
    drawn.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.03), ncols=3, fontsize=8.5)


def _pairs(first: dict[int, float], second: dict[int, float]) -> dict[int, tuple[float, float]]:
    return {seed: (first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())}


def _short(study: StudyResults, arm: str, weights: Weights) -> str:
    """The part of an arm's label that the contrast's other arm does not share."""
    other = next(name for name in arms_of(weights) if name != arm)
    theirs = study.label(other).split(", ")
    own = [part for part in study.label(arm).split(", ") if part not in theirs]
    return "\n".join(own) or study.label(arm)


def _spread(values: Sequence[float], centre: float) -> list[float]:
    """Positions around `centre` that keep equal or near values from hiding each other; the same on every run."""
    return [centre + 0.09 * ((index % 3) - 1) for index in range(len(values))]
