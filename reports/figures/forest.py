"""Forest plots: a study's differences in every metric, line by line, with their intervals and the paper's figures."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.analysis import Analysis
from reports.figures import recall
from reports.figures.style import (
    DASHES,
    INK,
    MARKERS,
    MUTED,
    PAPER_MARK,
    SHADE,
    STRIDE_MARKERS,
    Figures,
    despine,
    figure,
    text_width,
    wrap,
)
from reports.stats.paired import Estimate
from reports.text.labels import (
    NOTHING,
    arms_of,
    context_label,
    contrast_label,
    difference_label,
    interval,
    is_pair,
    metric_label,
    signed,
    tick,
)

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
STEP = 0.27  # inches between two lines of a metric
GREYS = (INK, "#8a8a8a", "#555555", "#b0b0b0")  # contrasts are no arms: they have no colour


def forest(analysis: Analysis, figures: Figures, name: str = "forest") -> bool:
    """Rows of metrics, and in each the study's differences of two arms with their intervals and the paper's figure."""
    contrasts, metrics = analysis.differences, metrics_of(analysis)
    if not metrics:
        return False
    block = STEP * len(contrasts) + 0.2
    drawn, [[axes]] = figure(width=8.2, height=0.9 + block * len(metrics))
    axes.axvline(0, color=INK, linewidth=1)
    styles = styles_of(analysis)
    for row, metric in enumerate(metrics):
        top = -row * block
        upper = top + 0.5 * STEP + 0.1
        axes.axhspan(upper - block, upper, color=SHADE if row % 2 == 0 else "white", linewidth=0, zorder=-2)
        for index, weights in enumerate(contrasts):
            effect, paper = analysis.estimate(weights, metric), analysis.paper(weights, metric)
            _line(axes, effect, paper, top - index * STEP, styles[index])
    axes.set_yticks(
        [-row * block - STEP * (len(contrasts) - 1) / 2 for row in range(len(metrics))],
        [_wrapped(metric_label(metric), block) for metric in metrics],
    )
    axes.set_ylim(-len(metrics) * block + 0.5 * STEP + 0.1, 0.5 * STEP + 0.1)
    axes.xaxis.set_major_formatter(tick)
    axes.grid(axis="x")
    despine(axes, "left")
    study = analysis.study
    labels = [contrast_label(study, weights) for weights in contrasts]
    heads = {difference_label(study, weights) for weights in contrasts}
    axes.set_xlabel(f"{heads.pop()} (points)" if len(heads) == 1 else "difference (points)")
    paper = any(analysis.paper(weights, metric) is not None for weights in contrasts for metric in metrics)
    _legend(axes, labels if heads else [context_label(study, weights) for weights in contrasts], styles, paper)
    figures.save(drawn, name)
    return True


def metrics_of(analysis: Analysis) -> list[str]:
    """The usual metrics of masks and boxes, or of proposals, and what the hypotheses on differences are about."""
    asked = [verdict.hypothesis.metric for verdict in analysis.verdicts if is_pair(verdict.hypothesis.contrast)]
    known = analysis.study.metrics()
    recalls = [f"recall.{key}@{count}" for count in recall.selected(analysis.study) for key in ("R50", "R75", "AR")]
    usual = [metric for metric in METRICS if metric in known]
    if analysis.study.boxes_are_given:
        usual = [metric for metric in usual if not metric.startswith("bbox.")]
    return [
        metric
        for metric in dict.fromkeys([*usual, *recalls, *asked])
        if any(analysis.estimate(weights, metric).n for weights in analysis.differences)
    ]


def _wrapped(label: str, block: float) -> str:
    """In several lines where they fit into a metric's block, which is this many inches high."""
    lines = wrap(label, 1.7)
    return lines if 0.16 * (lines.count("\n") + 1) <= block else label


def _line(axes: Axes, effect: Estimate, paper: float | None, y: float, style: dict[str, Any]) -> None:
    """style: see `styles_of`."""
    values, colour = list(effect.values.values()), style["color"]
    axes.plot(values, [y + 0.075] * len(values), "o", color=colour, markersize=3, alpha=0.5, markeredgewidth=0)
    if effect.low is not None and effect.high is not None:
        line = {"color": colour, "linestyle": style["linestyle"], "linewidth": 1.8}
        axes.plot([effect.low, effect.high], [y, y], solid_capstyle="butt", dash_capstyle="butt", **line)
    if effect.mean is not None:
        axes.plot([effect.mean], [y], markersize=6.5, **style | {"linestyle": "none"})
    if paper is not None:
        axes.plot([paper], [y], linestyle="none", markersize=8, **PAPER_MARK)
    axes.annotate(
        estimate_text(effect),
        (1.01, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
        color=INK if effect.mean is not None else MUTED,
    )


def estimate_text(effect: Estimate) -> str:
    """ "+3.4  (+1.2 to +5.6)"."""
    if effect.mean is None:
        return NOTHING
    return (
        f"{signed(effect.mean)}  ({interval(effect.low, effect.high)})"
        if effect.low is not None
        else signed(effect.mean)
    )


def styles_of(analysis: Analysis) -> list[dict[str, Any]]:
    """The style of each difference: a grey, and a marker that tells its stride where the study has several.

    Where greys come round again, marks are hollow and lines broken: no two differences look the same.
    """
    strides = [
        {str(analysis.study.record.arms[arm].factors.get("stride")) for arm in arms_of(weights)}
        for weights in analysis.differences
    ]
    by_stride = len(set(map(frozenset, strides))) > 1 and all(len(arm_strides) == 1 for arm_strides in strides)
    styles = []
    for index, arm_strides in enumerate(strides):
        marker = MARKERS[index % len(MARKERS)]
        if by_stride:
            marker = STRIDE_MARKERS.get(min(arm_strides), marker)
        colour, around = GREYS[index % len(GREYS)], index // len(GREYS)
        face, edge = ("white", colour) if around % 2 else (colour, "white")
        fill = {"markerfacecolor": face, "markeredgecolor": edge}
        styles.append({"color": colour, "marker": marker, "linestyle": DASHES[around % len(DASHES)], **fill})
    return styles


def _legend(axes: Axes, labels: list[str], styles: list[dict[str, Any]], paper: bool) -> None:
    """paper: whether it has a figure for any of the differences."""
    handles = [Line2D([], [], label=label, linewidth=1.8, **style) for label, style in zip(labels, styles, strict=True)]
    if paper:
        handles.append(Line2D([], [], linestyle="none", markersize=8, label="the paper's difference", **PAPER_MARK))
    widest = max(text_width(str(handle.get_label()), 8.5) for handle in handles) + 0.6
    columns = max(1, min(len(handles), int(7.5 / widest)))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, handletextpad=0.5)
