"""Verdicts as sentences. With a claim, the estimate, its interval, the number of seeds and the paper's value are given,
whatever the verdict is; a report's first sentences give less."""

import re
from collections import Counter

from ablations.records.schema import DIFFERENCE
from reports.analysis import Analysis
from reports.stats.bootstrap import ImageNoise
from reports.stats.paired import ALPHA, LEVEL, MOST_SEEDS, POWER, Verdict, VerdictKind
from reports.text import floors, provenance
from reports.text.labels import (
    and_list,
    arms_of,
    interval,
    is_pair,
    metric_label,
    number,
    p_value,
    plural,
    signed,
    unit_of,
)
from reports.text.markup import Marked, escape

COUNTED = ("inference_cost.parameters_added",)
"""Metrics that are the same for every seed by their nature."""

MARKS: dict[str, str] = {
    "reproduced": "✔",
    "contradicted": "✘",
    "smaller than the paper's": "○",
    "depends on the scale": "◐",
    "undecided": "○",
    "no verdict": "–",
}
PERCENT = f"{100 * LEVEL:.0f} %"


def answer(analysis: Analysis) -> Marked:
    """The report's first sentences: what was measured, the first claim with its verdict, how many came out how.

    They stand above the first picture, so they are short: sources and other images are told with the claims.
    """
    verdicts = analysis.verdicts
    if not verdicts:
        return summary(verdicts)
    first, noise = verdicts[0], analysis.noise.get(verdicts[0].hypothesis.name)
    sentences = [_compared(analysis, first), _stated(first, measured=_in_short(first)), _open(first, noise)]
    sentences += [summary(verdicts)] if len(verdicts) > 1 else []
    return Marked(" ".join(filter(None, sentences)))


def _open(verdict: Verdict, noise: ImageNoise | None) -> str:
    """That other images could turn the sign of a difference; "" where they could not."""
    if noise is None or not is_open_over_images(verdict, noise):
        return ""
    return f"Other images could bring it to the other side of {_zero(verdict)} ({over_images(verdict, noise)})."


def _compared(analysis: Analysis, verdict: Verdict) -> str:
    """The two arms of a claim with what each reaches, the better one first; "" where it compares no two arms."""
    hypothesis, study = verdict.hypothesis, analysis.study
    if not is_pair(hypothesis.contrast) or _unit(verdict) != "points" or DIFFERENCE in hypothesis.metric:
        return ""
    estimate = analysis.estimate(hypothesis.contrast, hypothesis.metric)
    means = {arm: study.mean(arm, hypothesis.metric) for arm in arms_of(hypothesis.contrast)}
    if estimate.mean is None or None in means.values():
        return ""
    plus, minus = arms_of(hypothesis.contrast)
    better, worse = (plus, minus) if estimate.mean >= 0 else (minus, plus)
    metric = metric_label(hypothesis.metric)
    labels = [study.label(arm) for arm in (better, worse)]
    # Names of several words stand in quotation marks.
    plain = all(re.fullmatch(r"\w+", label) for label in labels)
    first, second = (
        f"**{number(means[arm])}** with {escape(label) if plain else f'“{escape(label)}”'}"
        for arm, label in zip((better, worse), labels, strict=True)
    )
    return f"{escape(metric[:1].upper() + metric[1:])}: {first}, {second}."


def summary(verdicts: list[Verdict]) -> Marked:
    """How many claims came out how: "Of 5 claims, 4 are reproduced and 1 is undecided"."""
    if not verdicts:
        return Marked("The study states no hypotheses.")
    counts = Counter(verdict.kind for verdict in verdicts)
    names: dict[VerdictKind, tuple[str, str]] = {
        "reproduced": ("is reproduced", "are reproduced"),
        "contradicted": ("is contradicted", "are contradicted"),
        "depends on the scale": ("depends on the scale", "depend on the scale"),
        "smaller than the paper's": (
            "is undecided but smaller than the paper's",
            "are undecided but smaller than the paper's",
        ),
        "undecided": ("is undecided", "are undecided"),
        "no verdict": ("is without a verdict", "are without a verdict"),
    }
    shares = [f"{counts[kind]} {name[counts[kind] > 1]}" for kind, name in names.items() if counts[kind]]
    if len(shares) == 1:
        every = {1: "The claim", 2: "Both claims"}.get(len(verdicts), f"All {len(verdicts)} claims")
        return Marked(f"{every} {shares[0].partition(' ')[2]}.")
    return Marked(f"Of {plural(len(verdicts), 'claim')}, {and_list(shares)}.")


