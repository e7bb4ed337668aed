"""Which arms of a study are compared with which, read off its hypotheses; nothing here knows any study by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.records.schema import DIFFERENCE
from reports.load import StudyResults
from reports.stats.paired import Estimate, contrast_values, estimate
from reports.text.labels import MINUS, arms_of, context_label, contrast_label, is_pair

Weights = Mapping[str, float]
Key = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Interaction:
    """A difference of two differences: `second` minus `first`, each (arm with plus, arm with minus)."""

    first: dict[str, float]
    second: dict[str, float]
    weights: dict[str, float]
    metric: str


def key(weights: Weights) -> Key:
    """What equal contrasts share, in whatever order they name their arms."""
    return tuple(sorted(weights.items()))


def contrast_of(study: StudyResults, weights: Weights, metric: str) -> Estimate:
    """The contrast's paired estimate over the seeds in which all of its arms are done and the metric is defined."""
    return estimate(contrast_values(weights, {arm: study.values(arm, metric) for arm in weights}))


def paper_contrast(study: StudyResults, weights: Weights, metric: str) -> float | None:
    """The same contrast of the paper's values, where it gives them for every arm and they can be compared."""
    if study.boxes_are_given:
        return None
    if DIFFERENCE in metric:
        minuend, subtrahend = (paper_contrast(study, weights, term) for term in metric.rsplit(DIFFERENCE, 1))
        return None if minuend is None or subtrahend is None else round(minuend - subtrahend, 6)
    values = [(weight, study.record.arms[arm].paper.get(metric)) for arm, weight in weights.items()]
    if any(value is None for _, value in values):
        return None
    return round(sum(weight * value for weight, value in values if value is not None), 6)


def differences(study: StudyResults) -> list[Weights]:
    """The distinct differences of two arms that the hypotheses name, in order; of one and its reverse, the first.

    Where a study has hypotheses on none, every other arm is compared with the first.
    """
    pairs = [dict(item.contrast) for item in study.record.hypotheses if is_pair(item.contrast)]
    if not pairs:
        arms = list(study.record.arms)
        pairs = [{arm: 1.0, arms[0]: -1.0} for arm in arms[1:]]
    distinct: dict[frozenset[str], Weights] = {}
    for weights in pairs:
        distinct.setdefault(frozenset(weights), weights)
    return list(distinct.values())


def interactions(study: StudyResults) -> list[Interaction]:
    """The hypotheses' differences of two differences, split into the two so that each is a difference of its own."""
    known = [arms_of(weights) for weights in differences(study)]
    crossed = []
    for item in study.record.hypotheses:
        plus = [arm for arm, weight in item.contrast.items() if weight == 1]
        minus = [arm for arm, weight in item.contrast.items() if weight == -1]
        if len(plus) != 2 or len(minus) != 2 or len(item.contrast) != 4:
            continue
        splits = [
            ((one, two), (other_two, other_one))
            for one, other_one in (plus, plus[::-1])
            for two, other_two in (minus, minus[::-1])
        ]
        # Among the ways to write the contrast, take the one whose differences the study asks about by themselves.
        second, first = max(splits, key=lambda split: (split[0] in known) + ((split[1][0], split[1][1]) in known))
        crossed.append(
            Interaction(
                first={first[0]: 1.0, first[1]: -1.0},
                second={second[0]: 1.0, second[1]: -1.0},
                weights=dict(item.contrast),
                metric=item.metric,
            )
        )
    return crossed


def label_of(study: StudyResults, known: Sequence[Interaction], weights: Weights) -> str:
    """A contrast in words; one of the `known` interactions as "RoIAlign − RoIPool, stride 32 − stride 16"."""
    for item in known:
        if item.weights == dict(weights):
            head = contrast_label(study, item.second).split(", ")[0]
            contexts = [context_label(study, weights) for weights in (item.second, item.first)]
            if not any(head in context for context in contexts):
                return f"{head}, {contexts[0]} {MINUS} {contexts[1]}"
    return contrast_label(study, weights)


def primary_metric(study: StudyResults) -> str:
    """What the headline chart shows: the metric of the first hypothesis on two arms, else of the first one."""
    hypotheses = study.record.hypotheses
    pairs = [hypothesis for hypothesis in hypotheses if is_pair(hypothesis.contrast)]
    return next((hypothesis.metric for hypothesis in [*pairs, *hypotheses]), "segm.AP")
