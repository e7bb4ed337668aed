"""What rounding costs by the object's size in cells of the map, at each stride: masks on true boxes."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.analysis import Analysis
from reports.figures.style import DASHES, INK, MUTED, STRIDE_MARKERS, Figures, figure
from reports.load import StudyResults
from reports.stats import floors
from reports.stats.contrasts import Weights
from reports.stats.paired import Estimate
from reports.text.labels import arms_of, number

WEAK = "hollow: masks no better than a filled box or an ellipse in it"
COLOURS = (INK, "#8a8a8a")  # neutral: a gain is no operator's
HOLLOW: dict[str, Any] = {"markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.5}
RANGE = re.compile(
    r"true_boxes\.IoU_(?:under_(?P<below>\d+)_cells?|(?P<low>\d+)_to_(?P<high>\d+)_cells"
    r"|(?P<above>\d+)_cells_and_more)"
)


@dataclass(frozen=True)
class Curve:
    """RoIAlign minus RoIPool on the maps of one stride.

    gains: (a range's middle, in cells) -> points of mask IoU.
    weak:  the ranges, by their middles, in which both arms' masks are no better than masks that need no features.
    """

    stride: int
    weights: Weights
    gains: dict[float, Estimate]
    weak: frozenset[float] = frozenset()

    @property
    def rises(self) -> bool:
        """Whether the smallest objects are those of the weak ranges, and the largest gain more than any of these.

        By their interval over seeds; on the objects of the weak ranges no gain is resolved.
        """
        weak, strong = ([item for item in self.gains.items() if (item[0] in self.weak) == of] for of in (True, False))
        if not weak or not strong or max(middle for middle, _ in weak) > min(middle for middle, _ in strong):
            return False
        least = max(strong, key=lambda item: item[0])[1].low
        return least is not None and all(
            least > max(0.0, effect.mean or 0.0) and (effect.low is None or effect.low <= 0) for _, effect in weak
        )


def curves_of(analysis: Analysis) -> list[Curve]:
    """A curve for each stride at which the study compares RoIAlign with RoIPool and has masks on true boxes."""
    study, curves = analysis.study, []
    ranges = {metric: middle for metric in study.metrics() if (middle := middle_of(metric)) is not None}
    for weights in analysis.differences:
        plus, minus = (study.record.arms[arm].factors for arm in arms_of(weights))
        stride = plus.get("stride")
        if (plus.get("roi"), minus.get("roi")) != ("align", "pool") or stride != minus.get("stride"):
            continue
        estimates = {middle: analysis.estimate(weights, metric) for metric, middle in ranges.items()}
        gains = {middle: effect for middle, effect in sorted(estimates.items()) if effect.mean is not None}
        weak = frozenset(ranges[metric] for metric in ranges if is_weak(study, arms_of(weights), metric))
        if gains and isinstance(stride, int):
            curves.append(Curve(stride, weights, gains, weak))
    return curves


def is_weak(study: StudyResults, arms: Sequence[str], metric: str) -> bool:
    """Whether the masks of every one of the arms are no better on average than the better floor."""
    return all((above := floors.above(study, arm, metric.partition(".")[2])) is not None and above <= 0 for arm in arms)


def middle_of(metric: str) -> float | None:
    """The geometric middle, in cells, of the range of sides that a metric is about; of an open range a factor of
    sqrt(2) beyond its end. None for other metrics."""
    match = RANGE.fullmatch(metric)
    if match is None:
        return None
    ends = {name: float(text) for name, text in match.groupdict().items() if text}
    if "low" in ends:
        return math.sqrt(ends["low"] * ends["high"])
    return ends["below"] / math.sqrt(2) if "below" in ends else ends["above"] * math.sqrt(2)


def by_cells(analysis: Analysis, figures: Figures) -> bool:
    """Two panels, with the object's side in cells and in pixels. Returns whether there was anything to draw."""
    curves = curves_of(analysis)
    if not curves:
        return False
    drawn, [[left, right]] = figure(1, 2, width=9.2, height=3.7, layout="constrained", sharey=True)
    for index, curve in enumerate(curves):
        _curve(left, curve, index, 1)
        _curve(right, curve, index, curve.stride)
    middles = [middle for curve in curves for middle in curve.gains]
    sides = [middle * curve.stride for curve in curves for middle in curve.gains]
    for axes, values in ((left, middles), (right, sides)):
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(values) / 1.3, max(values) * 1.3)
        axes.xaxis.set_major_formatter(lambda value, _: number(value, 0 if value >= 1 else 1))
        axes.axhline(0, color=INK, linewidth=0.8, zorder=0)
        axes.grid(axis="y")
    left.set_xlabel("object's side in cells of the map")
    right.set_xlabel("object's side in pixels")
    left.set_ylabel("RoIAlign − RoIPool,\nmask IoU on true boxes (points)")
    handles = left.get_legend_handles_labels()[0]
    if any(curve.weak for curve in curves):
        handles.append(Line2D([], [], color=MUTED, label=WEAK, marker="o", linestyle="none", **HOLLOW))
    drawn.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figures.save(drawn, "by_cells")
    return True


def _curve(axes: Axes, curve: Curve, index: int, scale: float) -> None:
    """scale: of the positions. Strides are set apart a little where they have the same ones."""
    colour = COLOURS[index % len(COLOURS)]
    marker = STRIDE_MARKERS.get(str(curve.stride), "^")
    xs = [middle * scale * (1 + 0.02 * index) for middle in curve.gains]
    for x, effect in zip(xs, curve.gains.values(), strict=True):
        if effect.low is not None and effect.high is not None:
            axes.plot([x, x], [effect.low, effect.high], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
    axes.plot(
        xs,
        [effect.mean or 0.0 for effect in curve.gains.values()],
        color=colour,
        marker=marker,
        markersize=7,
        markeredgecolor="white",
        markeredgewidth=0.7,
        linewidth=1.3,
        linestyle=DASHES[index % len(DASHES)],
        label=f"stride {curve.stride}",
        zorder=3,
    )
    for x, (middle, effect) in zip(xs, curve.gains.items(), strict=True):
        if middle in curve.weak:
            axes.plot([x], [effect.mean or 0.0], color=colour, marker=marker, linestyle="none", zorder=4, **HOLLOW)
