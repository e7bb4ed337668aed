"""Verdicts as sentences. A sentence always carries the estimate, its interval, the number of seeds and the paper's
figure, whatever the verdict is."""

from collections import Counter

from reports.analysis import Analysis
from reports.stats.contrasts import Interaction
from reports.stats.paired import ALPHA, LEVEL, MOST_SEEDS, POWER, Verdict, VerdictKind
from reports.text.labels import (
    and_list,
    context_label,
    contrast_label,
    interval,
    metric_label,
    p_value,
    plural,
    signed,
)

MARKS = {"reproduced": "✔", "contradicted": "✘", "not resolvable": "○", "no verdict": "–"}
PERCENT = f"{100 * LEVEL:.0f} %"


def sentence(verdict: Verdict, family: int) -> str:
    """One Markdown sentence or two about a hypothesis. family: how many hypotheses the study tests together."""
    hypothesis, found = verdict.hypothesis, verdict.estimate
    head = {
        "reproduced": "Reproduced.",
        "contradicted": "Contradicted.",
        "not resolvable": f"Not resolvable with {plural(found.n, 'seed')}.",
        "no verdict": "No verdict.",
    }[verdict.kind]
    text = f"**{MARKS[verdict.kind]} {head}** {hypothesis.claim.rstrip('.')}: {_measured(verdict)}."
    return " ".join([text, *_explanation(verdict, family)])


def _measured(verdict: Verdict) -> str:
    found = verdict.estimate
    if found.mean is None:
        return f"no complete seed{_paper(verdict)}"
    if found.low is None:
        return f"{signed(found.mean)} points from a single complete seed{_paper(verdict)}"
    return (
        f"**{signed(found.mean)} points**{_counted_from(verdict)} "
        f"({PERCENT} interval {interval(found.low, found.high)}, n = {plural(found.n, 'seed')}{_paper(verdict, '; ')})"
    )


def _counted_from(verdict: Verdict) -> str:
    threshold = verdict.hypothesis.threshold
    return f" counted from {threshold:g}, the threshold fixed beforehand" if threshold else ""


def _zero(verdict: Verdict) -> str:
    return "the threshold" if verdict.hypothesis.threshold else "0"


def _paper(verdict: Verdict, before: str = "; ") -> str:
    hypothesis = verdict.hypothesis
    if hypothesis.paper is None:
        return f"{before}the paper gives no figure"
    return f"{before}the paper {signed(hypothesis.paper)}" + (f", {hypothesis.source}" if hypothesis.source else "")


def _explanation(verdict: Verdict, family: int) -> list[str]:
    hypothesis, found = verdict.hypothesis, verdict.estimate
    if verdict.kind == "no verdict":
        return ["A verdict needs the same figure from at least 2 seeds in every arm that is compared."]
    parts = []
    if found.sd == 0:
        equal = (
            "The arms gave the same figure in every seed" if found.mean == 0 else "Every seed gave the same difference"
        )
        parts.append(f"{equal}, which is rare enough to be looked into.")
    if hypothesis.direction == "equal":
        parts.append(_equivalence(verdict))
    elif verdict.kind == "contradicted":
        parts.append(f"The interval lies on the other side of {_zero(verdict)}.")
    if verdict.kind == "not resolvable":
        parts += _open_question(verdict, family)
    return parts


def _equivalence(verdict: Verdict) -> str:
    margin = f"±{verdict.hypothesis.margin:g} points, the margin fixed beforehand"
    return {
        "reproduced": f"Two one-sided tests place the difference within {margin}.",
        "contradicted": f"The difference is shown to lie outside {margin}.",
    }.get(verdict.kind, f"The seeds show neither that the difference lies within {margin}, nor that it lies outside.")


def _open_question(verdict: Verdict, family: int) -> list[str]:
    found, parts = verdict.estimate, []
    if verdict.p is not None and verdict.p <= ALPHA:
        parts.append(
            f"Alone it would count (p = {p_value(verdict.p)}); corrected for the study's {family} hypotheses it does "
            f"not (p = {p_value(verdict.p_corrected)})."
        )
    elif verdict.hypothesis.direction != "equal":
        parts.append(f"The interval covers {_zero(verdict)}.")
    if verdict.seeds_needed is None:
        parts.append("No number of seeds would decide it if mean and spread stay as they are.")
    else:
        many = verdict.seeds_needed > MOST_SEEDS
        count = f"more than {MOST_SEEDS}" if many else f"about {verdict.seeds_needed}"
        parts.append(f"If mean and spread stay as they are, deciding it would take {count} seeds.")
    if verdict.detectable and verdict.hypothesis.direction != "equal":
        parts.append(
            f"With {found.n} seeds a true difference shows up in {100 * POWER:.0f} % of the cases if it is at least "
            f"{verdict.detectable:.1f} points."
        )
    return parts


def summary(verdicts: list[Verdict]) -> str:
    """How many claims came out how: "Of 5 claims, 4 are reproduced and 1 is not resolvable"."""
    if not verdicts:
        return "The study states no hypotheses."
    counts = Counter(verdict.kind for verdict in verdicts)
    names: dict[VerdictKind, str] = {
        "reproduced": "reproduced",
        "contradicted": "contradicted",
        "not resolvable": "not resolvable",
        "no verdict": "without a verdict",
    }
    parts = [
        f"{counts[kind]} {'is' if counts[kind] == 1 else 'are'} {name}" for kind, name in names.items() if counts[kind]
    ]
    return f"Of {plural(len(verdicts), 'claim')}, {and_list(parts)}."


def interaction(analysis: Analysis, item: Interaction) -> str:
    """The two differences, and by how much the second exceeds the first."""
    study = analysis.study
    first, second, between = (
        analysis.estimate(weights, item.metric) for weights in (item.first, item.second, item.weights)
    )
    if between.mean is None:
        return "There are not enough runs for this comparison yet."
    paper = analysis.paper(item.weights, item.metric)
    return (
        f"{contrast_label(study, item.first).split(', ')[0]} in {metric_label(item.metric)}: "
        f"{signed(first.mean)} points at {context_label(study, item.first)}, {signed(second.mean)} at "
        f"{context_label(study, item.second)}. The second exceeds the first by **{signed(between.mean)} points** "
        f"({PERCENT} interval {interval(between.low, between.high)}, n = {plural(between.n, 'seed')}"
        + (f"; the paper {signed(paper)}" if paper is not None else "")
        + ")."
    )
