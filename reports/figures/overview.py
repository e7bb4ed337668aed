"""The ledger's overview: every measurement that bears on a slide's claim, grouped by slide, its verdict at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from reports.figures.style import ALIGN, CLAIMED, INK, MUTED, PAPER_MARK, RULE, WRONG, Figures, despine, figure, wrap
from reports.stats.paired import LEVEL, Verdict
from reports.text.labels import signed, tick, unit_of
from reports.text.wording import MARKS, beside_paper

LEFT, MIDDLE, RIGHT = 3.3, 3.6, 3.4  # inches of the labels, the charts, and the numbers with the verdicts
LINE, ROW = 0.15, 0.27  # inches of a line of text, and of a measurement whose label has at most two lines
GAP = 0.62  # inches below a panel, for its axis
COLOURS = {"reproduced": ALIGN, "contradicted": WRONG}


@dataclass(frozen=True)
class Row:
    """A measurement that bears on a slide's claim.

    label:   what is measured, such as "mask AP: RoIAlign − RoIPool, stride 16".
    kind:    the verdict on the slide's claim.
    against: whether the claim would have the difference on the other side than the hypothesis.
    aside:   whether the measurement stands beside the claim and does not decide it.
    """

    slide: int
    claim: str
    label: str
    verdict: Verdict
    kind: str
    against: bool = False
    aside: bool = False


def overview(rows: Sequence[Row], figures: Figures) -> bool:
    """A panel for each unit, in it the claims by slide. Returns whether there was anything to draw."""
    units: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.slide):
        if row.verdict.estimate.mean is not None:
            units.setdefault(unit_of(row.verdict.hypothesis.metric), []).append(row)
    if not units:
        return False
    heights = {
        unit: sum(_height(row, before) for row, before in _pairs(unit_rows)) for unit, unit_rows in units.items()
    }
    total, width = sum(heights.values()) + GAP * len(units) + 0.4, LEFT + MIDDLE + RIGHT
    drawn, _ = figure(width=width, height=total)
    drawn.clear()
    top = total - 0.4
    for unit, unit_rows in units.items():
        height = heights[unit]
        axes = drawn.add_axes((LEFT / width, (top - height) / total, MIDDLE / width, height / total))
        _draw_unit(axes, unit_rows, height)
        axes.set_xlabel(f"difference ({unit})")
        top -= height + GAP
    _legend(drawn, total)
    figures.save(drawn, "overview")
    return True


def _pairs(rows: list[Row]) -> list[tuple[Row, Row | None]]:
    """Every row with the one before it."""
    return list(zip(rows, [None, *rows], strict=False))


def _opens(row: Row, before: Row | None) -> bool:
    """Whether a row is the first of its claim."""
    return before is None or (before.slide, before.claim) != (row.slide, row.claim)


def _heading(row: Row) -> str:
    return wrap(f"{row.slide}  {row.claim}", LEFT + MIDDLE + RIGHT - 0.3, 8.5, bold=True)


def _label(row: Row) -> str:
    return wrap(row.label, LEFT - 0.15, 8)


def _own_height(row: Row) -> float:
    """Inches of a row without the heading of its claim."""
    return ROW + LINE * max(_label(row).count("\n") - 1, 0)


def _height(row: Row, before: Row | None) -> float:
    """Inches of a row, with the heading of its claim."""
    return _own_height(row) + (LINE * (1 + _heading(row).count("\n")) + 0.1 if _opens(row, before) else 0.0)


def _draw_unit(axes: Axes, rows: list[Row], height: float) -> None:
    """y is inches below the panel's top."""
    values = [value for row in rows for value in _drawn_values(row.verdict)] + [0.0]
    spare = 0.06 * (max(values) - min(values)) or 1.0
    axes.set_xlim(min(values) - spare, max(values) + spare)
    axes.set_ylim(height, 0)
    across: dict[str, Any] = {"transform": axes.get_yaxis_transform()}  # x as a share of the panel's width
    left, right = -LEFT / MIDDLE, 1 + RIGHT / MIDDLE
    y = 0.0
    for row, before in _pairs(rows):
        lower, own_height = y + _height(row, before), _own_height(row)
        if _opens(row, before):
            if before is not None:
                axes.plot([left, right], [y, y], color=RULE, linewidth=0.8, clip_on=False, zorder=3, **across)
            text_height = lower - own_height - y
            box = Rectangle((0, y), 1, text_height, color="white", linewidth=0, zorder=2, **across)
            axes.add_patch(box)  # no grid behind the claim
            axes.text(left, y + 0.07, _heading(row), va="top", fontsize=8.5, fontweight="bold", **across)
        middle = lower - own_height / 2
        if not row.aside:
            _claimed_side(axes, row, lower - own_height + 0.03, lower - 0.03)
        _draw_row(axes, row.verdict, middle, own_height)
        font: dict[str, Any] = {"fontsize": 8, "fontstyle": "italic" if row.aside else "normal"}
        axes.text(-0.02, middle, _label(row), va="center", ha="right", **font, **across)
        axes.text(1.02, middle, _figures_of(row.verdict), va="center", fontsize=8, **across)
        verdict, colour = f"{MARKS.get(row.kind, '–')} {row.kind}", COLOURS.get(row.kind, MUTED)
        if row.aside:
            verdict, colour = "alongside", MUTED
        axes.text(right - 0.43, middle, verdict, va="center", fontsize=8.5, color=colour, **across)
        y = lower
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(tick)
    axes.grid(axis="x", zorder=0)
    despine(axes, "left")


