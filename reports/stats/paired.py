"""Paired statistics over seeds: intervals, verdicts on hypotheses, and what the seeds at hand can resolve.

Arms are compared within a seed, because a seed fixes the images, their order and the initial weights of all arms. What
varies from seed to seed is then one number per seed (a difference, or a difference of differences), and Student's t
gives its interval. The seeds are never bootstrapped: with five of them a percentile interval is far too narrow.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from ablations.records.schema import Hypothesis

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8  # of the studies with the stated number of seeds, this share would find the effect
MOST_SEEDS = 50
"""Beyond this a claim is too close to call. A difference that takes more seeds is less than 0.4 of its own standard
deviation. The images and the one backbone that all seeds share can do as much, and no seeds average them out."""

VerdictKind = Literal[
    "reproduced", "contradicted", "smaller than the paper's", "depends on the scale", "undecided", "no verdict"
]


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

    def shifted(self, by: float) -> "Estimate":
        """The same with `by` added to every value; p stays what it was, of the mean before."""
        mean, low, high = (None if value is None else value + by for value in (self.mean, self.low, self.high))
        values = {seed: value + by for seed, value in self.values.items()}
        return replace(self, values=values, mean=mean, low=low, high=high)


@dataclass(frozen=True)
class Scale:
    """A difference of two differences, as it comes out on one scale or for objects of one size.

    first, second: the two differences; between: the second minus the first.
    paper:      the same of the paper's values, where it gives them.
    digits:     after the decimal point, when it is written.
    is_subset:  whether it is about a part of the objects, by size. It is then no other scale for the same question.
    """

    label: str
    first: Estimate
    second: Estimate
    between: Estimate
    paper: float | None = None
    digits: int = 1
    is_subset: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about a hypothesis.

    estimate:     of the contrast, counted from the hypothesis's threshold.
    p:            of the test that decides: two-sided t; of an equivalence the two one-sided tests where the mean lies
                  within the margin, and the test of the opposite where it lies outside.
    p_corrected:  the same after Holm's correction over the study's hypotheses; it decides.
    seeds_needed: seeds for `POWER` if mean and spread stay as measured, only where undecided; MOST_SEEDS + 1
                  means more than MOST_SEEDS, None that no number of seeds would do.
    detectable:   the smallest true difference that this number of seeds finds with `POWER`, given the measured spread.
    scales:       of a difference of two differences: how it comes out on every scale.
    not_compared: the paper's value where it measures something else; the hypothesis is then without one.
    withheld:     whether there is no verdict because the study's masks are too near to the floors (see floors.py).
    """

    hypothesis: Hypothesis
    kind: VerdictKind
    estimate: Estimate
    p: float | None = None
    p_corrected: float | None = None
    seeds_needed: int | None = None
    detectable: float | None = None
    scales: tuple[Scale, ...] = ()
    withheld: bool = False
    not_compared: float | None = None

    @property
    def measured(self) -> Estimate:
        """The estimate as it was measured, not counted from the threshold."""
        return self.estimate.shifted(self.hypothesis.threshold)

    @property
    def paper(self) -> float | None:
        """The paper's value, counted from the hypothesis's threshold as the estimate is."""
        value = self.hypothesis.paper
        return None if value is None else value - self.hypothesis.threshold

    @property
    def level(self) -> float:
        """The level of the interval that goes with the test: two one-sided tests at 5 % are an interval of 90 %; the
        opposite of an equivalence is tested on both sides, as a difference is."""
        is_equality = self.hypothesis.direction == "equal" and self.kind != "contradicted"
        return 1 - 2 * ALPHA if is_equality else LEVEL

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that decides, before the correction for the number of claims; None with fewer than two seeds."""
        return self.estimate.interval(self.level)

    @property
    def excludes_paper(self) -> bool:
        """Whether the paper's value lies outside the interval at level `LEVEL`, if seeds differ at all."""
        interval, paper = self.estimate.interval(), self.paper
        return (
            bool(self.estimate.sd)
            and interval is not None
            and paper is not None
            and not (interval[0] <= paper <= interval[1])
        )


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


