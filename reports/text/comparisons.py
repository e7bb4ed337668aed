"""Sentences about several differences at once: how one differs from another, and of which others it is the sum."""

from itertools import permutations

from reports.analysis import Analysis
from reports.stats.contrasts import Interaction
from reports.text.labels import (
    arms_of,
    context_label,
    difference_label,
    interval,
    metric_label,
    number,
    plural,
    signed,
)
from reports.text.markup import Marked, escape
from reports.text.wording import PERCENT


def interaction(analysis: Analysis, item: Interaction) -> Marked:
    """The two differences, and by how much the second exceeds the first."""
    study = analysis.study
    first, second, between = (
        analysis.estimate(weights, item.metric) for weights in (item.first, item.second, item.weights)
    )
    if between.mean is None:
        return Marked("There are not enough runs for this comparison yet.")
    paper = analysis.paper(item.weights, item.metric)
    return Marked(
        f"{escape(difference_label(study, item.first))} in {escape(metric_label(item.metric))}: "
        f"{signed(first.mean)} points at {escape(context_label(study, item.first))}, {signed(second.mean)} at "
        f"{escape(context_label(study, item.second))}. The second minus the first: **{signed(between.mean)} points** "
        f"({PERCENT} interval {interval(between.low, between.high)}, n = {plural(between.n, 'seed')}"
        + (f"; the paper {signed(paper)}" if paper is not None else "")
        + ")."
    )


def shares(analysis: Analysis) -> list[Marked]:
    """Where a difference is the sum of two others of the study, how much of it each of them makes up."""
    label, metric, texts = analysis.study.label, analysis.primary, []
    pairs = {arms_of(weights): analysis.estimate(weights, metric).mean for weights in analysis.differences}
    for top, middle, bottom in permutations(analysis.study.record.arms, 3):
        whole, upper, lower = (pairs.get(pair) for pair in ((top, bottom), (top, middle), (middle, bottom)))
        if whole is None or upper is None or lower is None or not whole or min(upper / whole, lower / whole) < 0:
            continue
        texts.append(
            Marked(
                f"“{escape(label(top))}” scores {signed(whole)} points of {escape(metric_label(metric))} against "
                f"“{escape(label(bottom))}”. **{number(abs(upper))} of them ({100 * upper / whole:.0f} %)** remain "
                f"against “{escape(label(middle))}”; the other {number(abs(lower))} ({100 * lower / whole:.0f} %) are "
                f"“{escape(label(middle))}” against “{escape(label(bottom))}”."
            )
        )
    return texts