def _figures_of(verdict: Verdict) -> str:
    """The mean with the interval that decides; its level is named where it is not 95 %."""
    mean, decides = verdict.measured.mean, verdict.measured.interval(verdict.level)
    if decides is None:
        return signed(mean)
    level = "" if verdict.level == LEVEL else f"{100 * verdict.level:.0f} %: "
    return f"{signed(mean)}  ({level}{beside_paper(verdict, *decides)})"


def _drawn_values(verdict: Verdict) -> list[float]:
    hypothesis, measured = verdict.hypothesis, verdict.measured
    values = [*measured.values.values(), *(measured.interval(verdict.level) or ()), hypothesis.threshold]
    values += [hypothesis.paper] if hypothesis.paper is not None else []
    margin = hypothesis.margin if hypothesis.direction == "equal" else None
    return values + ([-margin, margin] if margin is not None else [])


def _claimed_side(axes: Axes, row: Row, top: float, bottom: float) -> None:
    """Shades where the claim would have the difference: a side of the threshold, or the margin of an equivalence."""
    hypothesis, (low, high) = row.verdict.hypothesis, axes.get_xlim()
    if hypothesis.direction == "equal":
        left, right = -(hypothesis.margin or 0.0), hypothesis.margin or 0.0
    else:
        zero, above = hypothesis.threshold, (hypothesis.direction == "greater") != row.against
        left, right = (zero, high) if above else (low, zero)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, color=CLAIMED, linewidth=0, zorder=0.5))


def _draw_row(axes: Axes, verdict: Verdict, y: float, height: float) -> None:
    effect, zero, paper = verdict.measured, verdict.hypothesis.threshold, verdict.hypothesis.paper
    values, interval = list(effect.values.values()), effect.interval(verdict.level)
    axes.plot([zero, zero], [y - height / 2, y + height / 2], color=INK, linewidth=1, zorder=1)
    axes.plot(values, [y - 0.09] * len(values), "o", color=MUTED, markersize=2.6, alpha=0.8, markeredgewidth=0)
    if interval:
        axes.plot(interval, [y, y], color=INK, linewidth=2, solid_capstyle="butt")
    if effect.mean is not None:
        axes.plot([effect.mean], [y], "o", color=INK, markersize=5.5, markeredgecolor="white")
    if paper is not None:
        axes.plot([paper], [y], linestyle="none", markersize=7.5, **PAPER_MARK)


def _legend(drawn: Figure, total: float) -> None:
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=5.5, linewidth=2, label="mean and interval"),
        Line2D([], [], color=MUTED, marker="o", markersize=2.6, linestyle="none", label="one seed"),
        Line2D([], [], linestyle="none", markersize=7.5, label="the paper", **PAPER_MARK),
        Rectangle((0, 0), 1, 1, color=CLAIMED, label="where the claim would have it"),
    ]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1 - 0.36 / total)}
    drawn.legend(handles=handles, ncols=4, handletextpad=0.5, fontsize=8, **place)
