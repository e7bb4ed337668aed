"""Displacements of RoIPool's bins against cases worked by hand."""

import dataclasses

import numpy as np
import pytest

from reports.load import read_study
from reports.stats.misalignment import bin_centres, displacement, measure, resized


def test_a_box_that_fits_the_grid_exactly():
    # Two bins over x 8..40 at stride 16: RoIAlign reads around 16 and 32. RoIPool rounds 0.5 and 2.5 away from zero to
    # cells 1 to 3; bins of cells (1, 2) and (2, 3) stand at pixels 24 and 40: 8 pixels too far.
    wanted, read = bin_centres(8, 40, bins=2, length=16, stride=16)
    assert wanted == [16, 32] and read == [24, 40]
    assert displacement([8, 8, 32, 32], (256, 256), 2, 16) == pytest.approx(8 * 2**0.5)


def test_empty_bins_are_left_out():
    # The last cell of a 2-cell map is 1; a box that rounds to cells 1..3 keeps the bins that still touch the map.
    wanted, read = bin_centres(16, 48, bins=3, length=2, stride=16)
    assert read[0] == 16 and np.isnan(read[1:]).all() and len(wanted) == 3


def test_the_coarser_grid_moves_bins_further(outputs):
    measured = measure(read_study(outputs, "roialign"))
    assert 0 < measured.medians[16] < measured.medians[32] < 32 and measured.num_boxes == 24
    assert measured.chosen[16] in measured.moved[16]


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
