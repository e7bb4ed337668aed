"""The table that sets photographs beside synthetic images."""

from types import SimpleNamespace

import pytest

from ablations.records.schema import Hypothesis
from reports.stats.bootstrap import ImageNoise
from reports.stats.paired import Verdict, estimate
from reports.text import transfer

METRIC = "true_boxes.IoU_96_px_and_more"


def verdict(kind="reproduced", withheld=False, name="align-over-pool-16"):
    claim = Hypothesis(name, "RoIAlign is better", METRIC, {"align-16": 1.0, "pool-16": -1.0})
    return Verdict(claim, kind, estimate({5: 1.0, 6: 1.2, 7: 1.1}), withheld=withheld)


def noise(low, high):
    return ImageNoise(1.1, low, high, 100, 3)


@pytest.mark.parametrize(
    "judged, images, expected",
    [
        (verdict(), noise(0.4, 1.8), "holds"),
        (verdict(), noise(-0.1, 2.3), "over seeds only"),
        (verdict(), None, "over seeds only"),
        (verdict("undecided"), noise(0.4, 1.8), "open"),
        (verdict("contradicted"), noise(-2.0, -0.1), "the opposite"),
        (verdict("no verdict", withheld=True), noise(0.4, 1.8), "no verdict"),
    ],
)
def test_a_claim_holds_where_neither_seeds_nor_images_leave_it_open(judged, images, expected):
    assert transfer.word(judged, images) == expected


def drawn(values):
    """A study of synthetic images with these values by arm."""
    study = SimpleNamespace(values=lambda arm, metric: values[arm] if metric == METRIC else {})
    return SimpleNamespace(study=study, verdicts=[], noise={})


def photos(*verdicts, images=None):
    record = SimpleNamespace(floor=None)
    return SimpleNamespace(study=SimpleNamespace(record=record), verdicts=list(verdicts), noise=images or {})


def both(judged, images):
    return {
        "roialign": drawn({"align-16": {5: 80.0, 6: 82.0}, "pool-16": {5: 73.0, 6: 74.8}}),
        "photos": photos(judged, images={"align-over-pool-16": images}),
    }


def test_each_question_stands_beside_its_synthetic_comparison():
    lines = transfer.table(both(verdict(), noise(0.4, 1.8))).splitlines()
    assert len(lines) == 2 + len(transfer.contents()["question"])
    assert lines[0] == "| difference in mask IoU | synthetic | photographs of people |"
    people = "+1.1 (+0.9 to +1.3; images +0.4 to +1.8): **holds**"
    assert lines[2] == f"| RoIAlign − RoIPool, stride 16 | +7.1 (+5.8 to +8.4) | {people} |"
    assert lines[3].endswith("| – | – |")  # without records


def test_each_set_of_photographs_has_a_column():
    studies = both(verdict(), noise(0.4, 1.8))
    studies["photos_objects"] = photos(verdict("undecided"))
    lines = transfer.table(studies).splitlines()
    assert lines[0].endswith("| photographs of people | photographs of objects of 80 categories |")
    assert lines[1] == "|:--|--:|--:|--:|"
    assert lines[2].endswith("+0.4 to +1.8): **holds** | +1.1 (+0.9 to +1.3): **open** |")


def test_what_is_left_counts_only_where_the_claim_holds():
    assert transfer.share_left(both(verdict(), noise(0.4, 1.8)), "photos") == pytest.approx(1.1 / 7.1)
    assert transfer.share_left(both(verdict(), noise(-0.4, 1.8)), "photos") == 0
    assert transfer.share_left({"photos": photos(verdict())}, "photos") is None


def test_there_is_no_table_without_photographs():
    assert transfer.table({"roialign": drawn({})}) == "" and transfer.floors({}) == ""


def test_the_questions_are_hypotheses_and_arms_of_the_studies(compose):
    for entry in transfer.contents()["set"]:
        names = [item["name"] for item in compose([f"study={entry['study']}"]).study.hypotheses]
        assert {question["hypothesis"] for question in transfer.contents()["question"]} <= set(names)
    for question in transfer.contents()["question"]:
        source = question["synthetic"]
        assert set(source["arms"]) <= set(compose([f"study={source['study']}"]).study.arms)


@pytest.mark.parametrize("margin, expected", [(10.0, "So there are no verdicts."), (9.0, "with caution.")])
def test_the_distance_to_the_floor_is_told(margin, expected):
    figures = {"true_boxes": 66.7, "floor_box": 50.0, "floor_ellipse": 56.8}
    weaker = figures | {"true_boxes": 64.0}
    floor = SimpleNamespace(arm="align-16", margin=margin, figure="IoU_96_px_and_more")
    arms = {f"align-{stride}": SimpleNamespace(factors={"roi": "align", "stride": stride}) for stride in (16, 32)}
    of = lambda arm, metric: (weaker if arm == "align-32" else figures)[metric.partition(".")[0]]  # noqa: E731
    study = SimpleNamespace(
        record=SimpleNamespace(floor=floor, arms=arms),
        values=lambda arm, metric: {5: of(arm, metric)},
        mean=of,
        label=lambda arm: f"RoIAlign, stride {arm[-2:]}",
    )
    analysis = SimpleNamespace(study=study, floor_noise=None)
    told = transfer.floors({"photos": analysis})
    assert "reach an IoU of 66.7. That is 9.9 points above" in told and told.endswith(expected)
    assert ("stride 32, it is 7.2 points" in told) == (margin == 9.0)
