"""Average precision along training, of the first seed's runs."""

import math
from typing import Any

from matplotlib.lines import Line2D

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import Figures, arm_styles, figure
from reports.load import StudyResults
from reports.text.labels import metric_label, number
from reports.text.markup import Marked, emphasis, escape, paragraphs, table


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study, points = analysis.study, exhibit.content["arms"]
    # The headline's metric may be one that an exhibit takes of finished runs.
    metrics = (analysis.primary, "segm.AP", "bbox.AP")
    curves = {metric: {arm: _values(points[arm], metric) for arm in points} for metric in metrics}
    metric = next((metric for metric, by_arm in curves.items() if any(by_arm.values())), None)
    if metric is None:
        return Marked("## AP along training\n\nNeither mask AP nor box AP was measured along the training.")
    arms, label = curves[metric], metric_label(metric)
    _draw(study, arms, label, figures)
    return paragraphs(
        Marked("## AP along training"),
        Marked("![The metric after several numbers of training steps](figures/learning.svg)"),
        emphasis(
            Marked(
                f"{escape(label[:1].upper() + label[1:])} along training, evaluated on the {study.evaluated}, of the "
                f"runs with seed {escape(exhibit.content['seed'])}, which kept their weights at these steps. Each "
                f"curve ends with the finished run; the earlier points enter no verdict. This is one seed: small "
                f"gaps between its curves may be chance, and its last points are not the means over all seeds, which "
                f"stand in the tables below."
            )
        ),
        _table(study, arms),
        *_without_snapshots(study, points),
    )


def _without_snapshots(study: StudyResults, points: dict[str, list[Any]]) -> list[Marked]:
    """Which arms' runs have their end alone."""
    names = [escape(study.label(arm)) for arm in points if len(points[arm]) == 1]
    advice = "the same command with `force=true` makes the runs again and keeps them"
    return [Marked(f"No weights were kept during the training of {'; '.join(names)}: {advice}.")] if names else []


def _values(points: list[dict[str, Any]], metric: str) -> dict[int, float]:
    """Number of steps -> the metric, where it is defined."""
    kind, _, name = metric.partition(".")
    values = {int(point["step"]): point["metrics"].get(kind, {}).get(name) for point in points}
    return {step: float(value) for step, value in values.items() if value is not None}


def _draw(study: StudyResults, arms: dict[str, dict[int, float]], label: str, figures: Figures) -> None:
    drawn, [[axes]] = figure(width=6.4, height=3.2, layout="constrained")
    styles = {arm: style for arm, style in arm_styles(study).items() if arm in arms}
    lines: dict[str, dict[str, Any]] = {
        arm: {"color": style.colour, "marker": style.marker, "linestyle": style.dash, "linewidth": 1.8}
        for arm, style in styles.items()
    }
    for arm, line in lines.items():
        axes.plot(list(arms[arm]), list(arms[arm].values()), **line)
    axes.set_xlabel("training steps")
    axes.set_ylabel(f"{label} (points)")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.08)
    axes.grid(axis="y")
    handles = [Line2D([], [], label=study.label(arm), **line) for arm, line in lines.items()]
    rows = math.ceil(len(handles) / 3)
    drawn.legend(handles=handles, loc="outside lower center", ncols=math.ceil(len(handles) / rows), handlelength=3)
    figures.save(drawn, "learning")


def _table(study: StudyResults, arms: dict[str, dict[int, float]]) -> Marked:
    steps = sorted({step for values in arms.values() for step in values})
    rows = [[study.label(arm), *(number(values.get(step)) for step in steps)] for arm, values in arms.items()]
    return table(["after steps", *map(str, steps)], rows)
