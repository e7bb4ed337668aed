"""The CSV files: a row for each run, nothing that a spreadsheet would run."""

import dataclasses

import pandas as pd
import pytest

from reports.analysis import analyse
from reports.text.frames import contrasts_frame, runs_frame, write_csv
from tests.reports.text.hand_made import study


def test_cells_that_a_spreadsheet_would_run_are_text(tmp_path):
    frame = pd.DataFrame({"label": ["=1+1", "@sum", "-2", "fine"], "value": [-1.5, 2.0, 3.0, 4.0]})
    write_csv(frame, tmp_path / "frame.csv")
    lines = (tmp_path / "frame.csv").read_text().splitlines()
    assert lines[1:] == ["'=1+1,-1.5", "'@sum,2", "'-2,3", "fine,4"]


def test_every_metric_loss_and_cost_of_a_run_has_a_column():
    frame = runs_frame(study()).set_index(["arm", "seed"])
    run = frame.loc["align32", 1]
    assert (run["segm.AP"], run["segm.AP75"]) == (37, 36) and run["loss.loss_mask"] == pytest.approx(0.33)
    assert (run["cost.train_seconds"], run["steps"]) == (45, 400)
    assert (run["label"], run["roi"], run["stride"]) == ("RoIAlign, stride 32", "align", 32)
    assert len(frame) == 8 and len(frame.columns) == 17


def test_factors_that_the_first_arm_lacks_stand_with_the_others():
    whole = study()
    arms = dict(whole.record.arms)
    arms["pool16"] = dataclasses.replace(arms["pool16"], factors={"roi": "pool"})
    frame = runs_frame(study(arms=arms, factors=whole.record.factors))
    assert list(frame.columns)[:8] == ["study", "arm", "label", "roi", "stride", "seed", "steps", "num_parameters"]
    assert frame.set_index("arm").loc["pool16", "stride"].isna().all()


def test_contrasts_have_their_estimate_and_a_verdict_where_one_was_asked_for():
    frame = contrasts_frame(analyse(study(), resamples=0)).set_index(["contrast", "metric"])
    asked = frame.loc[("RoIAlign − RoIPool, stride 16", "segm.AP")]
    assert (asked["mean"], asked["n"], asked["paper"]) == (11, 2, pytest.approx(3.4))
    assert (asked["hypothesis"], asked["verdict"]) == ("mask-ap-16", "undecided")
    assert asked["low"] < 0 < 11 < asked["high"]  # two seeds: 12.7 times the standard error of 1
    other = frame.loc[("RoIAlign − RoIPool, stride 16", "segm.AP75")]
    assert other["mean"] == 11 and pd.isna(other["hypothesis"])
    assert frame.loc[("RoIAlign − RoIPool, stride 32 − stride 16", "segm.AP"), "mean"] == 4


def test_a_study_without_runs_has_frames_without_values():
    empty = study(runs=[])
    assert list(runs_frame(empty).columns) == [
        "study",
        "arm",
        "label",
        "roi",
        "stride",
        "seed",
        "steps",
        "num_parameters",
    ]
    assert len(runs_frame(empty)) == 0
    frame = contrasts_frame(analyse(empty, resamples=0))
    assert set(frame["n"]) == {0} and frame["mean"].isna().all()
    unasked = study(runs=[], hypotheses=[], arms={"align16": empty.record.arms["align16"]})
    assert len(contrasts_frame(analyse(unasked, resamples=0))) == 0