def sentence(
    verdict: Verdict, family: int, about_slide: bool = False, noise: ImageNoise | None = None, of: str = ""
) -> Marked:
    """A sentence or two about a hypothesis.

    family: how many hypotheses the study tests together. about_slide: the hypothesis is the opposite of what a slide
    says, and the sentence says what that means for the slide. noise: of the images, where it is known. of: the
    difference that was measured, such as "RoIAlign − RoIPool", which tells what a sign means.
    """
    texts = [_stated(verdict, about_slide, noise, of), *_explanation(verdict, family), *_unresolved(verdict, noise)]
    return Marked(" ".join(texts))


def is_open_over_images(verdict: Verdict, noise: ImageNoise) -> bool:
    """Whether other images could turn the sign of a difference; of an equivalence nothing is said."""
    return verdict.hypothesis.direction != "equal" and noise.covers(verdict.hypothesis.threshold)


def _unresolved(verdict: Verdict, noise: ImageNoise | None) -> list[str]:
    """That other images could turn the sign of a difference, and how large it would have to be."""
    if noise is None or not is_open_over_images(verdict, noise):
        return []
    least = ""
    if noise.detectable is not None:
        least = f", and only differences of {number(noise.detectable)} points or more would show"
    return [f"Not resolved over images: that interval covers {_zero(verdict)}{least}."]


def _in_short(verdict: Verdict) -> str:
    """What was measured with its interval, and the paper's value, without more."""
    decides, paper = verdict.measured.interval(verdict.level), verdict.hypothesis.paper
    if verdict.measured.mean is None or decides is None:
        return ""
    between = f"{100 * verdict.level:.0f} % interval {beside_paper(verdict, *decides)}{_against(verdict)}"
    theirs = "" if paper is None else f"; the paper {signed(paper)}"
    return f"**{signed_mean(verdict)}** ({between}{theirs})"


def _stated(
    verdict: Verdict, about_slide: bool = False, noise: ImageNoise | None = None, of: str = "", measured: str = ""
) -> str:
    """The verdict, the claim and what was measured; with these words for it, if any are given."""
    undecided = f"Undecided with {plural(verdict.estimate.n, 'seed')}."
    head = undecided if verdict.kind == "undecided" else f"{verdict.kind[0].upper()}{verdict.kind[1:]}."
    mark = MARKS[verdict.kind]
    if about_slide:
        turned = {"reproduced": ("✘", "Speaks against the slide."), "contradicted": ("✔", "Speaks for the slide.")}
        mark, head = turned.get(verdict.kind, (mark, head))
    claim = escape(verdict.hypothesis.claim.rstrip("."))
    what = f"Measured, {escape(of)}" if of and verdict.measured.mean is not None else "Measured"
    return f"**{mark} {head}** The claim: {claim}. {what}: {measured or _measured(verdict, noise)}."


def reason(verdict: Verdict) -> str:
    """In a word or two, why a verdict is open though its interval excludes 0; "" where it does not, or is not open."""
    interval = verdict.measured.interval(verdict.level)
    if verdict.kind not in ("undecided", "smaller than the paper's") or not interval or interval[0] * interval[1] <= 0:
        return ""
    if verdict.p is not None and verdict.p <= ALPHA:
        return "after correction"
    return "across the margin" if verdict.hypothesis.direction == "equal" else "threshold"


def brief(verdict: Verdict) -> str:
    """What was measured, with its interval: "+18.1 points, 95 % interval +17.2 to +19.0, 5 seeds"."""
    measured = verdict.measured
    if measured.sd == 0:
        return f"{signed_mean(verdict)} in every seed"
    decides = measured.interval(verdict.level)
    between = f", {100 * verdict.level:.0f} % interval {beside_paper(verdict, *decides)}" if decides else ""
    return f"{signed_mean(verdict)}{between}, {plural(measured.n, 'seed')}"


