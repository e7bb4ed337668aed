"""Displacements of bins against cases worked by hand, and against the operators' definition."""

import dataclasses
import math

import numpy as np
import pytest

from ops import geometry
from reports.load import read_study
from reports.stats.misalignment import _choose, bin_centres, displacements, measure, resized
from tests.reports.conftest import SIDE


def displacement(box, size, bins, stride, **rounding):
    return displacements(np.array([box], float), np.array([size], float), bins, stride, **rounding)[0]


def test_a_box_that_fits_the_grid_exactly():
    # Two bins over x 8..40 at stride 16: RoIAlign reads around 16 and 32. RoIPool rounds 0.5 and 2.5 away from zero to
    # cells 1 to 3; bins of cells (1, 2) and (2, 3) stand at pixels 24 and 40: 8 pixels too far.
    wanted, read = bin_centres(8, 40, bins=2, length=16, stride=16)
    assert wanted.tolist() == [16, 32] and read.tolist() == [24, 40]
    assert displacement([8, 8, 32, 32], (256, 256), 2, 16) == pytest.approx(8 * 2**0.5)


def test_a_box_rounded_to_a_step():
    # 10..50 becomes 8..48 with a step of 8 and 0..64 with one of 32: both bins move by -2; by -4 and +8.
    assert np.subtract(*bin_centres(10, 50, 2, 16, 16, "align", 8)[::-1]).tolist() == [-2, -2]
    assert np.subtract(*bin_centres(10, 50, 2, 16, 16, "align", 32)[::-1]).tolist() == [-4, 8]
    assert displacement([10, 10, 40, 40], (256, 256), 2, 16, op="align", step=8) == pytest.approx(2 * 2**0.5)
    assert displacement([10, 10, 40, 40], (256, 256), 2, 16, op="align") == 0


def test_empty_bins_are_left_out():
    # The last cell of a 2-cell map is 1; a box that rounds to cells 1..3 keeps the bins that still touch the map.
    wanted, read = bin_centres(16, 48, bins=3, length=2, stride=16)
    assert read[0] == 16 and np.isnan(read[1:]).all() and len(wanted) == 3
    assert math.isnan(displacement([64, 64, 32, 32], (32, 32), 3, 16))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_centres_are_those_of_the_operators_definition(stride):
    rng = np.random.default_rng(stride)
    low = np.concatenate([rng.uniform(-20, 260, 200), stride * (rng.integers(-2, 9, 50) + 0.5)])
    high = low + np.concatenate([rng.uniform(0.1, 150, 200), np.full(50, 2.0 * stride)])
    length, bins = math.ceil(SIDE / stride), 7
    wanted, pooled = bin_centres(low, high, bins, length, stride)
    warped = bin_centres(low, high, bins, length, stride, "warp")[1]
    for index, (first, last) in enumerate(zip(low / stride, high / stride, strict=True)):
        align = geometry.sample_positions(*geometry.align_interval(first, last, aligned=False), bins, 2)
        warp = geometry.sample_positions(*geometry.warp_interval(first, last), bins, 2)
        cells = geometry.pool_bins(first, last, bins, length)
        assert wanted[index] == pytest.approx(stride * np.mean(align, axis=1))
        assert warped[index] == pytest.approx(stride * np.mean(warp, axis=1))
        middles = [stride * (start + end - 1) / 2 if end > start else math.nan for start, end in cells]
        assert pooled[index] == pytest.approx(middles, nan_ok=True)


def test_roi_warp_is_roi_align_of_a_box_rounded_to_the_stride():
    low, high = np.linspace(0, 200, 50), np.linspace(30, 330, 50)
    assert (bin_centres(low, high, 7, 16, 16, "warp")[1] == bin_centres(low, high, 7, 16, 16, "align", 16)[1]).all()


def test_the_coarser_grid_moves_bins_further(outputs):
    measured = measure(read_study(outputs, "roialign"))
    assert 0 < measured.medians[16] < measured.medians[32] < 32 and measured.num_boxes == 24
    assert measured.chosen[16] in measured.moved[16]


def test_the_object_that_is_shown_is_large_where_claims_are_about_large_ones():
    boxes = [{"image_id": 1, "bbox": [0, 0, side, side]} for side in (40, 50, 100, 120, 130, 200)]
    boxes[3]["image_id"] = 2  # no sample image
    sides = np.array([box["bbox"][2] for box in boxes], float)
    moved, every = {16: np.full(6, 5.0)}, np.ones(6, bool)
    assert _choose(boxes, sides, moved, {1}, every) == 2  # of a median of 110
    assert _choose(boxes, sides, moved, {1}, sides >= 96) == 4  # of a median of 125
    assert _choose(boxes, sides, moved, {1}, sides >= 300) is None
    assert _choose(boxes, sides, moved, {9}, every) is None


def test_a_study_without_roi_operators_has_nothing_to_measure(outputs):
    study = read_study(outputs, "roialign")
    other = dataclasses.replace(study, record=dataclasses.replace(study.record, factors=["mask_loss"]))
    assert measure(other) is None


def test_photographs_are_measured_at_the_size_that_the_network_gets():
    objects = [{"image_id": 3, "bbox": [10, 20, 30, 40]}, {"image_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}]
    truth = {"images": [{"id": 3, "width": 200, "height": 100}], "annotations": objects}
    sizes, boxes = resized(truth, {"image_size": 400, "max_size": 1000})
    assert sizes == {3: (800, 400)} and [item["bbox"] for item in boxes] == [[40, 80, 120, 160]]
    assert resized(truth, {}) == ({3: (200, 100)}, objects[:1])
