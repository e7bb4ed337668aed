"""How numbers, metrics and contrasts are written."""

import math

import pytest

from reports.text import labels
from tests.reports.conftest import AT_16, MORE_AT_32
from tests.reports.text.hand_made import study


def test_numbers_have_a_real_minus_and_no_negative_zero():
    assert [labels.number(value) for value in (-1.26, -0.04, 3.0)] == ["−1.3", "0.0", "3.0"]
    assert labels.number(None) == labels.number(math.nan) == labels.number(math.inf) == "–"


def test_differences_have_a_sign_unless_they_round_to_zero():
    assert [labels.signed(value) for value in (3.4, -0.2, 0.04, -0.04)] == ["+3.4", "−0.2", "0.0", "0.0"]
    assert labels.signed(None) == labels.signed(math.nan) == "–"
    assert labels.interval(-1.0, 2.5) == "−1.0 to +2.5" and labels.interval(None, 2.5) == "–"


def test_ticks_have_no_more_digits_than_they_need():
    assert [labels.tick(value) for value in (0.0, 2.0, -0.5, 0.25)] == ["0", "+2", "−0.5", "+0.25"]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("segm.AP75", "points of AP"),
        ("overlap.AP_much - overlap.AP_some", "points of AP"),
        ("competition.AP_share", "points of AP"),
        ("bbox.AR100", "points of recall"),
        ("recall.R50@10 - anchors.R50@48", "points of recall"),
        ("true_boxes.IoU_96_px_and_more", "points of IoU"),
        ("neighbours.iou_loss_same - neighbours.iou_loss_other", "points of IoU"),
        ("phase.variation", "points of IoU"),
        ("overlap.leakage", "% of a mask's area"),
        ("neighbours.leakage_same - neighbours.leakage_other", "% of a mask's area"),
        ("overlap.seams", "% of a mask's edge"),
        ("neighbours.detected_same", "% of the objects"),
        ("inference_cost.time_added", "% of the time without masks"),
    ],
)
def test_every_metric_has_a_unit(metric, expected):
    assert labels.unit_of(metric) == expected


def test_small_p_values_are_bounded():
    assert [labels.p_value(p) for p in (None, 0.0004, 0.001, 0.25)] == ["–", "< 0.001", "0.001", "0.250"]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("segm.AP75", "mask AP75"),
        ("bbox.APs", "box AP, small objects"),
        ("segm.AP75 - segm.AP50", "mask AP75 − mask AP50"),
        ("competition.AP50_argmax", "mask AP50, rule of each other"),
        ("recall.R75@1", "recall at IoU 0.75, 1 proposal"),
        ("recall.AR@10", "average recall, 10 proposals"),
        ("random.R50@100", "recall at IoU 0.5, 100 random boxes"),
        ("true_boxes.IoU", "mask IoU on true boxes"),
        ("true_boxes.IoU_96_px_and_more", "mask IoU on true boxes, objects of 96 px and more"),
        ("true_boxes.IoU_under_1_cell", "mask IoU on true boxes, objects under 1 cell"),
        ("true_boxes.IoU_2_to_4_cells", "mask IoU on true boxes, objects of 2 to 4 cells"),
        ("else.some_thing", "else some thing"),
    ],
)
def test_metrics_in_words(metric, expected):
    assert labels.metric_label(metric) == expected


def test_a_contrast_says_once_what_its_arms_share():
    assert labels.contrast_label(study(), AT_16) == "RoIAlign − RoIPool, stride 16"
    assert labels.contrast_label(study(), {"align16": 1, "pool32": -1}) == "RoIAlign, stride 16 − RoIPool, stride 32"
    assert labels.contrast_label(study(), {"pool32": 1, "pool16": -1}) == "stride 32 − stride 16, RoIPool"
    assert labels.context_label(study(), AT_16) == "stride 16"
    assert labels.context_label(study(), {"align16": 1, "pool32": -1}) == "RoIAlign, stride 16 − RoIPool, stride 32"


def test_other_contrasts_are_sums_with_their_weights():
    assert labels.contrast_label(study(), MORE_AT_32) == (
        "(RoIAlign, stride 32 + RoIPool, stride 16) − (RoIPool, stride 32 + RoIAlign, stride 16)"
    )
    assert labels.contrast_label(study(), {"align16": 1, "pool16": -0.5, "pool32": -0.5}) == (
        "RoIAlign, stride 16 − (0.5 x RoIPool, stride 16 + 0.5 x RoIPool, stride 32)"
    )


def test_plurals_and_lists():
    assert [labels.plural(count, "box") for count in (0, 1, 2)] == ["0 boxes", "1 box", "2 boxes"]
    assert labels.plural(2, "seed") == "2 seeds"
    assert [labels.and_list(list(words)) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
