"""What misalignment costs: the metric of masks that is lost against how far an arm's rounding moves its bins."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.figures.style import (
    ALIGN,
    CONCEPTS,
    DASHES,
    INK,
    MUTED,
    RULE,
    STRIDE_MARKERS,
    Figures,
    figure,
    wrap,
)
from reports.stats.dose import Dose
from reports.text.labels import OPERATORS, and_list, metric_label

ROUNDS_TO_STRIDE = "RoIWarp: boxes rounded to the stride"


def dose(doses: Sequence[Dose], figures: Figures, name: str = "dose") -> bool:
    """Two panels with the displacement in pixels and in shares of the object's side; both strides in each.

    doses: by stride and displacement. Returns whether there was anything to draw.
    """
    if not doses:
        return False
    drawn, [[left, right]] = figure(1, 2, width=9.2, height=4.3, layout="constrained", sharey=True)
    _panel(left, doses, lambda item: item.pixels)
    _panel(right, doses, lambda item: item.share)
    left.set_xlabel("mean displacement of an object's bins (pixels)")
    right.set_xlabel("mean displacement in % of the object's side")
    left.set_ylabel(wrap(f"{metric_label(doses[0].metric)}: points lost", 2.6))
    operators, strides = _handles(doses)
    drawn.legend(handles=operators, loc="outside lower center", ncols=min(3, len(operators)))
    left.legend(handles=strides, loc="upper left")
    figures.save(drawn, name)
    return True


def _panel(axes: Axes, doses: Sequence[Dose], displacement: Callable[[Dose], float]) -> None:
    """Strides are set apart a little: at the same step they have the same displacement."""
    strides, widest = _strides(doses), max(map(displacement, doses))

    def x_of(item: Dose) -> float:
        return displacement(item) + 0.007 * widest * (strides.index(item.stride) - (len(strides) - 1) / 2)

    steps: dict[int, list[float]] = {}
    for item in doses:
        if item.on_curve:
            steps.setdefault(item.step, []).append(x_of(item))
    for step, positions in steps.items():
        x = sum(positions) / len(positions)
        axes.axvline(x, color=RULE, linewidth=0.9, zorder=0)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(f"to {step} px", (x, 1), (0, 3), ha="center", color=MUTED, fontsize=8, **place)
    for stride, dash in zip(strides, DASHES, strict=False):
        line = [(0.0, 0.0)]
        line += [(x_of(item), item.lost.mean or 0.0) for item in doses if item.on_curve and item.stride == stride]
        axes.plot(*zip(*line, strict=True), color=MUTED, linewidth=1.3, linestyle=dash, zorder=1)
    for item in doses:
        colour = _colour(item)
        if item.lost.low is not None and item.lost.high is not None:
            ends = [item.lost.low, item.lost.high]
            axes.plot([x_of(item)] * 2, ends, color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
        axes.plot([x_of(item)], [item.lost.mean or 0.0], color=colour, **_mark(item.stride, item.same_net), zorder=3)
    values = [value for item in doses for value in (item.lost.mean, item.lost.low, item.lost.high) if value is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    spare = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - spare, high + spare)
    axes.set_xlim(0, 1.1 * widest)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=0)
    axes.grid(axis="y")


def _strides(doses: Sequence[Dose]) -> list[int]:
    return list(dict.fromkeys(item.stride for item in doses))


def _mark(stride: int, is_filled: bool = True) -> dict[str, Any]:
    """By its stride; hollow where the network differs in more than the operator."""
    filled: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.7}
    hollow: dict[str, Any] = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.6}
    return {"marker": STRIDE_MARKERS.get(str(stride), "^"), "linestyle": "none", **(filled if is_filled else hollow)}


def _operator(item: Dose) -> str:
    """RoIWarp is said to be a rounding step where it is on the curve."""
    if item.op == "align":
        return f"RoIAlign, boxes rounded to {item.step} px"
    return ROUNDS_TO_STRIDE if item.op == "warp" and item.on_curve else OPERATORS[item.op]


def _colour(item: Dose) -> str:
    """The operator's colour; on rounded boxes RoIAlign's is that of the step, as in every figure."""
    return CONCEPTS.get(("roi", f"align_{item.step}" if item.op == "align" else item.op), ALIGN)


def _handles(doses: Sequence[Dose]) -> tuple[list[Line2D], list[Line2D]]:
    """The operators and steps by colour, and the strides by shape and dash."""
    by_step = sorted(doses, key=lambda item: (item.op != "align", item.step))
    named = {_operator(item): _colour(item) for item in by_step}
    operators = [Line2D([], [], color=colour, linewidth=2.5, label=label) for label, colour in named.items()]
    others = sorted({item.study for item in doses if not item.same_net})
    if others:
        label = f"hollow: another head (study {and_list(others)})"
        operators.append(Line2D([], [], color=MUTED, label=label, **_mark(0, is_filled=False) | {"marker": "o"}))
    strides = [
        Line2D([], [], color=MUTED, linewidth=1.3, label=f"stride {stride}", **_mark(stride) | {"linestyle": dash})
        for stride, dash in zip(_strides(doses), DASHES, strict=False)
    ]
    return operators, strides
