"""The section on average precision along training."""

import dataclasses

from ablations.records.schema import ExhibitRecord
from reports.analysis import analyse
from reports.exhibits.learning import section
from reports.load import read_study
from tests.reports.figures.measure import Measured


def test_the_section_says_whose_weights_these_are_and_that_no_verdict_uses_them(outputs):
    reached = {"segm": {"AP": 10.0}}, {"segm": {"AP": 36.25}}, {"segm": {"AP": None}}
    points = [{"step": step, "metrics": metrics} for step, metrics in zip((31, 500, 900), reached, strict=True)]
    content = {"seed": 5, "arms": {"pool16": points, "align16": points[1:]}}
    figures = Measured()
    exhibit = ExhibitRecord("learning", "roialign", {}, content, {})
    text = section(analyse(read_study(outputs, "roialign"), resamples=0), exhibit, figures)
    assert (
        "of the runs with seed 5" in text
        and "the earlier points enter no verdict. This is one seed: small gaps" in text
    )
    assert "| RoIPool, stride 16 | 10.0 | 36.2 |" in text and "| RoIAlign, stride 16 | – | 36.2 |" in text
    assert "No weights were kept" not in text
    assert figures.drawn == ["learning"] and figures.faults == {}


def test_mask_ap_stands_for_a_headline_that_is_taken_of_finished_runs(outputs):
    analysis = dataclasses.replace(
        analyse(read_study(outputs, "roialign"), resamples=0), primary="competition.AP_mildest"
    )
    points = [{"step": 500, "metrics": {"segm": {"AP": 36.25}}}]
    figures = Measured()
    exhibit = ExhibitRecord("learning", "roialign", {}, {"seed": 5, "arms": {"pool16": points}}, {})
    text = section(analysis, exhibit, figures)
    assert "*Mask AP along training" in text and "| RoIPool, stride 16 | 36.2 |" in text
    assert "No weights were kept during the training of RoIPool, stride 16: the same command with `force=true`" in text
    nothing = ExhibitRecord("learning", "roialign", {}, {"seed": 5, "arms": {"pool16": []}}, {})
    assert "Neither mask AP nor box AP was measured" in section(analysis, nothing, Measured())
