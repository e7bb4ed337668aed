"""What repeats in a curve of IoU against the shift."""

import numpy as np
import pytest

from ablations.evaluation.phase import PERIOD, repeated_variances, variation

SHIFT = np.arange(2 * PERIOD)


def wave(period, amplitude=3.0):
    return amplitude * np.sin(2 * np.pi * SHIFT / period)


@pytest.mark.parametrize("period", [16, 32])
def test_the_variance_of_a_curve_that_repeats_is_its_own(period):
    curve = 70 + wave(period)
    assert repeated_variances(curve) == pytest.approx(curve.var()) == pytest.approx(3**2 / 2)


def test_what_does_not_repeat_adds_nothing():
    moves_once = np.where(SHIFT < PERIOD, wave(16), 0)
    assert repeated_variances(moves_once) == pytest.approx(0) and moves_once.var() > 2
    turns_round = np.where(SHIFT < PERIOD, wave(32), -wave(32))
    assert repeated_variances(turns_round) == pytest.approx(-4.5)
    assert repeated_variances(wave(32) + 10 * (SHIFT >= PERIOD)) == pytest.approx(4.5)  # a step between the halves


def test_a_noisy_measurement_is_right_on_average():
    rng = np.random.default_rng(0)
    curves = wave(32) + rng.normal(0, 2, (4000, 2 * PERIOD))
    assert variation(repeated_variances(curves)) == pytest.approx(4.5**0.5, abs=0.05)
    assert curves.std(-1).mean() > 2.8


def test_the_variation_of_scenes_is_that_of_their_mean_variance_and_never_below_0():
    assert variation(np.array([[1.0, 7.0], [0.0, 0.0], [-1.0, -3.0]])).tolist() == [2, 0, 0]
