"""The definition on one axis, against numbers worked out by hand."""

import math

import pytest
import torch

from ops import geometry
from ops.sampling import pool_bins, round_half_away


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.5, 1), (1.5, 2), (2.5, 3), (-0.5, -1), (-2.5, -3), (0.49999997, 0), (-1.2, -1), (3.0, 3)]
)
def test_halves_round_away_from_zero(value, rounded):
    assert geometry.round_half_away(value) == rounded
    assert round_half_away(torch.tensor([value])).item() == rounded


def test_pool_bins_of_a_five_cell_roi_overlap():
    # Ends 0.6 and 4.7 round to 1 and 5: cells 1 to 5, 2.5 cells a bin, edges rounded outwards to 1-3 and 3-5.
    assert geometry.pool_bins(0.6, 4.7, 2, length=10) == [(1, 4), (3, 6)]


def test_pool_bins_never_leave_the_rounded_box():
    # In float32, 7 * (57 / 7) is above 57, and torchvision's last bin reads a 58th cell.
    for size in range(1, 200):
        bins = geometry.pool_bins(0, size - 1, 7, length=1000)
        assert bins[0][0] == 0
        assert bins[-1][1] == size


def test_pool_bins_are_cut_at_the_map():
    assert geometry.pool_bins(-3, 8, 3, length=4) == [(0, 1), (1, 4), (4, 4)]


@pytest.mark.parametrize("num_bins", [1, 2, 7, 14])
def test_batched_pool_bins_follow_the_definition(num_bins):
    low = torch.linspace(-9, 30, 57)
    high = low + torch.linspace(-4, 25, 57)
    start, end = pool_bins(low, high, num_bins, length=21)
    expected = [geometry.pool_bins(a, b, num_bins, 21) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    for index, bins in enumerate(expected):
        assert list(zip(start[index].tolist(), end[index].tolist(), strict=True)) == bins


def test_align_interval():
    assert geometry.align_interval(1.25, 3.0, aligned=False) == (1.25, 1.75)
    assert geometry.align_interval(1.25, 3.0, aligned=True) == (0.75, 1.75)
    assert geometry.align_interval(1.25, 1.5, aligned=False) == (1.25, 1)
    assert geometry.align_interval(1.25, 1.5, aligned=True) == (0.75, 0.25)


def test_warp_interval_is_the_rounded_box():
    assert geometry.warp_interval(1.5, 4.4) == (2.0, 2.0)


def test_samples_are_spread_evenly():
    assert geometry.sample_positions(1.0, 4.0, 2, 2) == [[1.5, 2.5], [3.5, 4.5]]
    assert geometry.num_samples(4.1, 2, sampling_ratio=0) == 3
    assert geometry.num_samples(0.0, 2, sampling_ratio=-1) == 0
    assert geometry.num_samples(4.1, 2, sampling_ratio=2) == 2


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (-1.01, []),
        (-1.0, [(0, 1)]),
        (-0.5, [(0, 1)]),
        (1.25, [(1, 0.75), (2, 0.25)]),
        (4.5, [(4, 1)]),
        (5.0, [(4, 1)]),
        (5.01, []),
        (math.nan, []),
    ],
)
def test_hat_weights_on_five_cells(position, expected):
    assert geometry.hat_weights(position, 5) == expected
