"""Tracking: offline without an account, and never the reason for a run to fail."""

import dataclasses

from ablations import tracking
from ablations.config import LoggerConfig, from_hydra


def test_runs_without_an_account_are_kept_offline(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = dataclasses.replace(from_hydra(compose([])), logger=LoggerConfig("wandb"))
    for arm in ("first", "second"):
        tracker = tracking.start("study", arm, config, tmp_path)
        assert isinstance(tracker.tracker, tracking.WandB)
        tracker.log(0, {"mask": 0.7})
        tracker.finish({"segm": {"AP": 12.0}})
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_no_account_means_offline(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not tracking.has_account()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert tracking.has_account()


def test_a_tracker_that_fails_is_given_up_with_a_warning(caplog):
    class Broken(tracking.Nothing):
        def log(self, step, values):
            raise ConnectionError("no network")

    tracker = tracking.Safe(Broken)
    tracker.log(0, {"mask": 0.7})
    tracker.log(1, {"mask": 0.6})
    tracker.finish({})
    assert "ConnectionError: no network" in caplog.text and caplog.text.count("tracking stopped") == 1
    failing = tracking.Safe(lambda: 1 / 0)
    failing.log(0, {})
    assert "ZeroDivisionError" in caplog.text
