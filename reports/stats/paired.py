"""Paired statistics over seeds: intervals, verdicts on hypotheses, and what the seeds at hand can resolve.

Arms are compared within a seed, because a seed fixes the images, their order and the initial weights of all arms. What
varies from seed to seed is then one number per seed (a difference, or a difference of differences), and Student's t
gives its interval. The seeds are never bootstrapped: with five of them a percentile interval is far too narrow.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from ablations.records.schema import Hypothesis

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8  # of the studies with the stated number of seeds, this share would find the effect
MOST_SEEDS = 100  # beyond this a claim is too close to call

VerdictKind = Literal["reproduced", "contradicted", "not resolvable", "no verdict"]


@dataclass(frozen=True)
class Estimate:
    """A contrast over seeds, in the metric's units. Fields are None where the seeds do not define them.

    values: seed -> the contrast's value in that seed.
    low, high: the paired t interval at level `LEVEL`; p: two-sided, of the mean being 0.
    """

    values: dict[int, float]
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    p: float | None

    @property
    def n(self) -> int:
        return len(self.values)

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The paired t interval at another level; None with fewer than two seeds."""
        if self.mean is None or self.sd is None:
            return None
        half = float(stats.t.ppf((1 + level) / 2, self.n - 1)) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about a hypothesis.

    p:            of the test that decides (two-sided t, or the two one-sided tests of an equivalence).
    p_corrected:  the same after Holm's correction over the study's hypotheses; it decides.
    seeds_needed: seeds for `POWER` if mean and spread stay as measured, only where not resolvable; MOST_SEEDS + 1
                  means more than MOST_SEEDS, None that no number of seeds would do.
    detectable:   the smallest true difference that this number of seeds finds with `POWER`, given the measured spread.
    """

    hypothesis: Hypothesis
    kind: VerdictKind
    estimate: Estimate
    p: float | None = None
    p_corrected: float | None = None
    seeds_needed: int | None = None
    detectable: float | None = None

    @property
    def paper(self) -> float | None:
        """The paper's value, counted from the hypothesis's threshold as the estimate is."""
        value = self.hypothesis.paper
        return None if value is None else value - self.hypothesis.threshold

    @property
    def level(self) -> float:
        """Of the interval that goes with the test: two one-sided tests at 5 % are an interval of 90 %."""
        return 1 - 2 * ALPHA if self.hypothesis.direction == "equal" else LEVEL

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that decides, before the correction for the number of claims; None with fewer than two seeds."""
        return self.estimate.interval(self.level)


