"""Forest plots: differences with their intervals, line by line, and the paper's figures beside."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.analysis import Analysis
from reports.figures.style import COLOURS, INK, MARKERS, MUTED, PAPER_MARK, despine, figure, save
from reports.stats.contrasts import Weights
from reports.stats.paired import Estimate, Verdict
from reports.text.labels import NOTHING, context_label, contrast_label, interval, is_pair, metric_label, signed, tick

METRICS = (
    "segm.AP",
    "segm.AP50",
    "segm.AP75",
    "segm.APs",
    "segm.APm",
    "segm.APl",
    "bbox.AP",
    "bbox.AP50",
    "bbox.AP75",
)


def forest(analysis: Analysis, folder: Path, name: str = "forest") -> bool:
    """Rows of metrics, and in each the study's differences of two arms with their intervals and the paper's figure."""
    study, contrasts = analysis.study, analysis.differences
    asked = [item.metric for item in study.record.hypotheses if is_pair(item.contrast)]
    known = [metric for metric in METRICS if metric in study.metrics()]
    metrics = [
        metric
        for metric in dict.fromkeys([*known, *asked])
        if any(analysis.estimate(weights, metric).n for weights in contrasts)
    ]
    if not metrics:
        return False
    step = 0.27
    block = step * len(contrasts) + 0.2
    drawn, [[axes]] = figure(width=8.2, height=0.9 + block * len(metrics))
    axes.axvline(0, color=INK, linewidth=1)
    for row, metric in enumerate(metrics):
        top = -row * block
        upper = top + 0.5 * step + 0.1
        axes.axhspan(upper - block, upper, color="#f5f5f5" if row % 2 == 0 else "white", linewidth=0, zorder=-2)
        for index, weights in enumerate(contrasts):
            _forest_line(axes, analysis, weights, metric, top - index * step, index)
    axes.set_yticks(
        [-row * block - step * (len(contrasts) - 1) / 2 for row in range(len(metrics))],
        [metric_label(metric) for metric in metrics],
    )
    axes.set_ylim(-len(metrics) * block + 0.5 * step + 0.1, 0.5 * step + 0.1)
    axes.xaxis.set_major_formatter(tick)
    axes.grid(axis="x")
    despine(axes, "left")
    labels = [contrast_label(study, weights) for weights in contrasts]
    heads = {label.split(", ")[0] for label in labels}
    axes.set_xlabel(f"{heads.pop()} (points)" if len(heads) == 1 else "difference (points)")
    paper = any(analysis.paper(weights, metric) is not None for weights in contrasts for metric in metrics)
    _forest_legend(axes, labels if heads else [context_label(study, weights) for weights in contrasts], paper)
    save(drawn, folder, name)
    return True


def _forest_line(axes: Axes, analysis: Analysis, weights: Weights, metric: str, y: float, index: int) -> None:
    found = analysis.estimate(weights, metric)
    colour, marker = _contrast_style(index)
    values = list(found.values.values())
    axes.plot(values, [y + 0.075] * len(values), "o", color=colour, markersize=3, alpha=0.5, markeredgewidth=0)
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
    if found.mean is not None:
        axes.plot([found.mean], [y], marker, color=colour, markersize=6.5, markeredgecolor="white")
    paper = analysis.paper(weights, metric)
    if paper is not None:
        axes.plot([paper], [y], linestyle="none", markersize=5.5, **PAPER_MARK)
    axes.annotate(
        _estimate_text(found),
        (1.01, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
        color=INK if found.mean is not None else MUTED,
    )


def verdict_forest(verdicts: Sequence[Verdict], folder: Path, name: str) -> bool:
    """A line for each verdict. Returns whether there was anything to draw."""
    lines = [item for item in verdicts if item.estimate.mean is not None]
    if not lines:
        return False
    drawn, [[axes]] = figure(width=8.6, height=0.9 + 0.42 * len(lines))
    axes.axvline(0, color=INK, linewidth=1)
    for row, item in enumerate(lines):
        found, y = item.estimate, -row
        values = list(found.values.values())
        axes.plot(values, [y + 0.24] * len(values), "o", color=MUTED, markersize=3, alpha=0.75, markeredgewidth=0)
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [y, y], color=INK, linewidth=2, solid_capstyle="butt")
        axes.plot([found.mean], [y], "o", color=INK, markersize=6, markeredgecolor="white")
        if item.hypothesis.paper is not None:
            axes.plot([item.hypothesis.paper], [y], linestyle="none", markersize=5.5, **PAPER_MARK)
        axes.annotate(_estimate_text(found), (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set_yticks(
        [-row for row in range(len(lines))],
        ["\n".join(textwrap.wrap(item.hypothesis.claim, 46)) for item in lines],
        fontsize=8,
    )
    axes.set_ylim(0.6 - len(lines), 0.6)
    axes.xaxis.set_major_formatter(tick)
    axes.grid(axis="x")
    axes.set_xlabel("difference (points)")
    despine(axes, "left")
    save(drawn, folder, name)
    return True


def _estimate_text(found: Estimate) -> str:
    if found.mean is None:
        return NOTHING
    return f"{signed(found.mean)}  ({interval(found.low, found.high)})" if found.low is not None else signed(found.mean)


def _forest_legend(axes: Axes, labels: list[str], paper: bool) -> None:
    """paper: whether it has a figure for any of the differences."""
    handles = []
    for index, label in enumerate(labels):
        colour, marker = _contrast_style(index)
        handles.append(Line2D([], [], color=colour, marker=marker, markeredgecolor="white", label=label, linewidth=1.8))
    if paper:
        handles.append(Line2D([], [], linestyle="none", markersize=5.5, label="the paper's difference", **PAPER_MARK))
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=min(3, len(handles)),
        fontsize=8.5,
        handletextpad=0.5,
        columnspacing=1.6,
    )


def _contrast_style(index: int) -> tuple[str, str]:
    """Contrasts take the palette from the other end, so that no contrast looks like an arm."""
    colours = ("#6699CC", "#994455", "#000000", "#997700", *COLOURS)
    return colours[index % len(colours)], MARKERS[index % len(MARKERS)]
