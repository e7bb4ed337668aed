"""A study of proposals: levels fixed beforehand as hypotheses, curves, and nothing of masks or boxes."""

import dataclasses

import pytest

from ablations.records.schema import Hypothesis
from ablations.records.storage import save
from reports.analysis import analyse
from reports.claims import read_claims
from reports.figures.style import Figures
from reports.load import read_study
from reports.render import render
from reports.stats.verdicts import verdicts
from reports.text.wording import sentence
from tests.reports.conftest import run_record, save_nothing, study_record

LEVEL = Hypothesis(
    "level", "Ten cover more than 90 %", "recall.R50@10", {"stride-16": 1}, threshold=90, source="slide 3"
)
LOSS = Hypothesis(
    "loss", "Ten lose little", "recall.R50@48 - recall.R50@10", {"stride-16": 1}, direction="less", threshold=5
)


def metrics_at(level: float) -> dict[str, float]:
    """Recall that falls with the IoU and rises with the number."""
    metrics_by_name = {}
    for number, gain in ((1, -40.0), (10, 0.0), (48, 1.0)):
        by_threshold = {t: max(0.0, level + gain - (t - 50)) for t in range(50, 100, 5)}
        metrics_by_name[f"AR@{number}"] = sum(by_threshold.values()) / 10
        metrics_by_name |= {f"R{t}@{number}": value for t, value in by_threshold.items()}
    return metrics_by_name


@pytest.fixture
def study(tmp_path):
    whole = study_record(3)
    arms = {name: whole.arms[old] for name, old in (("stride-16", "align16"), ("stride-32", "align32"))}
    record = dataclasses.replace(whole, name="rpn", arms=arms, hypotheses=[LEVEL, LOSS], factors=["stride"])
    save(record, tmp_path / "rpn" / "study.json")
    for arm, old, level in (("stride-16", "align16", 96.0), ("stride-32", "align32", 90.0)):
        for seed in range(3):
            untrained = {"anchors": metrics_at(50.0), "grid": metrics_at(60.0), "random": metrics_at(20.0)}
            metrics = {"recall": metrics_at(level + seed), **untrained}
            run = dataclasses.replace(run_record(old, seed), arm=arm, metrics=metrics)
            save(run, tmp_path / "rpn" / arm / f"seed{seed}" / "run.json")
    return read_study(tmp_path, "rpn")


def test_a_level_is_counted_from_its_threshold(study):
    level, loss = verdicts(study)
    assert level.kind == loss.kind == "reproduced"
    assert level.estimate.mean == pytest.approx(7) and loss.estimate.mean == pytest.approx(-4)
    assert "**+97.0 points** (95 % interval +94.5 to +99.5 against the threshold of 90" in sentence(level, 2)


def test_a_level_that_is_missed_is_contradicted(study):
    missed = dataclasses.replace(LEVEL, threshold=100)
    record = dataclasses.replace(study.record, hypotheses=[missed])
    assert verdicts(dataclasses.replace(study, record=record))[0].kind == "contradicted"


def test_the_report_shows_recall_and_no_empty_sections(study, tmp_path, monkeypatch):
    monkeypatch.setattr(Figures, "save", save_nothing)
    render(study, tmp_path / "report", page=False)
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert text.index("figures/recall.svg") < text.index("## Claims")
    assert "| RoIAlign, stride 16 | 10 | 97.0 ± 1.0 | 72.0 ± 1.0 |" in text
    for absent in ("The same images", "By size of the object", "Noise of the images", "mask AP"):
        assert absent not in text


def test_slide_3_compares_proposals_with_untrained_boxes(study):
    claim = next(claim for claim in read_claims({"rpn": analyse(study, resamples=0)}) if claim.slide == 3)
    assert claim.answer == (
        "The ten best proposals of an image cover **97.0** % of its objects at an IoU of 0.5; ten windows of a regular "
        "grid cover **60.0** %, ten anchors in random order **50.0** %, ten random boxes **20.0** %."
    )
