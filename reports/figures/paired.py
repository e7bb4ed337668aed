"""Paired comparisons: every seed under both arms, joined in pairs, and beside them the differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from reports.analysis import Analysis
from reports.figures.style import (
    CLAIMED,
    INK,
    MUTED,
    PAPER_MARK,
    ArmStyle,
    Figures,
    arm_styles,
    despine,
    figure,
    text_width,
    wrap,
)
from reports.stats.contrasts import Interaction, Weights, key
from reports.stats.paired import Estimate, Verdict, estimate
from reports.text.labels import MINUS, arms_of, context_label, contrast_label, metric_label, number, signed

PANEL_WIDTH, PANEL_HEIGHT = 3.5, 3.0  # inches, of a pair of axes
LEFT, RIGHT = (-0.68, 1.7), (-0.7, 1.5)  # the ranges of x in a panel's two axes; the arms stand at 0 and 1
WIDTHS = (2.3, 1.0)  # of the two axes, in proportion
THRESHOLD: dict[str, Any] = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 2))}


@dataclass(frozen=True)
class Panel:
    """One paired comparison.

    pairs:   seed -> (first arm's value, second arm's).
    names:   of the two arms, as far as they are not the same.
    styles:  of the two arms.
    paper:   the paper's difference.
    verdict: where the comparison was a hypothesis.
    """

    title: str
    pairs: dict[int, tuple[float, float]]
    names: Sequence[str]
    styles: Sequence[ArmStyle]
    paper: float | None
    verdict: Verdict | None = None

    @cached_property
    def difference(self) -> Estimate:
        return estimate({seed: second - first for seed, (first, second) in self.pairs.items()})

    @cached_property
    def base(self) -> float:
        """The first arm's mean: where the axis of differences has its 0."""
        return float(np.mean([first for first, _ in self.pairs.values()]))

    @property
    def gain(self) -> float:
        return float(np.mean([second for _, second in self.pairs.values()])) - self.base

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that decides: of 90 % for an equivalence, else of 95 %."""
        return self.difference.interval(self.verdict.level) if self.verdict else self.difference.interval()

    @property
    def margin(self) -> float | None:
        """The margin of an equivalence that the study claims."""
        hypothesis = self.verdict.hypothesis if self.verdict else None
        return hypothesis.margin if hypothesis and hypothesis.direction == "equal" else None

    @property
    def threshold(self) -> float | None:
        """What the claim's difference has to exceed, where that is not 0."""
        return (self.verdict.hypothesis.threshold or None) if self.verdict else None

    def drawn_differences(self) -> list[float]:
        """Everything that is drawn on the axis of differences."""
        values = [*self.difference.values.values(), 0.0, *(self.interval or ())]
        values += [value for value in (self.paper, self.threshold) if value is not None]
        return values + ([-self.margin, self.margin] if self.margin is not None else [])


def paired(analysis: Analysis, metric: str, figures: Figures, name: str = "paired") -> bool:
    """A panel for each difference of two arms in `metric`. Returns whether there was anything to draw."""
    panels = [
        _panel(analysis, weights, metric, contrast_label(analysis.study, weights))
        for weights in analysis.differences
        if analysis.estimate(weights, metric).n
    ]
    if panels:
        _draw_panels(panels, f"{metric_label(metric)} (points)", figures, name)
    return bool(panels)


def side_by_side(
    analysis: Analysis, weights: Weights, metrics: dict[str, str], figures: Figures, name: str, label: str
) -> bool:
    """A panel for each metric of a single difference, on one scale.

    metrics: metric -> the panel's title; label: of the scale.
    """
    panels = [
        _panel(analysis, weights, metric, title)
        for metric, title in metrics.items()
        if analysis.estimate(weights, metric).n
    ]
    if panels:
        _draw_panels(panels, label, figures, name)
    return bool(panels)


def interaction(analysis: Analysis, item: Interaction, figures: Figures, name: str = "interaction") -> bool:
    """The two differences of an interaction, seed by seed, and how much the second exceeds the first."""
    study = analysis.study
    gains = [analysis.estimate(weights, item.metric).values for weights in (item.first, item.second)]
    pairs = _pairs(*gains)
    if not pairs:
        return False
    styles = arm_styles(study)
    markers = [styles[arms_of(weights)[0]].marker for weights in (item.first, item.second)]
    panel = Panel(
        title="",
        pairs=pairs,
        names=[context_label(study, weights) for weights in (item.first, item.second)],
        styles=[ArmStyle(INK, marker) for marker in markers],
        paper=analysis.paper(item.weights, item.metric),
        verdict=_verdict(analysis, item.weights, item.metric),
    )
    label = contrast_label(study, item.first).split(", ")[0]
    _draw_panels([panel], f"{label},\n{metric_label(item.metric)} (points)", figures, name, from_zero=True)
    return True


