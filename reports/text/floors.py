"""What a report says of a study's masks beside masks that need no features: see reports/stats/floors.py."""

from collections import defaultdict

from reports.analysis import Analysis
from reports.load import StudyResults
from reports.stats.floors import FIGURES, FLOORS, FloorCheck, above, floor_check
from reports.text.labels import NOTHING, and_list, is_of_large, metric_label, number, signed
from reports.text.markup import Marked, emphasis, escape, table


def passed(analysis: Analysis) -> Marked:
    """That the study's masks are worth comparing; "" where they are not, or where nothing was asked for."""
    study, check = analysis.study, floor_check(analysis.study)
    if check is None or not check.passed:
        return Marked("")
    return Marked(
        f"The masks are worth comparing: those of the reference arm, {escape(study.label(check.arm))}, reach "
        f"{_reached(check)}. That is {number(check.above)} points above the better of the two{_images(analysis)}; the "
        f"study asked for {check.margin:g}.{_below(study, check)}"
    )


def withheld(analysis: Analysis) -> Marked:
    """Why there is no verdict; "" where there may be one."""
    study, check = analysis.study, floor_check(analysis.study)
    if check is None or check.passed:
        return Marked("")
    arm = escape(study.label(check.arm))
    if check.above is None:
        return Marked(f"No verdict: the reference arm, {arm}, has no run with masks on true boxes.")
    distance = f"only {short(check)} points above" if check.above > 0 else f"{number(-check.above)} points below"
    return Marked(
        f"No verdict: the reference arm, {arm}, is {distance} masks that need no features{_images(analysis)}; the "
        f"study asked for {check.margin:g}. Its masks reach {_reached(check)}.{_below(study, check)}"
    )


def floor_table(analysis: Analysis) -> Marked:
    """Every arm's masks on true boxes, of all objects and of large ones, and how far they are above the floors."""
    study, check = analysis.study, floor_check(analysis.study)
    figures = [figure for figure in FIGURES if any(above(study, arm, figure) is not None for arm in study.record.arms)]
    if check is None or not figures:
        return Marked("")
    rows: list[list[object]] = []
    for kind, words in FLOORS.items():
        cells = [cell for figure in figures for cell in (number(_floor(study, kind, figure)), NOTHING)]
        rows.append([emphasis(words), *map(emphasis, cells)])
    for arm in study.record.arms:
        cells = []
        for figure in figures:
            distance = signed(above(study, arm, figure))
            if (arm, figure) == (check.arm, check.figure):
                distance += _images(analysis)
            cells += [number(study.mean(arm, f"true_boxes.{figure}")), distance]
        rows.append([study.label(arm), *cells])
    header = [cell for figure in figures for cell in (metric_label(f"true_boxes.{figure}"), "above the better floor")]
    return table(["masks", *header], rows)


def _floor(study: StudyResults, kind: str, figure: str) -> float | None:
    """What a floor reaches. It depends on the ground truth alone: any arm has the same."""
    return next((mean for arm in study.record.arms if (mean := study.mean(arm, f"{kind}.{figure}")) is not None), None)


def _images(analysis: Analysis) -> str:
    noise = analysis.floor_noise
    return "" if noise is None else f" (other images: {signed(noise.low)} to {signed(noise.high)})"


def short(check: FloorCheck) -> str:
    """The distance, with as many decimals as it takes to see that it is below the margin where it is."""
    distance = check.above or 0.0
    return number(
        distance, next((digits for digits in (1, 2, 3) if check.passed or round(distance, digits) < check.margin), 4)
    )


def _reached(check: FloorCheck) -> str:
    floors = " and ".join(f"{number(check.floors[kind])} by {words}" for kind, words in FLOORS.items())
    objects = " of objects of 96 px and more" if is_of_large(check.figure) else ""
    return f"an IoU of {number(check.reached)} on true boxes{objects}, against {floors}"


def _below(study: StudyResults, check: FloorCheck) -> str:
    """A sentence on the other arms that are nearer to the better floor than the margin, with a blank before it.

    Those of a stride are named together where it is all of them.
    """
    if set(check.below) >= set(study.record.arms):
        others = [points for arm, points in check.below.items() if arm != check.arm] or [0.0]
        return f" No other arm is as far above the better floor: {number(min(others))} to {number(max(others))} points."
    by_stride: dict[object, list[str]] = defaultdict(list)
    for arm, description in study.record.arms.items():
        by_stride[description.factors.get("stride")].append(arm)
    parts = []
    for stride, arms in by_stride.items():
        near = [arm for arm in arms if arm in check.below]
        if stride is not None and len(near) == len(arms) > 1:
            ends = min(check.below[arm] for arm in near), max(check.below[arm] for arm in near)
            parts.append(f"every arm of stride {escape(stride)} ({number(ends[0])} to {number(ends[1])} points)")
        else:
            parts += [f"{escape(study.label(arm))} ({number(check.below[arm])})" for arm in near if arm != check.arm]
    return f" Nearer to the better floor than {check.margin:g} points: {and_list(parts)}." if parts else ""