def holm(claims: Sequence[Sequence[float]]) -> list[list[float]]:
    """Holm's step-down correction: the chance of even one false verdict in the family stays below the level.

    claims: the p values of each claim's tests, one of a difference, two of an equivalence (equal; different).

    A test's p is multiplied by the number of null hypotheses that can still be true together when its turn comes: one
    for each difference not tested yet, and one for each equivalence, always, because exactly one of its two is true
    (Shaffer 1986, Modified sequentially rejective multiple test procedures). Without equivalences, it is Holm's method.
    """
    order = sorted((p, index, test) for index, tests in enumerate(claims) for test, p in enumerate(tests))
    corrected = [[1.0] * len(tests) for tests in claims]
    tested: set[int] = set()
    running = 0.0
    for p, index, test in order:
        running = max(running, min(1.0, (len(claims) - len(tested)) * p))
        corrected[index][test] = running
        if len(claims[index]) == 1:
            tested.add(index)
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
    contradicted when it is on the other side. Of an open one the interval may still exclude a difference as large as
    the paper's.

    An equivalence has three possible verdicts and two tests (Goeman, Solari and Stijnen 2010, Three-sided hypothesis
    testing). It is reproduced when two one-sided tests show the mean to lie within the margin, and contradicted when a
    two-sided test shows it to lie outside. Each test has the whole level: the mean lies either within or outside, so
    only one of the two can err. But the smaller of their p values is a p value of neither test and is not taken for
    one: each is corrected by itself.
    """
    tests = [_tests_of(hypothesis, difference) for hypothesis, difference in hypotheses]
    corrected = holm([[1.0] if p_values is None else p_values for p_values in tests])
    num_open = sum(len(p_values) > 1 or p_values[0] > ALPHA for p_values in corrected)
    verdicts = []
    for (hypothesis, difference), p_values, adjusted in zip(hypotheses, tests, corrected, strict=True):
        if p_values is None or difference.mean is None:
            verdicts.append(Verdict(hypothesis, "no verdict", difference))
            continue
        test = int(hypothesis.direction == "equal" and abs(difference.mean) >= (hypothesis.margin or 0.0))
        verdicts.append(_verdict(hypothesis, difference, p_values[test], adjusted[test], ALPHA / max(1, num_open)))
    return verdicts


def _tests_of(hypothesis: Hypothesis, difference: Estimate) -> list[float] | None:
    """The p values of a claim's tests, see `holm`; None with fewer than two seeds."""
    if hypothesis.direction != "equal":
        return None if difference.p is None else [difference.p]
    if hypothesis.margin is None:
        raise ValueError(
            f"hypothesis '{hypothesis.name}' claims an equivalence: expected a margin in points, got none; "
            f"state it in the study's configuration"
        )
    within, beyond = equivalence_p(difference, hypothesis.margin), beyond_p(difference, hypothesis.margin)
    return None if within is None or beyond is None else [within, beyond]


def _verdict(hypothesis: Hypothesis, difference: Estimate, p: float, corrected: float, level_left: float) -> Verdict:
    """level_left: the level at which Holm's procedure tests the first hypothesis that is still open."""
    mean, margin = difference.mean or 0.0, hypothesis.margin if hypothesis.direction == "equal" else None
    as_stated = abs(mean) < margin if margin is not None else (mean > 0) == (hypothesis.direction == "greater")
    judged = Verdict(
        hypothesis,
        "reproduced" if as_stated else "contradicted",
        difference,
        p,
        corrected,
        detectable=detectable_effect(difference.sd, difference.n),
    )
    if corrected <= ALPHA:
        return judged
    if margin is None and _is_smaller(judged):
        return replace(judged, kind="smaller than the paper's")
    return replace(judged, kind="undecided", seeds_needed=seeds_needed(difference, margin, level_left))


def _is_smaller(verdict: Verdict) -> bool:
    """Whether the paper's value lies outside the interval, further than the mean on the claimed side of 0."""
    claimed = -1 if verdict.hypothesis.direction == "less" else 1
    paper, mean = verdict.paper, verdict.estimate.mean
    return verdict.excludes_paper and paper is not None and mean is not None and claimed * paper > claimed * mean


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