def contrast_values(weights: Mapping[str, float], by_arm: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Seed -> sum over arms of weight x value, over the seeds in which every arm has a value."""
    shared = set.intersection(*(set(by_arm.get(arm, {})) for arm in weights)) if weights else set()
    return {seed: math.fsum(weight * by_arm[arm][seed] for arm, weight in weights.items()) for seed in sorted(shared)}


def estimate(values: Mapping[int, float], level: float = LEVEL) -> Estimate:
    """Mean over seeds with Student's t interval. Equal values give an interval of no width (and p of 0 or 1)."""
    sample = np.array(list(values.values()), dtype=float)
    count = len(sample)
    if count == 0:
        return Estimate({}, None, None, None, None, None)
    mean = float(sample.mean())
    if count == 1:
        return Estimate(dict(values), mean, None, None, None, None)
    sd = _spread(sample)
    if sd == 0:
        return Estimate(dict(values), mean, 0.0, mean, mean, 1.0 if abs(mean) < 1e-12 else 0.0)
    error = sd / math.sqrt(count)
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return Estimate(dict(values), mean, sd, mean - half, mean + half, p)


def equivalence_p(difference: Estimate, margin: float) -> float | None:
    """p of two one-sided t tests: small when the mean is shown to lie within +-margin."""
    if difference.mean is None or difference.sd is None:
        return None
    if difference.sd == 0:
        return 0.0 if abs(difference.mean) < margin else 1.0
    error = difference.sd / math.sqrt(difference.n)
    return float(stats.t.sf((margin - abs(difference.mean)) / error, difference.n - 1))


def beyond_p(difference: Estimate, margin: float) -> float | None:
    """p of a two-sided t test: small when the mean is shown to lie outside +-margin."""
    if difference.mean is None or difference.sd is None:
        return None
    if difference.sd == 0:
        return 0.0 if abs(difference.mean) > margin else 1.0
    error = difference.sd / math.sqrt(difference.n)
    return float(min(1.0, 2 * stats.t.sf((abs(difference.mean) - margin) / error, difference.n - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of even one false verdict in the family stays below the level."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def power_of_t(effect: float, sd: float, count: int, alpha: float = ALPHA) -> float:
    """Chance that a two-sided t test on `count` paired differences finds a true mean of `effect`."""
    critical = stats.t.ppf(1 - alpha / 2, count - 1)
    shift = effect / sd * math.sqrt(count)
    # scipy gives NaN for tails that are too thin to compute.
    tails = stats.nct.sf(critical, count - 1, abs(shift)), stats.nct.cdf(-critical, count - 1, abs(shift))
    return float(np.nansum(tails))


def power_of_equivalence(mean: float, sd: float, count: int, margin: float, alpha: float = ALPHA) -> float:
    """Chance that the two one-sided tests find equivalence (by the usual noncentral-t approximation)."""
    critical = stats.t.ppf(1 - alpha, count - 1)
    error = sd / math.sqrt(count)
    below = stats.nct.sf(critical, count - 1, (margin - mean) / error)
    above = stats.nct.cdf(critical, count - 1, (margin + mean) / error)
    return float(max(0.0, np.nan_to_num(below) - np.nan_to_num(above)))


def seeds_needed(difference: Estimate, margin: float | None = None, alpha: float = ALPHA) -> int | None:
    """The number of seeds with which the verdict would come in `POWER` of the cases, if mean and spread stay.

    With a margin, for an equivalence, or for its opposite when the mean lies outside the margin. None when no number
    would do (a mean of exactly 0, or exactly on the margin). alpha: the level of the test, smaller in a family.
    """
    if difference.mean is None or difference.sd is None:
        return None
    size = abs(difference.mean)
    if difference.sd == 0:
        return None if size == (margin or 0.0) else 2

    if size == (margin or 0.0):
        return None
    if margin is None or size > margin:
        return seeds_for(size - (margin or 0.0), difference.sd, alpha)
    spread = difference.sd
    return _first(lambda count: power_of_equivalence(size, spread, count, margin, alpha) >= POWER)


def seeds_for(effect: float, sd: float, alpha: float = ALPHA) -> int:
    """The number of seeds that find a true mean of `effect` with `POWER`; MOST_SEEDS + 1 for more than MOST_SEEDS."""
    return _first(lambda count: power_of_t(effect, sd, count, alpha) >= POWER)


def detectable_effect(sd: float | None, count: int) -> float | None:
    """The smallest true difference that `count` seeds find with `POWER`, given the spread `sd`."""
    if sd is None or count < 2:
        return None
    if sd == 0:
        return 0.0
    low, high = 0.0, sd
    while power_of_t(high, sd, count) < POWER:
        high *= 2
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of_t(middle, sd, count) >= POWER else (middle, high)
    return high


def judge(hypotheses: Sequence[tuple[Hypothesis, Estimate]]) -> list[Verdict]:
    """Verdicts on a study's hypotheses, tested as one family (Holm).

    Hypotheses that cannot be tested yet count towards the family: a study half done is not judged more mildly.
    A difference is reproduced when its corrected p is at most `ALPHA` and its mean on the stated side of 0, and
    contradicted when it is on the other side. An equivalence is reproduced when the mean is shown to lie within the
    margin and contradicted when it is shown to lie outside.
    """
    p_values = [_p_of(hypothesis, difference) for hypothesis, difference in hypotheses]
    corrected = holm([1.0 if p is None else p for p in p_values])
    undecided = max(1, sum(p > ALPHA for p in corrected))
    return [
        _verdict(hypothesis, difference, p_values[index], corrected[index], ALPHA / undecided)
        for index, (hypothesis, difference) in enumerate(hypotheses)
    ]


def _p_of(hypothesis: Hypothesis, difference: Estimate) -> float | None:
    if hypothesis.direction != "equal":
        return difference.p
    if hypothesis.margin is None:
        raise ValueError(
            f"hypothesis '{hypothesis.name}' claims an equivalence: expected a margin in points, got none; "
            f"state it in the study's configuration"
        )
    within, beyond = equivalence_p(difference, hypothesis.margin), beyond_p(difference, hypothesis.margin)
    return None if within is None or beyond is None else min(within, beyond)


def _verdict(
    hypothesis: Hypothesis, difference: Estimate, p: float | None, corrected: float, level_left: float
) -> Verdict:
    """level_left: the level at which Holm's procedure tests the first hypothesis that is still open."""
    if p is None or difference.mean is None:
        return Verdict(hypothesis, "no verdict", difference)
    detectable = detectable_effect(difference.sd, difference.n)
    if corrected > ALPHA:
        needed = seeds_needed(difference, hypothesis.margin if hypothesis.direction == "equal" else None, level_left)
        return Verdict(hypothesis, "not resolvable", difference, p, corrected, needed, detectable)
    if hypothesis.direction == "equal":
        as_stated = abs(difference.mean) < (hypothesis.margin or 0.0)
    else:
        as_stated = (difference.mean > 0) == (hypothesis.direction == "greater")
    return Verdict(
        hypothesis, "reproduced" if as_stated else "contradicted", difference, p, corrected, None, detectable
    )


def _spread(sample: np.ndarray) -> float:
    """Standard deviation, with what is only rounding of equal values taken for 0."""
    sd = float(sample.std(ddof=1))
    return 0.0 if sd <= 1e-9 * max(1.0, float(np.abs(sample).max())) else sd


def _first(enough: Callable[[int], bool]) -> int:
    """The smallest count from 2 to MOST_SEEDS for which `enough` holds, or MOST_SEEDS + 1; `enough` is monotone."""
    low, high = 2, MOST_SEEDS + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