def _measured(verdict: Verdict, noise: ImageNoise | None) -> str:
    """The values as they were measured, not counted from a threshold."""
    measured, decides = verdict.measured, verdict.measured.interval(verdict.level)
    if measured.mean is None:
        return f"no complete seed{_paper(verdict)}"
    if decides is None:
        one = f"{signed_mean(verdict)} from a single complete seed"
        return f"{one}{_images(verdict, noise)}{_paper(verdict)}"
    return (
        f"**{signed_mean(verdict)}** ({100 * verdict.level:.0f} % interval "
        f"{beside_paper(verdict, *decides)}{_against(verdict)}, n = {plural(measured.n, 'seed')}"
        f"{_images(verdict, noise)}{_paper(verdict)})"
    )


def _images(verdict: Verdict, noise: ImageNoise | None) -> str:
    return "" if noise is None else f"; other images {over_images(verdict, noise)}"


def over_images(verdict: Verdict, noise: ImageNoise) -> str:
    """The interval, with as many decimals as it takes to see whether it covers 0, or the threshold."""
    covers, zero = noise.covers(verdict.hypothesis.threshold), verdict.hypothesis.threshold
    seen = (n for n in (1, 2, 3) if (round(noise.low, n) <= zero <= round(noise.high, n)) == covers)
    return interval(noise.low, noise.high, next(seen, 1))


def _against(verdict: Verdict) -> str:
    threshold = verdict.hypothesis.threshold
    return f" against the threshold of {threshold:g} fixed beforehand" if threshold else ""


def _unit(verdict: Verdict) -> str:
    """What the verdict's values are counted in: "points", as the claim says of what, or per cent of something."""
    unit = unit_of(verdict.hypothesis.metric)
    return "points" if unit.startswith("points") else unit


def signed_mean(verdict: Verdict) -> str:
    """What was measured, with its unit: "+18.1 points", "−4.0 % of a mask's area"."""
    return f"{signed(verdict.measured.mean)} {_unit(verdict)}"


def beside_paper(verdict: Verdict, low: float | None, high: float | None) -> str:
    """The interval, with as many decimals as it takes to see on which side of its ends the paper's value lies."""
    paper = verdict.hypothesis.paper
    if low is None or high is None or paper is None or low <= paper <= high:
        return interval(low, high)
    return interval(low, high, next((n for n in (1, 2, 3) if not round(low, n) <= paper <= round(high, n)), 1))


def _zero(verdict: Verdict) -> str:
    return "the threshold" if verdict.hypothesis.threshold else "0"


def _paper(verdict: Verdict) -> str:
    hypothesis = verdict.hypothesis
    source = f", {escape(hypothesis.source)}" if hypothesis.source else ""
    if verdict.not_compared is not None:
        return f"; the paper's {signed(verdict.not_compared)}{source}, is of detectors that find objects themselves"
    if hypothesis.paper is None:
        return ""
    return f"; the paper {signed(hypothesis.paper)}{source}"


def _explanation(verdict: Verdict, family: int) -> list[str]:
    hypothesis, estimate = verdict.hypothesis, verdict.estimate
    if verdict.withheld:
        return ["The study's masks are too near to masks that need no features."]
    if verdict.kind == "no verdict":
        return ["A verdict needs the same metric from at least 2 seeds in every arm that is compared."]
    texts = []
    if estimate.sd == 0:
        equal = "The arms gave the same value in every seed" if estimate.mean == 0 else "Every seed gave the same value"
        reason = (
            "as it is counted and not measured"
            if hypothesis.metric in COUNTED
            else "which is unusual enough to investigate"
        )
        texts.append(f"{equal}, {reason}.")
    if hypothesis.direction == "equal":
        texts.append(_equivalence(verdict))
    elif verdict.kind == "contradicted":
        texts.append(f"The interval lies on the other side of {_zero(verdict)}.")
    elif verdict.kind == "depends on the scale":
        texts.append(_scales(verdict))
    if verdict.kind in ("undecided", "smaller than the paper's"):
        texts += _open_question(verdict, family)
    if verdict.excludes_paper:
        texts.append(_exclusion(verdict))
    if verdict.kind == "undecided":
        texts += _resolution(verdict)
    return texts


