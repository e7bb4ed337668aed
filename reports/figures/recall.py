"""Recall of proposals: against how many of them are kept, and against how exactly they must lie."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.figures.style import INK, MUTED, Figures, arm_styles, figure
from reports.load import StudyResults
from reports.text.labels import and_list
from reports.text.markup import Marked, table
from reports.text.tables import mean_sd

THRESHOLDS = tuple(range(50, 100, 5))  # IoU in percent, COCO's ten
DRAWN: dict[int, Any] = {50: "-", 75: (0, (4, 2))}  # threshold -> how its line against the number is drawn
UNTRAINED = {
    "anchors": ("anchors in random order", "x"),
    "grid": ("a grid of windows", "s"),
    "random": ("random boxes", "+"),
}
FEW = (1, 3, 10)  # numbers of proposals that are drawn against the IoU, as well as all of them
RAMP = ("#9ecae1", "#6baed6", "#3182bd", "#08519c")  # of these numbers, the smallest first


def numbers(study: StudyResults) -> list[int]:
    """How many proposals recall was measured with; empty in a study without recall."""
    names = [metric.partition(".AR@")[2] for metric in study.metrics() if metric.startswith("recall.AR@")]
    return sorted(map(int, names))


def selected(study: StudyResults) -> list[int]:
    """A few of the numbers, the largest among them."""
    return [number for number in numbers(study) if number in FEW or number == numbers(study)[-1]]


def recall_table(study: StudyResults) -> Marked:
    """Mean and standard deviation of every arm at a few numbers of proposals; "" without recall."""
    rows = []
    names = [f"{label}, at IoU 0.5" for label, _ in UNTRAINED.values()]
    for arm in study.record.arms if numbers(study) else ():
        for number in selected(study):
            values = [mean_sd(study, arm, f"recall.{name}@{number}") for name in ("R50", "R75", "AR")]
            untrained = [mean_sd(study, arm, f"{kind}.R50@{number}") for kind in UNTRAINED]
            rows.append([study.label(arm), str(number), *values, *untrained])
    return table(["arm", "proposals", "at IoU 0.5", "at IoU 0.75", "average over 0.5 to 0.95", *names], rows)


def recall_curves(study: StudyResults, figures: Figures, name: str = "recall") -> bool:
    """A panel for recall against the number of proposals, and one for each arm against the IoU."""
    if not numbers(study):
        return False
    arms = list(study.record.arms)
    drawn, [axes] = figure(1, 1 + len(arms), width=2.9 * (1 + len(arms)) + 0.6, height=3.2, layout="constrained")
    _against_number(axes[0], study, arms)
    for panel, arm in zip(axes[1:], arms, strict=True):
        _against_iou(panel, study, arm)
    for panel in axes:
        panel.set_ylim(0, 102)
        panel.grid(axis="y")
    axes[0].set_ylabel("objects covered (%)")
    figures.save(drawn, name)
    return True


def _against_number(axes: Axes, study: StudyResults, arms: Sequence[str]) -> None:
    counts, styles = numbers(study), arm_styles(study)
    untrained = _without_learning(axes, study, arms[0], counts)
    for arm in arms:
        for threshold, dashes in DRAWN.items():
            metrics = [f"recall.R{threshold}@{number}" for number in counts]
            _lines(axes, study, arm, counts, metrics, styles[arm].colour, styles[arm].marker, dashes)
    _levels(axes, study)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(number) for number in counts])
    axes.minorticks_off()
    axes.set_xlabel("best proposals of an image")
    axes.set_title("how many")
    handles = [
        Line2D([], [], color=styles[arm].colour, marker=styles[arm].marker, label=study.label(arm)) for arm in arms
    ]
    handles += [Line2D([], [], color=INK, linestyle=d, label=f"IoU {t / 100:g}") for t, d in DRAWN.items()]
    axes.figure.legend(handles=handles + untrained, loc="outside lower center", ncols=3)


def _without_learning(axes: Axes, study: StudyResults, arm: str, counts: Sequence[int]) -> list[Line2D]:
    """Recall of untrained boxes, and the handles of these lines."""
    handles = []
    for kind, (label, marker) in UNTRAINED.items():
        for threshold, dashes in DRAWN.items():
            metrics = [f"{kind}.R{threshold}@{number}" for number in counts]
            if _lines(axes, study, arm, counts, metrics, MUTED, marker, dashes) is not None and dashes == "-":
                handles.append(Line2D([], [], color=MUTED, marker=marker, label=label))
    return handles


def _levels(axes: Axes, study: StudyResults) -> None:
    """The levels that a study fixed beforehand for the recall of an arm with so many proposals."""
    for hypothesis in study.record.hypotheses:
        asked = re.fullmatch(r"recall\.R(\d+)@(\d+)", hypothesis.metric)
        if asked and int(asked[1]) in DRAWN and len(hypothesis.contrast) == 1 and hypothesis.threshold:
            number, level = int(asked[2]), hypothesis.threshold
            axes.plot([number / 1.5, number * 1.5], [level, level], color=INK, linewidth=2.2, solid_capstyle="butt")
            text = f"level fixed beforehand: {level:g} %"
            axes.annotate(text, (number * 1.5, level), (0, 5), textcoords="offset points", ha="right", fontsize=8)


def _against_iou(axes: Axes, study: StudyResults, arm: str) -> None:
    thresholds = [threshold / 100 for threshold in THRESHOLDS]
    for index, number in enumerate(selected(study)):
        metrics = [f"recall.R{threshold}@{number}" for threshold in THRESHOLDS]
        mean = _lines(axes, study, arm, thresholds, metrics, RAMP[index % len(RAMP)])
        if mean is not None:
            axes.annotate(str(number), (thresholds[0], mean[0]), xytext=(-4, 0), textcoords="offset points", ha="right")
    axes.set_xlim(0.43, 0.96)
    axes.set_xticks([0.5, 0.6, 0.7, 0.8, 0.9])
    axes.set_xlabel("IoU that counts as covered")
    axes.set_title(f"how exactly, {study.label(arm)}")


def _lines(
    axes: Axes,
    study: StudyResults,
    arm: str,
    thresholds: Sequence[float],
    metrics: Sequence[str],
    colour: str,
    marker: str = "",
    dashes: Any = "-",
) -> np.ndarray | None:
    """A thin line for each seed and a thick one for their mean, which is returned; None without a seed."""
    values = [study.values(arm, metric) for metric in metrics]
    seeds = [seed for seed in study.record.seeds if all(seed in curve for curve in values)]
    if not seeds:
        return None
    for seed in seeds:
        axes.plot(
            thresholds, [curve[seed] for curve in values], color=colour, linewidth=0.6, alpha=0.5, linestyle=dashes
        )
    mean = np.array([np.mean([curve[seed] for seed in seeds]) for curve in values])
    axes.plot(thresholds, mean, color=colour, linewidth=1.8, linestyle=dashes, marker=marker, markersize=4.5)
    return mean


def shown_numbers(study: StudyResults) -> str:
    return and_list([str(number) for number in selected(study)])
