"""A study's verdicts count only where its reference arm's masks are well above masks that need no features."""

import json

import numpy as np
import pytest

from ablations.errors import RecordError
from reports.analysis import analyse
from reports.ending import verdict_lines
from reports.load import read_study
from reports.stats.floors import floor_check, floor_ious
from reports.text import floors, wording
from reports.text.labels import signed
from tests.damage import edit_record
from tests.reports.conftest import ARMS, encode, write_study


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
    text = floors.passed(analysis)
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
    analysis = analyse(read_study(tmp_path, "roialign"), resamples=0)
    assert "an IoU of 74.0 on true boxes of objects of 96 px and more, against 59.5" in floors.passed(analysis)


@pytest.mark.parametrize(
    "reached, distance", [(66.0, "is only 3.5 points above masks"), (60.0, "is 2.5 points below masks")]
)
def test_within_the_margin_no_verdict_is_given_and_the_reason_is_told(tmp_path, reached, distance):
    analysis = with_floors(tmp_path, reached)
    assert {verdict.kind for verdict in analysis.verdicts} == {"no verdict"}
    assert all(verdict.detectable and verdict.p_corrected is None for verdict in analysis.verdicts)
    first, *lines = verdict_lines(analysis)
    assert first.startswith("  caution: No verdict: the reference arm, RoIAlign, stride 16, ") and distance in first
    assert all(line.startswith("  no verdict  ") for line in lines)
    sentences = [wording.sentence(verdict, 5) for verdict in analysis.verdicts]
    assert all(
        "too near to masks that need no features" in text and "at least 2 seeds" not in text for text in sentences
    )
    assert floors.passed(analysis) == ""


def test_arms_below_the_margin_are_named_whether_the_reference_arm_passes_or_not(tmp_path):
    folder = with_floors(tmp_path, 74.0).study.folder
    assert "Nearer to the better floor" not in floors.passed(analyse(read_study(tmp_path, "roialign"), resamples=0))
    for arm, reached in {"pool16": 70.0, "pool32": 65.0, "align32": 61.0}.items():
        for path in folder.glob(f"{arm}/seed*/run.json"):
            edit_record(path, lambda record, reached=reached: record["metrics"]["true_boxes"].update(IoU=reached))
    expected = (
        "Nearer to the better floor than 10 points: RoIPool, stride 16 (7.5) and every arm of stride 32 (−1.5 to "
    )
    text = floors.passed(analyse(read_study(tmp_path, "roialign"), resamples=0))
    assert expected + "2.5 points)." in text
    edit_record(folder / "study.json", lambda record: record["floor"].update(margin=20.0))
    text = floors.withheld(analyse(read_study(tmp_path, "roialign"), resamples=0))
    assert "No verdict" in text and text.endswith("No other arm is as far above the better floor: −1.5 to 7.5 points.")


def test_a_distance_that_is_only_just_too_small_does_not_look_like_the_margin(tmp_path):
    assert "is only 9.98 points above masks" in floors.withheld(with_floors(tmp_path, 72.48))


def test_the_table_has_every_arm_beside_both_floors(tmp_path):
    analysis = with_floors(tmp_path, 74.0)
    lines = floors.floor_table(analysis).splitlines()
    assert lines[0] == "| masks | mask IoU on true boxes | above the better floor |"
    assert lines[2:5] == [
        "| *filling the box* | *59.5* | *–* |",
        "| *an ellipse in it* | *62.5* | *–* |",
        "| RoIPool, stride 16 | 74.0 | +11.5 |",
    ]
    assert len(lines) == 4 + len(ARMS)


def test_the_distance_of_the_reference_arm_has_an_interval_over_images(tmp_path):
    """Masks on true boxes that are 10 points above the ellipses of their images, whichever images are drawn."""
    folder = with_floors(tmp_path, 74.0).study.folder
    truth = json.loads((folder / "ground_truth.json").read_text())
    ious = floor_ious(truth, {}, "IoU")
    means = {kind: float(np.mean([value for _, value in pairs])) for kind, pairs in ious.items()}
    better = max(means, key=lambda kind: means[kind])
    table = {
        "image_ids": [image for image, _ in ious[better]],
        "IoU": [value + 10 for _, value in ious[better]],
        "IoU_96_px_and_more": [None] * len(ious[better]),
    }
    for path in folder.glob("align16/seed*/run.json"):
        (path.parent / "true_boxes.json").write_text(json.dumps(table))
        reached = {"true_boxes": means[better] + 10, **means}
        edit_record(path, lambda record, by=reached: record["metrics"].update({kind: {"IoU": by[kind]} for kind in by}))
    analysis = analyse(read_study(tmp_path, "roialign"), resamples=50)
    noise = analysis.floor_noise
    assert noise.mean == pytest.approx(10) and noise.low <= noise.high <= 10 + 1e-6
    assert (noise.num_seeds, noise.num_objects, noise.with_objects) == (3, len(table["IoU"]), 6)
    assert f"(other images: {signed(noise.low)} to {signed(noise.high)})" in floors.passed(analysis)
    for path in folder.glob("align16/seed*/run.json"):
        edit_record(path, lambda record: record["metrics"].update(floor_box={"IoU": 0.0}))
    assert analyse(read_study(tmp_path, "roialign"), resamples=5).floor_noise is None  # not the floors of this truth


def test_floors_of_single_objects():
    """A disc in its box, its ellipse; a box of 100 px of which the left half is the object's; small and large ones."""
    rows, columns = np.mgrid[:200, :200] + 0.5
    masks = [
        (rows - 50) ** 2 + (columns - 50) ** 2 <= 20**2,
        (abs(rows - 140) <= 50) & (columns > 20) & (columns <= 70),
    ]
    boxes = [[30, 30, 40, 40], [20, 90, 100, 100]]
    annotations = [
        {"image_id": 1, "iscrowd": 0, "bbox": box, "segmentation": encode(mask)}
        for box, mask in zip(boxes, masks, strict=True)
    ]
    truth = {"images": [{"id": 1, "height": 200, "width": 200}], "annotations": annotations}
    found = floor_ious(truth, {}, "IoU")
    assert [value for _, value in found["floor_box"]] == pytest.approx([100 * masks[0].sum() / 1600, 50.0])
    assert found["floor_ellipse"][0] == (1, pytest.approx(100.0))
    assert found["floor_ellipse"][1][1] == pytest.approx(100 * (np.pi / 8) / (0.5 + np.pi / 8), rel=0.01)
    large = floor_ious(truth, {}, "IoU_96_px_and_more")
    assert large["floor_box"] == [found["floor_box"][1]]
    polygon = [[20.0, 90.0, 70.0, 90.0, 70.0, 190.0, 20.0, 190.0]]
    truth["annotations"] = [annotations[1] | {"segmentation": polygon}]
    doubled = floor_ious(truth, {"image_size": 400, "max_size": 400}, "IoU")
    assert doubled["floor_box"][0][1] == pytest.approx(50.0, abs=0.5)


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
