"""A study's verdicts count only where its reference arm's masks are well above masks that need no features."""

import pytest

from ablations.errors import RecordError
from reports.analysis import analyse
from reports.ending import verdict_lines
from reports.load import read_study
from reports.stats.floors import floor_check
from reports.text import wording
from tests.damage import edit_record
from tests.reports.conftest import ARMS, write_study


def with_floors(outputs, reached, margin=10.0, measured=ARMS):
    """The study with a floor; the masks of its arms reach `reached`, the filled box 59.5 and the ellipse 62.5."""
    folder = write_study(outputs, seeds=3)
    figures = {"true_boxes": {"IoU": reached}, "floor_box": {"IoU": 59.5}, "floor_ellipse": {"IoU": 62.5}}
    for arm in measured:
        for path in folder.glob(f"{arm}/seed*/run.json"):
            edit_record(path, lambda record: record["metrics"].update(figures))
    edit_record(folder / "study.json", lambda record: record.update(floor={"arm": "align16", "margin": margin}))
    return analyse(read_study(outputs, "roialign"), resamples=0)


def test_above_the_margin_verdicts_count_and_the_report_says_by_how_much(tmp_path):
    analysis = with_floors(tmp_path, 74.0)
    check = floor_check(analysis.study)
    assert check is not None and check.above == pytest.approx(11.5)
    text = wording.floor(check, analysis.study)
    assert "RoIAlign, stride 16, reach an IoU of 74.0 on true boxes, against 59.5 by filling the box and 62.5" in text
    assert "11.5 points above the better of the two; the study asked for 10." in text
    assert {verdict.kind for verdict in analysis.verdicts} == {"reproduced", "undecided"}
    assert not any("No verdict" in line for line in verdict_lines(analysis))


def test_a_floor_of_large_objects_looks_at_these_alone(tmp_path):
    folder = with_floors(tmp_path, 60.0).study.folder
    name = "IoU_96_px_and_more"
    large = {"true_boxes": 74.0, "floor_box": 59.5, "floor_ellipse": 62.5}
    for path in folder.glob("*/seed*/run.json"):
        edit_record(
            path, lambda record: [record["metrics"][kind].update({name: value}) for kind, value in large.items()]
        )
    edit_record(folder / "study.json", lambda record: record["floor"].update(figure=name))
    check = floor_check(read_study(tmp_path, "roialign"))
    assert check.passed and check.above == pytest.approx(11.5)
    study = read_study(tmp_path, "roialign")
    assert "an IoU of 74.0 on true boxes of objects of 96 px and more, against 59.5" in wording.floor(check, study)


@pytest.mark.parametrize(
    "reached, distance", [(66.0, "is only 3.5 points above masks"), (60.0, "is 2.5 points below masks")]
)
def test_within_the_margin_no_verdict_is_given_and_the_reason_is_told(tmp_path, reached, distance):
    analysis = with_floors(tmp_path, reached)
    assert {verdict.kind for verdict in analysis.verdicts} == {"no verdict"}
    first, *lines = verdict_lines(analysis)
    assert first.startswith("  caution: No verdict: the reference arm, RoIAlign, stride 16, ") and distance in first
    assert all(line.startswith("  no verdict  ") for line in lines)
    sentences = [wording.sentence(verdict, 5) for verdict in analysis.verdicts]
    assert all(
        "too near to masks that need no features" in text and "at least 2 seeds" not in text for text in sentences
    )
    assert wording.floor(floor_check(analysis.study), analysis.study) == ""


def test_without_the_reference_arms_masks_there_is_no_verdict(tmp_path):
    analysis = with_floors(tmp_path, 90.0, measured=["pool16"])
    assert {verdict.kind for verdict in analysis.verdicts} == {"no verdict"}
    assert "has no run with masks on true boxes" in wording.cautions(analysis)[0]


def test_a_study_without_a_floor_is_judged_as_ever(outputs):
    analysis = analyse(read_study(outputs, "roialign"), resamples=0)
    assert floor_check(analysis.study) is None and not any(verdict.withheld for verdict in analysis.verdicts)


def test_a_floor_of_an_unknown_arm_is_refused(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    edit_record(folder / "study.json", lambda record: record.update(floor={"arm": "align64", "margin": 5}))
    with pytest.raises(RecordError, match="unknown arms .'align64'."):
        read_study(tmp_path, "roialign")