def _equivalence(verdict: Verdict) -> str:
    margin, side = f"±{verdict.hypothesis.margin:g} {_unit(verdict)}, the margin fixed beforehand", _side(verdict)
    relation = {1: "lies within", -1: "lies outside"}.get(side, "reaches across")
    level = LEVEL if side < 0 else 1 - 2 * ALPHA
    return f"The {100 * level:.0f} % interval, which decides, {relation} {margin}."


def _side(verdict: Verdict) -> int:
    """Whether the interval that decides lies wholly where the claim has it (1), wholly elsewhere (-1), or neither."""
    hypothesis, whole = verdict.hypothesis, verdict.estimate.interval(LEVEL)
    if whole is None:
        return 0
    if hypothesis.direction == "equal":
        margin, narrow = hypothesis.margin or 0.0, verdict.estimate.interval(1 - 2 * ALPHA) or whole
        beyond = whole[0] > margin or whole[1] < -margin
        return -1 if beyond else int(-margin < narrow[0] and narrow[1] < margin)
    sides = (whole[0] > 0) - (whole[1] < 0)
    return sides if hypothesis.direction == "greater" else -sides


def _scales(verdict: Verdict) -> str:
    """What the scales give that measure all objects of the hypothesis."""
    shown = [
        f"{escape(item.label)} {signed(item.between.mean, item.digits)} "
        f"({interval(item.between.low, item.between.high, item.digits)})"
        for item in verdict.scales
        if not item.is_subset
    ]
    return f"Whether the difference is there, and on which side of 0, depends on the scale: {and_list(shown)}."


def _open_question(verdict: Verdict, family: int) -> list[str]:
    if verdict.p is not None and verdict.p <= ALPHA:
        side = "for" if _side(verdict) > 0 else "against"
        return [
            f"On its own it would count {side} the claim (p = {p_value(verdict.p)}); corrected for the study's "
            f"{family} hypotheses it does not (p = {p_value(verdict.p_corrected)})."
        ]
    return [f"The interval covers {_zero(verdict)}."] if verdict.hypothesis.direction != "equal" else []


def _exclusion(verdict: Verdict) -> str:
    """That the paper's value lies outside the interval, and whether the difference is smaller or larger than it."""
    paper, measured = verdict.hypothesis.paper or 0.0, verdict.measured
    place = "the interval"
    if verdict.level != LEVEL:
        place = f"the {PERCENT} interval, {beside_paper(verdict, measured.low, measured.high)}"
    text = f"The paper's {signed(paper)} lies outside {place}"
    if verdict.kind == "smaller than the paper's":
        return f"{text}: a difference as large is excluded."
    if paper * (measured.mean or 0.0) <= 0:
        return f"{text}."
    return f"{text}: the difference is {'smaller' if abs(measured.mean or 0.0) < abs(paper) else 'larger'} here."


def _resolution(verdict: Verdict) -> list[str]:
    """How many seeds it would take, and what this many can find."""
    needed = verdict.seeds_needed
    if needed is None:
        texts = ["No number of seeds would decide it if mean and spread stay as they are."]
    elif needed > MOST_SEEDS:
        texts = ["It is too close to call."]
    else:
        texts = [f"If mean and spread stay as they are, deciding it would take about {needed} seeds."]
    if verdict.detectable and verdict.hypothesis.direction != "equal":
        texts.append(
            f"With {verdict.estimate.n} seeds a true difference shows up in {100 * POWER:.0f} % of the cases if it is "
            f"at least {verdict.detectable:.1f} {_unit(verdict)}"
            f"{' from the threshold' if verdict.hypothesis.threshold else ''}."
        )
    return texts


def cautions(analysis: Analysis) -> list[Marked]:
    """What a reader must know before trusting a verdict: why there is none, and what is wrong with the runs."""
    withheld = floors.withheld(analysis)
    return [*([withheld] if withheld else []), *provenance.warnings(analysis.study)]
