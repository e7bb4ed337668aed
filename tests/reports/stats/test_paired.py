"""Statistics against scipy, hand-worked cases, and their own promises (coverage, family-wise error)."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations.records.schema import Hypothesis
from reports.stats.paired import (
    MOST_SEEDS,
    beyond_p,
    contrast_values,
    detectable_effect,
    equivalence_p,
    estimate,
    holm,
    judge,
    power_of_t,
    seeds_for,
    seeds_needed,
)

POINTS = st.floats(-100, 100).map(lambda value: round(value, 3))


def over_seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def claim(direction: str = "greater", margin: float | None = None) -> Hypothesis:
    return Hypothesis("name", "one beats two", "segm.AP", {"one": 1, "two": -1}, direction, margin=margin)


def test_estimate_of_a_hand_worked_sample():
    # 1, 2, 3: mean 2, sd 1, standard error 1/sqrt(3), t quantile at 2 degrees of freedom 4.3027.
    effect = estimate(over_seeds(1, 2, 3))
    assert (effect.n, effect.mean, effect.sd) == (3, 2, 1)
    assert effect.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-4)
    assert effect.high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)


@given(st.lists(st.tuples(POINTS, POINTS), min_size=2, max_size=12))
def test_estimate_agrees_with_scipys_paired_test(pairs):
    first, second = np.array(pairs).T
    effect = estimate(over_seeds(*(first - second)))
    if effect.sd == 0:
        assert effect.low == effect.mean == effect.high
        return
    expected = scipy_stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert effect.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-6)


def test_the_interval_holds_the_truth_in_95_of_100_studies():
    rng = np.random.default_rng(0)
    for count in (3, 5):
        samples = rng.normal(1.5, 2, (2000, count))
        held = [effect.low <= 1.5 <= effect.high for effect in (estimate(over_seeds(*row)) for row in samples)]
        assert 0.935 < np.mean(held) < 0.965


def test_degenerate_samples():
    assert estimate({}).mean is None
    single = estimate({3: 1.5})
    assert (single.mean, single.sd, single.low, single.p) == (1.5, None, None, None)
    assert estimate(over_seeds(0, 0, 0)).p == 1
    equal = estimate(over_seeds(0.3, 0.1 + 0.2, 0.3))  # differs by rounding alone
    assert (equal.sd, equal.p) == (0, 0)
    assert detectable_effect(None, 1) is None and detectable_effect(0.0, 5) == 0


def test_contrast_uses_the_seeds_that_all_arms_share():
    by_arm = {"a": {0: 5.0, 1: 6.0, 2: 7.0}, "b": {1: 1.0, 2: 3.0}, "c": {0: 1.0, 1: 1.0, 2: 1.0}}
    assert contrast_values({"a": 1, "b": -1}, by_arm) == {1: 5, 2: 4}
    assert contrast_values({"a": 1, "b": -1, "c": -2}, by_arm) == {1: 3, 2: 2}
    assert contrast_values({"a": 1, "unknown": -1}, by_arm) == {}


def test_holm_on_a_worked_case():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, then made monotone.
    [adjusted] = zip(*holm([[0.01], [0.04], [0.03], [0.005]]), strict=True)
    assert adjusted == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == [] and holm([[0.7], [0.9]]) == [[1], [1]]


def test_holm_keeps_the_family_wise_error():
    rng = np.random.default_rng(1)
    families = scipy_stats.ttest_1samp(rng.normal(0, 1, (2000, 6, 5)), 0, axis=2).pvalue
    assert (families.min(axis=1) <= 0.05).mean() > 0.2  # six tests at 5 % each, uncorrected
    assert np.mean([min(holm([[p] for p in family]))[0] <= 0.05 for family in families]) < 0.06


def test_an_equivalence_stays_in_the_family_after_one_of_its_tests():
    # Sorted 0.005 (equal), 0.01, 0.03, 0.9 (different), times 3, 3, 2, 1: one of the equivalence's two hypotheses is
    # always true, so only the differences leave the family when they were tested.
    adjusted = holm([[0.01], [0.005, 0.9], [0.03]])
    assert adjusted == [[pytest.approx(0.03)], [pytest.approx(0.015), 0.9], [pytest.approx(0.06)]]


@pytest.mark.parametrize("true_means", [(2.0, 2.0, 2.0), (2.0, 0.0, 2.0), (1.9, 2.1, 0.0), (-2.0, 2.0, 5.0)])
def test_the_family_wise_error_of_equivalences_is_kept(true_means):
    """Means within, on and outside the margin of 2: wrong verdicts of "equal" and "different" together."""
    means = np.array(true_means)
    samples = np.random.default_rng(3).normal(means, 1.0, (1000, 5, 3))
    below, above = (scipy_stats.ttest_1samp(samples, edge, axis=1) for edge in (-2, 2))
    t = np.minimum(below.statistic, -above.statistic)  # how far within the margin the mean lies
    within, beyond = scipy_stats.t.sf(t, 4), np.minimum(1, 2 * scipy_stats.t.sf(-t, 4))
    rejected = np.array([holm(list(zip(*family, strict=True))) for family in zip(within, beyond, strict=True)]) <= 0.05
    wrong = np.where(abs(means) >= 2, rejected[..., 0], rejected[..., 1])
    assert wrong.any(axis=1).mean() < 0.065


def test_equivalence_agrees_with_two_tests_of_scipy():
    values = np.array([0.3, -0.2, 0.1, 0.4, -0.1])
    above = scipy_stats.ttest_1samp(values, -1, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(values, 1, alternative="less").pvalue
    assert equivalence_p(estimate(over_seeds(*values)), 1.0) == pytest.approx(max(above, below))
    assert beyond_p(estimate(over_seeds(*(values + 5))), 1.0) == pytest.approx(
        scipy_stats.ttest_1samp(values + 5, 1).pvalue
    )


@pytest.mark.parametrize(
    ("values", "direction", "margin", "kind"),
    [
        ((3.0, 3.4, 3.2), "greater", None, "reproduced"),
        ((-3.0, -3.4, -3.2), "greater", None, "contradicted"),
        ((-3.0, -3.4, -3.2), "less", None, "reproduced"),
        ((3.0, -3.4, 1.2), "greater", None, "undecided"),
        ((3.0,), "greater", None, "no verdict"),
        ((), "greater", None, "no verdict"),
        ((0.1, -0.1, 0.05), "equal", 1.0, "reproduced"),
        ((5.1, 4.9, 5.05), "equal", 1.0, "contradicted"),
        ((2.0, -2.0, 0.5), "equal", 1.0, "undecided"),
        ((0.0, 0.0), "greater", None, "undecided"),
        ((0.0, 0.0), "equal", 1.0, "reproduced"),
        ((2.0, 2.0), "equal", 1.0, "contradicted"),
    ],
)
def test_verdicts(values, direction, margin, kind):
    [verdict] = judge([(claim(direction, margin), estimate(over_seeds(*values)))])
    assert verdict.kind == kind


def test_an_interval_clear_of_0_alone_is_not_enough_in_a_family():
    weak = estimate(over_seeds(1.0, 2.2, 0.2, 1.5, 0.9))
    assert weak.low > 0 and 0.01 < weak.p < 0.05
    assert judge([(claim(), weak)])[0].kind == "reproduced"
    noise = estimate(over_seeds(1.0, -2.0, 0.3))
    verdict = judge([(claim(), weak), *[(claim(), noise)] * 6])[0]
    assert verdict.kind == "undecided" and verdict.seeds_needed > weak.n


@pytest.mark.parametrize(
    ("values", "direction", "paper", "threshold", "kind", "excludes"),
    [
        ((0.5, -0.4, 0.1, 0.3, -0.3), "greater", 3.9, 0, "smaller than the paper's", True),
        ((0.5, -0.4, 0.1, 0.3, -0.3), "less", -3.9, 0, "smaller than the paper's", True),
        ((0.5, -0.4, 0.1, 0.3, -0.3), "less", 3.9, 0, "undecided", True),  # the paper's is on the other side
        ((0.5, -0.4, 0.1, 0.3, -0.3), "greater", 0.2, 0, "undecided", False),
        ((0.5, -0.4, 0.1, 0.3, -0.3), "greater", None, 0, "undecided", False),
        ((6.5, 5.6, 6.1, 6.3, 5.7), "greater", 7.3, 6, "smaller than the paper's", True),
        ((6.5, 5.6, 6.1, 6.3, 5.7), "greater", 6.2, 6, "undecided", False),
        ((12.5, 12.1, 12.6, 12.4), "greater", 3.4, 3, "reproduced", True),
        ((12.5, 12.1, 12.6, 12.4), "greater", 12.3, 3, "reproduced", False),
        ((-2.5, -2.1, -2.6, -2.4), "greater", 3.4, 0, "contradicted", True),
        ((0.0, 0.0), "greater", 3.9, 0, "undecided", False),  # without a spread there is no interval
    ],
)
def test_the_papers_value_is_excluded_or_not(values, direction, paper, threshold, kind, excludes):
    hypothesis = dataclasses.replace(claim(direction), paper=paper, threshold=threshold)
    [verdict] = judge([(hypothesis, estimate(over_seeds(*(value - threshold for value in values))))])
    assert (verdict.kind, verdict.excludes_paper) == (kind, excludes)
    assert verdict.measured.mean == pytest.approx(np.mean(values))


def test_each_test_of_an_equivalence_has_an_interval_of_its_own():
    [equal] = judge([(claim("equal", 1.0), estimate(over_seeds(0.1, -0.1, 0.05)))])
    [different] = judge([(claim("equal", 1.0), estimate(over_seeds(5.1, 4.9, 5.05)))])
    assert (equal.level, different.level) == (pytest.approx(0.9), 0.95)
    assert -1 < equal.interval[0] < equal.interval[1] < 1 < different.interval[0]
    assert equal.p == equivalence_p(equal.estimate, 1.0) and different.p == beyond_p(different.estimate, 1.0)


def test_the_interval_at_90_percent_decides_an_equivalence():
    """A mean for which the interval of 90 % lies within the margin and that of 95 % does not, and one beyond both."""
    sample = estimate(over_seeds(0.0, 1.0, 2.0, 1.0, 1.0))
    high_90, high_95 = sample.interval(0.9)[1], sample.high
    assert judge([(claim("equal", (high_90 + high_95) / 2), sample)])[0].kind == "reproduced"
    assert judge([(claim("equal", high_90 - 0.01), sample)])[0].kind == "undecided"


def test_an_equivalence_without_a_margin_is_refused():
    with pytest.raises(ValueError, match="expected a margin in points, got none"):
        judge([(claim("equal"), estimate(over_seeds(1, 2)))])


def test_power_and_the_seeds_it_takes():
    # A textbook figure: an effect of one standard deviation needs 10 pairs for a power of 0.8 (0.803).
    assert power_of_t(1.0, 1.0, 9) < 0.8 < power_of_t(1.0, 1.0, 10) == pytest.approx(0.803, abs=1e-3)
    assert seeds_for(1.0, 1.0) == 10 and seeds_needed(estimate(over_seeds(0, 2, 1, 0, 2))) == 10
    assert power_of_t(1.0, 1.0, 1000) == pytest.approx(1)
    assert detectable_effect(1.0, 10) == pytest.approx(0.9965, abs=1e-3)
    assert seeds_needed(estimate(over_seeds(1, -1, 0.001))) == MOST_SEEDS + 1
    assert seeds_needed(estimate(over_seeds(1, -1))) is None


def test_power_is_what_simulation_finds():
    rng = np.random.default_rng(2)
    samples = rng.normal(1.2, 1.0, (3000, 6))
    effect = scipy_stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05
    assert power_of_t(1.2, 1.0, 6) == pytest.approx(effect.mean(), abs=0.03)


def test_seeds_needed_for_an_equivalence():
    effect = estimate(over_seeds(0.4, -0.5, 0.3, -0.2))
    assert 2 <= seeds_needed(effect, margin=1.0) < seeds_needed(effect, margin=0.3)
