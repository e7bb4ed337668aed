"""The figures of displacement and of sizes in cells: drawn where there is something to draw, and legible."""

import dataclasses
import math
import shutil

import pytest

from reports.analysis import analyse
from reports.figures import by_cells, dose
from reports.figures.style import arm_styles
from reports.load import read_study
from reports.render import render
from reports.stats.dose import doses
from reports.stats.paired import Estimate
from reports.text import captions
from tests.damage import edit_record
from tests.reports.figures.measure import Measured
from tests.reports.rounding import GAINS, add_true_boxes, write_rounding

pytestmark = pytest.mark.xdist_group("dose")  # one process makes what the tests share


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("rounding")
    write_rounding(root)
    add_true_boxes(root)
    return root


def test_the_dose_is_legible_with_all_operators(root):
    found = doses(read_study(root, "misalignment"))
    at_16 = next(item for item in found if (item.stride, item.step) == (16, 16))
    found.append(dataclasses.replace(at_16, op="warp", step=0, study="roiops", same_net=False))
    measured = Measured()
    assert dose.dose(found, measured) and measured.drawn == ["dose"] and measured.faults == {}


def test_a_rounding_step_has_its_colour_of_the_other_figures(root):
    study = read_study(root, "misalignment")
    colours = {
        arm.factors["roi"]: arm_styles(study)[name].colour
        for name, arm in study.record.arms.items()
        if arm.factors.get("roi", "").startswith("align_")
    }
    drawn = {f"align_{item.step}": dose._colour(item) for item in doses(study) if item.op == "align"}
    assert drawn == colours and len(set(drawn.values())) > 1


def test_without_doses_nothing_is_drawn():
    measured = Measured()
    assert not dose.dose([], measured) and measured.drawn == []


@pytest.mark.parametrize(
    ("metric", "middle"),
    [
        ("true_boxes.IoU_under_1_cell", 1 / math.sqrt(2)),
        ("true_boxes.IoU_2_to_4_cells", math.sqrt(8)),
        ("true_boxes.IoU_8_cells_and_more", 8 * math.sqrt(2)),
        ("true_boxes.IoU_96_px_and_more", None),
        ("true_boxes.IoU", None),
        ("segm.AP", None),
    ],
)
def test_the_middle_of_a_range_of_sides(metric, middle):
    assert by_cells.middle_of(metric) == (middle if middle is None else pytest.approx(middle))


def test_a_curve_for_each_stride_with_the_gains_of_each_range(root):
    analysis = analyse(read_study(root, "roialign"), resamples=0)
    for curve, (stride, gains) in zip(by_cells.curves_of(analysis), GAINS.items(), strict=True):
        assert curve.stride == stride and list(curve.gains) == sorted(curve.gains)
        assert [effect.mean for effect in curve.gains.values()] == pytest.approx([gain + 0.2 for gain in gains])
    measured = Measured()
    assert by_cells.by_cells(analysis, measured) and measured.faults == {}


def test_ranges_in_which_masks_are_below_the_floors_are_hollow(root, tmp_path):
    shutil.copytree(root / "roialign", tmp_path / "roialign")
    for path in (tmp_path / "roialign").glob("*16/seed*/run.json"):
        floor = {"IoU_under_1_cell": 65.0, "IoU_1_to_2_cells": 61.0, "IoU_2_to_4_cells": 50.0}
        edit_record(path, lambda record, floor=floor: record["metrics"].update(floor_box=floor, floor_ellipse=floor))
    analysis = analyse(read_study(tmp_path, "roialign"), resamples=0)
    at_16, at_32 = by_cells.curves_of(analysis)
    assert at_16.weak == {by_cells.middle_of("true_boxes.IoU_under_1_cell")}  # of 1 to 2 cells RoIAlign's are above
    assert at_32.weak == frozenset()
    measured = Measured()
    assert by_cells.by_cells(analysis, measured) and measured.faults == {}


@pytest.mark.parametrize(
    ("gains", "weak", "rises"),
    [
        ([(-1.0, -2.0), (0.4, -0.2), (1.5, 1.0)], 2, True),
        ([(-1.0, -2.0), (0.4, -0.2), (1.5, 1.0)], 0, False),  # no masks are too weak: size itself decides
        ([(-1.0, -2.0), (0.4, -0.2), (1.5, 0.3)], 2, False),  # the largest may gain no more
        ([(1.2, 0.5), (0.4, -0.2), (3.0, 2.0)], 1, False),  # the smallest gain too
        ([(-1.0, -2.0), (1.5, 1.0)], 2, False),  # nothing is left to compare with
    ],
)
def test_a_gain_rises_where_only_the_masks_of_large_objects_are_worth_it(gains, weak, rises):
    estimates = {
        float(place): Estimate({}, mean, 0.5, low, 2 * mean - low, None) for place, (mean, low) in enumerate(gains)
    }
    curve = by_cells.Curve(16, {}, estimates, frozenset(list(estimates)[:weak]))
    assert curve.rises == rises
    turned = by_cells.Curve(16, {}, estimates, frozenset(list(estimates)[len(gains) - weak :]))
    assert not turned.rises


def test_what_a_rising_gain_means_is_said_of_its_strides():
    assert captions.rising([]) == ""
    assert captions.rising([16]).startswith("At stride 16 the largest objects gain most")
    assert captions.rising([16, 32]).startswith("At strides 16 and 32 the largest objects gain most")


def test_studies_without_true_boxes_or_roi_pool_have_no_curves(root, outputs):
    for folder, name in ((outputs, "roialign"), (root, "misalignment")):
        assert by_cells.curves_of(analyse(read_study(folder, name), resamples=0)) == []


@pytest.mark.slow
def test_the_dose_is_the_first_figure_of_its_report(root, tmp_path):
    text = render(read_study(root, "misalignment"), tmp_path / "a", resamples=0).read_text(encoding="utf-8")
    assert text.index("figures/dose.svg") < text.index("## Claims") < text.index("figures/paired.svg")
    assert "| RoIAlign, boxes rounded to 32 px | 16 |" in text and "figures/by_cells.svg" not in text
    text = render(read_study(root, "roialign"), tmp_path / "b", resamples=0).read_text(encoding="utf-8")
    assert text.index("figures/paired.svg") < text.index("## Claims") < text.index("figures/by_cells.svg")
    assert "figures/dose.svg" not in text
    assert (tmp_path / "b/figures/by_cells.svg").is_file() and (tmp_path / "a/figures/dose.svg").is_file()
