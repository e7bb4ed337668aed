"""Verdicts on a study's hypotheses; a difference of two differences is looked at on every scale.

Whether one gain is larger than another can depend on the scale: in points it may be, in proportion not, because a weak
arm has less to lose; or at one threshold of IoU and not at another (Loftus 1978, On interpretation of interactions).
Where scales show opposite signs, "larger" has no answer, whatever the hypothesis's own metric says.
"""

import math
from dataclasses import replace

from ablations.records.schema import DIFFERENCE, Hypothesis
from reports.load import StudyResults
from reports.stats.contrasts import Interaction, Weights, contrast_of, interactions, key, paper_contrast
from reports.stats.floors import floor_check
from reports.stats.paired import ALPHA, Estimate, Scale, Verdict, contrast_values, estimate, holm, judge
from reports.text.labels import metric_label

THRESHOLDS, SIZES = ("AP50", "AP75"), ("APs", "APm", "APl")


def verdicts(study: StudyResults) -> list[Verdict]:
    """Verdicts on the study's hypotheses, in their order; none where its reference arm is too near to the floors."""
    judged = judge([(_compared(study, item), from_threshold(study, item)) for item in study.record.hypotheses])
    if study.boxes_are_given:
        stated = [item.paper for item in study.record.hypotheses]
        judged = [replace(item, not_compared=paper) for item, paper in zip(judged, stated, strict=True)]
    check = floor_check(study)
    if check is not None and not check.passed:
        return [
            replace(item, kind="no verdict", withheld=True, p=None, p_corrected=None, seeds_needed=None)
            for item in judged
        ]
    crossed = {(key(item.weights), item.metric): item for item in interactions(study)}
    return [
        _on_every_scale(study, verdict, crossed.get((key(verdict.hypothesis.contrast), verdict.hypothesis.metric)))
        for verdict in judged
    ]


def _compared(study: StudyResults, hypothesis: Hypothesis) -> Hypothesis:
    """Without the paper's value where boxes are given: it is of whole detectors, and measures something else."""
    return replace(hypothesis, paper=None) if study.boxes_are_given else hypothesis


def from_threshold(study: StudyResults, hypothesis: Hypothesis) -> Estimate:
    """A hypothesis's contrast, counted from its threshold: the claim is about its sign."""
    values = contrast_of(study, hypothesis.contrast, hypothesis.metric).values
    return estimate({seed: value - hypothesis.threshold for seed, value in values.items()})


def _on_every_scale(study: StudyResults, verdict: Verdict, item: Interaction | None) -> Verdict:
    if item is None or verdict.kind == "no verdict":
        return verdict
    measured = scales(study, item)
    if opposed(measured):
        return replace(verdict, kind="depends on the scale", seeds_needed=None, scales=measured)
    return replace(verdict, scales=measured)


def scales(study: StudyResults, item: Interaction) -> tuple[Scale, ...]:
    """An interaction in its own metric, as a ratio, and, if it is about AP, at two thresholds and by size.

    Those that fewer than two seeds define are left out.
    """
    if DIFFERENCE in item.metric:
        return ()
    kind, _, name = item.metric.partition(".")
    others = [*THRESHOLDS, *SIZES] if name == "AP" else []
    metrics = [f"{kind}.{other}" for other in others]
    scales = [_in_points(study, item, metric) for metric in [item.metric, *metrics]]
    scales.insert(1, _as_ratio(study, item))
    return tuple(scale for scale in scales if scale.between.sd is not None)


def opposed(measured: tuple[Scale, ...]) -> bool:
    """Whether two scales show effects of opposite sign, each resolved after Holm's correction for their number."""
    tested = [scale.between for scale in measured if not scale.is_subset and scale.between.p is not None]
    corrected = holm([[effect.p or 0.0] for effect in tested])
    signs = {math.copysign(1, effect.mean or 0.0) for effect, [p] in zip(tested, corrected, strict=True) if p <= ALPHA}
    return len(signs) == 2


def _in_points(study: StudyResults, item: Interaction, metric: str) -> Scale:
    return Scale(
        metric_label(metric),
        contrast_of(study, item.first, metric),
        contrast_of(study, item.second, metric),
        contrast_of(study, item.weights, metric),
        paper_contrast(study, item.weights, metric),
        is_subset=metric != item.metric and metric.endswith(SIZES),
    )


def _as_ratio(study: StudyResults, item: Interaction) -> Scale:
    """In logarithms: a difference is then the logarithm of a ratio, and an interaction compares two ratios."""
    values = {
        arm: {seed: math.log(value) for seed, value in study.values(arm, item.metric).items() if value > 0}
        for arm in item.weights
    }
    paper = {arm: study.record.arms[arm].paper.get(item.metric) for arm in item.weights if not study.boxes_are_given}
    known = {arm: {0: math.log(value)} for arm, value in paper.items() if value is not None and value > 0}

    def contrast(weights: Weights) -> Estimate:
        return estimate(contrast_values(weights, values))

    return Scale(
        f"log ratio of {metric_label(item.metric)}",
        contrast(item.first),
        contrast(item.second),
        contrast(item.weights),
        contrast_values(item.weights, known).get(0),
        digits=2,
    )