def _panel(analysis: Analysis, weights: Weights, metric: str, title: str) -> Panel:
    study, styles, (plus, minus) = analysis.study, arm_styles(analysis.study), arms_of(weights)
    return Panel(
        title=title,
        pairs=_pairs(study.values(minus, metric), study.values(plus, metric)),
        names=[_own_name(analysis, arm, weights) for arm in (minus, plus)],
        styles=[styles[minus], styles[plus]],
        paper=analysis.paper(weights, metric),
        verdict=_verdict(analysis, weights, metric),
    )


def _verdict(analysis: Analysis, weights: Weights, metric: str) -> Verdict | None:
    asked = (key(weights), metric)
    named = ((key(item.hypothesis.contrast), item.hypothesis.metric) for item in analysis.verdicts)
    return dict(zip(named, analysis.verdicts, strict=True)).get(asked)


def _draw_panels(panels: list[Panel], label: str, figures: Figures, name: str, from_zero: bool = False) -> None:
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    ticks = max(name.count("\n") + 1 for panel in panels for name in _arm_labels(panel))
    titles = max(_title(panel).count("\n") + 1 for panel in panels)
    left, between, lower, upper = 0.6, 0.15 * (ticks + titles) + 0.3, 0.15 * ticks + 0.5, 0.17 * titles + 0.1
    width, height = left + PANEL_WIDTH * columns, PANEL_HEIGHT * rows + between * (rows - 1) + lower + upper
    drawn, grid = figure(
        rows,
        2 * columns,
        width=width,
        height=height,
        gridspec_kw={
            "width_ratios": WIDTHS * columns,
            "wspace": 0.0,
            "hspace": between / PANEL_HEIGHT,
            "left": left / width,
            "right": 1.0,
            "bottom": lower / height,
            "top": 1 - upper / height,
        },
    )
    low, high = value_range(panels, from_zero)
    for index in range(rows * columns):
        left_axes, right_axes = grid[index // columns][2 * (index % columns) : 2 * (index % columns) + 2]
        if index >= len(panels):
            left_axes.set_axis_off()
            right_axes.set_axis_off()
            continue
        panel = panels[index]
        _pairs_of_seeds(left_axes, panel)
        left_axes.set_ylim(low, high)
        _differences(right_axes, panel, low, high)
        left_axes.set_title(_title(panel), pad=8)
        if index % columns == 0:
            left_axes.set_ylabel(wrap(label, PANEL_HEIGHT - 0.4))
        else:
            left_axes.tick_params(axis="y", labelleft=False, length=0)
            despine(left_axes, "left")
    _legend(drawn, panels, (lower - 0.15 * ticks - 0.12) / height)
    figures.save(drawn, name)


def _title(panel: Panel) -> str:
    """The panel's title, broken at the minus sign where it is too long for one line."""
    room, title = 0.92 * PANEL_WIDTH, panel.title
    if text_width(title, 9.5, bold=True) > room:
        title = title.replace(f" {MINUS} ", f" {MINUS}\n")
    return wrap(title, room, 9.5, bold=True)


def _arm_labels(panel: Panel) -> list[str]:
    apart = PANEL_WIDTH * WIDTHS[0] / sum(WIDTHS) / (LEFT[1] - LEFT[0])  # inches between the two arms
    return [wrap(name, 0.92 * apart) for name in panel.names]


def value_range(panels: list[Panel], from_zero: bool) -> tuple[float, float]:
    """One scale for all panels, which holds everything that is drawn: values, and differences from the first's mean."""
    values = [value for panel in panels for pair in panel.pairs.values() for value in pair]
    values += [panel.base + value for panel in panels for value in panel.drawn_differences()]
    if from_zero:
        values.append(0.0)
    spare = 0.07 * (max(values) - min(values)) or 1.0
    return min(values) - spare, max(values) + spare


def _pairs_of_seeds(axes: Axes, panel: Panel) -> None:
    for first, second in panel.pairs.values():
        axes.plot([0, 1], [first, second], color=MUTED, linewidth=0.8, alpha=0.6, zorder=1)
    for side, style in enumerate(panel.styles):
        values = [pair[side] for pair in panel.pairs.values()]
        dots: dict[str, Any] = {
            "color": style.colour,
            "markersize": 6,
            "markeredgecolor": "white",
            "markeredgewidth": 0.7,
        }
        axes.plot([side] * len(values), values, style.marker, zorder=3, **dots)
        outward = -1 if side == 0 else 1
        mean = float(np.mean(values))
        across = [side + 0.10 * outward, side + 0.22 * outward]
        axes.plot(across, [mean, mean], color=style.colour, linewidth=2.6, solid_capstyle="butt")
        axes.annotate(
            number(mean),
            (side + 0.26 * outward, mean),
            ha="right" if side == 0 else "left",
            va="center",
            fontsize=9,
            fontweight="bold",
        )
        if side == 0:
            axes.plot([0.26, LEFT[1]], [mean, mean], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    axes.set_xlim(*LEFT)
    axes.set_xticks([0, 1], _arm_labels(panel))
    axes.grid(axis="y")
    despine(axes, "bottom")


def _differences(axes: Axes, panel: Panel, low: float, high: float) -> None:
    """The axis of differences: the same scale, shifted so that its 0 stands at the first arm's mean."""
    axes.set_ylim(low - panel.base, high - panel.base)
    if panel.margin is not None:
        axes.axhspan(-panel.margin, panel.margin, color=CLAIMED, linewidth=0, zorder=-1)
    labelled = [panel.gain] if panel.paper is None else [panel.gain, panel.paper]
    beside = any(abs(value) < 0.06 * (high - low) for value in labelled)  # its label would stand on the line
    axes.plot([RIGHT[0], 0.2 if beside else 0.5], [0, 0], color=INK, linewidth=1)
    if panel.threshold is not None:
        axes.plot([RIGHT[0], 0.14], [panel.threshold] * 2, zorder=0, **THRESHOLD)
    values = list(panel.difference.values.values())
    dots: dict[str, Any] = {"color": MUTED, "markersize": 3.6, "alpha": 0.75, "markeredgewidth": 0}
    axes.plot(_spread(values, -0.34), values, "o", **dots)
    if panel.interval:
        axes.plot([0, 0], panel.interval, color=INK, linewidth=2.2, solid_capstyle="butt")
    axes.plot([0], [panel.gain], "o", color=INK, markersize=7)
    if panel.paper is not None:
        axes.plot([0], [panel.paper], linestyle="none", markersize=9, **PAPER_MARK)
    _label_differences(axes, panel, 0.075 * (high - low))
    axes.set_xlim(*RIGHT)
    axes.set_xticks([0.0], ["difference"])
    axes.tick_params(axis="y", labelleft=False)
    despine(axes, "left", "bottom")


def _label_differences(axes: Axes, panel: Panel, apart: float) -> None:
    """Writes the mean, the paper's difference and 0 beside their marks, moved so that they stay `apart`."""
    bold: dict[str, Any] = {"fontsize": 10, "fontweight": "bold"}
    labels = [(panel.gain, signed(panel.gain), bold)]
    if panel.paper is not None:
        labels.append((panel.paper, signed(panel.paper), {"fontsize": 9, "color": MUTED}))
    if all(abs(value) > apart for value, *_ in labels):
        labels.append((0.0, "0", {"fontsize": 9}))
    heights = _apart([value for value, *_ in labels], apart)
    low, high = axes.get_ylim()
    for (_, text, font), y in zip(labels, heights, strict=True):
        inside = min(max(y, low + 0.5 * apart), high - 0.5 * apart)
        axes.annotate(text, (0.56 if text == "0" else 0.26, inside), va="center", **font)


def _apart(values: Sequence[float], least: float) -> list[float]:
    """Positions near `values`, in their order, of which no two are nearer than `least`."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    moved = dict(enumerate(values))
    for _ in range(len(values)):
        for lower, upper in zip(order, order[1:], strict=False):
            short = least - (moved[upper] - moved[lower])
            if short > 0:
                moved[lower] -= short / 2
                moved[upper] += short / 2
    return [moved[index] for index in range(len(values))]


def _legend(drawn: Figure, panels: list[Panel], top: float) -> None:
    """top: of the legend, as a share of the figure's height."""
    equivalence = any(panel.margin is not None for panel in panels)
    levels = {"90 %" if panel.margin is not None else "95 %" for panel in panels if panel.interval}
    seed = Line2D([], [], color=MUTED, marker="o", markersize=5, linewidth=0.8, label="one seed")
    handles: list[Any] = [seed]
    interval = f"mean and {' or '.join(sorted(levels, reverse=True))} interval" if levels else "mean"
    handles.append(Line2D([], [], color=INK, marker="o", markersize=7, linewidth=2.2, label=interval))
    if any(panel.paper is not None for panel in panels):
        handles.append(Line2D([], [], linestyle="none", markersize=9, label="the paper's difference", **PAPER_MARK))
    if any(panel.threshold is not None for panel in panels):
        handles.append(Line2D([], [], label="threshold of the claim", **THRESHOLD))
    if equivalence:
        handles.append(Rectangle((0, 0), 1, 1, color=CLAIMED, label="margin that counts as equal"))
    room = drawn.get_size_inches()[0]
    needed = sum(text_width(handle.get_label(), 8.5) + 0.55 for handle in handles)
    columns = len(handles) if needed < room else 2
    drawn.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, top), ncols=columns)


def _pairs(first: dict[int, float], second: dict[int, float]) -> dict[int, tuple[float, float]]:
    return {seed: (first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())}


def _own_name(analysis: Analysis, arm: str, weights: Weights) -> str:
    """The part of an arm's label that the other arm of the difference does not share."""
    label = analysis.study.label
    other = next(name for name in arms_of(weights) if name != arm)
    own = [part for part in label(arm).split(", ") if part not in label(other).split(", ")]
    return "\n".join(own) or label(arm)


def _spread(values: Sequence[float], centre: float) -> list[float]:
    """Positions around `centre` that keep equal or near values from hiding each other; the same on every run."""
    return [centre + 0.09 * ((index % 3) - 1) for index in range(len(values))]
