"""Tracking shows what it should, works offline, sends nothing secret and never makes a run fail."""

import dataclasses
import json
import shutil
import socket
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.config.loading import from_hydra
from ablations.config.schema import LoggerConfig
from ablations.config.study import Run
from ablations.records.schema import RunRecord
from ablations.tracking import sample_masks, trackers
from ablations.tracking.replay import offline_note, replay

METRICS = {"segm": {"AP": 12.5, "APl": None}, "bbox": {"AP": 20.0, "APl": 3.0}}
SECRET = "kept-to-yourself-0123456789abcdef0123456789"


@pytest.fixture
def folder(tmp_path):
    """A run's folder in a study with one sample image of 8 x 8 pixels, whose left half is detected as a cat."""
    folder = tmp_path / "study/arm/seed0"
    folder.mkdir(parents=True)
    (tmp_path / "study/samples").mkdir()
    Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(tmp_path / "study/samples/7.png")
    left = {"size": [8, 8], "counts": [0, 32, 32]}  # columns first, as COCO counts them
    truth = {"categories": [{"id": 3, "name": "cat"}], "annotations": [], "images": [{"id": 7}]}
    (tmp_path / "study/ground_truth.json").write_text(json.dumps(truth))
    results = [{"image_id": 7, "category_id": 3, "score": score, "segmentation": left} for score in (0.9, 0.1)]
    (folder / "detections.json").write_text(json.dumps(results))
    return folder


def run_with(compose, folder, kind):
    """The run whose files are in `folder`, with this logger."""
    config = dataclasses.replace(from_hydra(compose([])), logger=LoggerConfig(kind), outputs=str(folder.parents[2]))
    return Run("study", "arm", config)


def kept_by_wandb(folder, *expected):
    """All files of W&B, once they contain the expected words: its own process writes them a little later."""
    for _ in range(200):
        content = b"".join(path.read_bytes() for path in (folder / "wandb").rglob("*") if path.is_file())
        if all(word in content for word in expected):
            return content
        time.sleep(0.1)
    raise AssertionError(f"expected {expected}, got {len(content)} bytes without one of them")


def test_sample_images_show_detections_above_a_score(folder):
    (sample,) = sample_masks.samples_of(folder)
    assert sample.image_id == 7 and sample.classes == {3: "cat"}
    assert (sample.detections == np.repeat([[3] * 4 + [0] * 4], 8, axis=0)).all() and not sample.truth.any()
    picture = sample_masks.paint(sample)
    assert picture.shape == (8, 16, 3) and (picture[:, :8] == 100).all() and (picture[:, 8:12] != 100).any()


@pytest.mark.slow
def test_more_than_255_classes_keep_their_colours_and_names(folder):
    """300 classes, of which two are on the masks: TensorBoard shows each; W&B's 127 are numbered by what is there."""
    classes = {number: f"class {number}" for number in range(1, 301)}
    truth = json.loads((folder.parents[1] / "ground_truth.json").read_text())
    truth["categories"] = [{"id": number, "name": name} for number, name in classes.items()]
    pixel = {"size": [8, 8], "counts": [63, 1]}
    truth["annotations"] = [{"image_id": 7, "category_id": 300, "segmentation": pixel}]
    (folder.parents[1] / "ground_truth.json").write_text(json.dumps(truth))
    (sample,) = sample_masks.samples_of(folder)
    assert sample.truth[7, 7] == 300 and (sample_masks.paint(sample)[7, 7] != 100).any()
    few = sample_masks.renumbered(sample, 127)
    assert few.truth[7, 7] == 2 and few.detections[0, 0] == 1 and few.classes == {1: "class 3", 2: "class 300"}
    assert (few.truth > 0).sum() == 1 and few.detections[:, 4:].max() == 0
    many = dataclasses.replace(sample, truth=np.arange(300).reshape(10, 30), detections=np.zeros((10, 30), int))
    few = sample_masks.renumbered(many, 127)
    assert few.truth.max() == 127 and few.classes[126] == "class 126" and few.classes[127] == "other classes"
    empty = np.zeros((8, 8), int)
    few = sample_masks.renumbered(dataclasses.replace(sample, truth=empty, detections=empty), 127)
    assert not few.classes and not few.truth.any()


@pytest.mark.slow
def test_wandb_without_an_account_keeps_runs_offline_and_stores_nothing_secret(compose, folder, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["run.py", SECRET])
    monkeypatch.setattr(socket, "gethostname", lambda: SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = run_with(compose, folder, "wandb")
    names = []
    for _ in range(2):
        tracker = trackers.make_tracker(run)
        assert isinstance(tracker.tracker, trackers.WandB)
        names.append(tracker.tracker.run.id)
        assert tracker.tracker.run.group == "study" and tracker.tracker.run.job_type == "arm"
        tracker.log(0, {"mask": 0.7})
        tracker.finish(METRICS)
        assert isinstance(tracker.tracker, trackers.WandB), "something of W&B failed"
    assert names[0] != names[1]  # the first was finished
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 2
    content = kept_by_wandb(folder, b"images_per_step", b"train/mask", b"segm", b"detections", b"cat")
    assert SECRET.encode() not in content


@pytest.mark.slow
def test_the_report_is_an_artifact_and_a_failing_report_only_warns(compose, folder, monkeypatch, caplog):
    def write_report(study, target):
        target.mkdir()
        (target / "report.md").write_text("found")

    monkeypatch.setenv("WANDB_MODE", "offline")
    config = run_with(compose, folder, "wandb").config
    trackers.publish_report("study", config, write_report)
    assert "was not uploaded" not in caplog.text
    kept_by_wandb(folder.parents[1], b"study-report")
    trackers.publish_report("study", config, write_report)  # the folder is there: it raises
    assert "was not uploaded to W&B: FileExistsError" in caplog.text


def test_the_report_is_sent_once_for_each_version(compose, folder, monkeypatch, caplog):
    """W&B is a stand-in that notes what it is sent."""
    sent, reports = [], {"report.md": "found", "figures/paired.svg": "<svg/>"}

    class Artifact:
        def __init__(self, name, type):
            self.files = {}

        def add_dir(self, path):
            paths = [path for path in Path(path).rglob("*") if path.is_file()]
            self.files = {path.name: path.read_text() for path in paths}

    class Destination:
        def log_artifact(self, artifact):
            sent.append(artifact.files)

        def finish(self):
            if reports.pop("fail", False):
                raise ConnectionError("no network")

    def write_report(study, target):
        for name, text in reports.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(str(text))

    def publish(**settings):
        config = dataclasses.replace(
            run_with(compose, folder, "wandb").config, logger=LoggerConfig("wandb", **settings)
        )
        trackers.publish_report("study", config, write_report)
        return len(sent)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Artifact=Artifact))
    monkeypatch.setattr(trackers.WandB, "start", lambda *_, **__: Destination())
    assert [publish(), publish()] == [1, 1] and sent == [{"report.md": "found", "paired.svg": "<svg/>"}]
    reports["report.md"] = "found more"
    assert [publish(), publish()] == [2, 2] and sent[-1]["report.md"] == "found more"
    assert [publish(project="another"), publish(project="another")] == [3, 3]
    reports |= {"report.md": "found all", "fail": True}
    assert [publish(), publish(), publish()] == [4, 5, 5], "what failed is sent again"
    assert "was not uploaded to W&B: ConnectionError" in caplog.text


def test_an_unfinished_run_keeps_its_wandb_id(tmp_path):
    assert trackers.identity(tmp_path) == trackers.identity(tmp_path)


def test_without_an_account_or_a_network_runs_stay_offline(compose, folder, monkeypatch, caplog):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    assert not trackers.has_account()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert trackers.has_account()

    wandb = pytest.importorskip("wandb")
    modes = []

    def init(mode=None, **_):
        modes.append(mode)
        if mode is None:
            raise wandb.errors.CommError("timed out")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(trackers.WandB, "unreachable", False)
    for _ in range(2):
        trackers.WandB(run_with(compose, folder, "wandb"))
    assert modes == [None, "offline", "offline"]  # it waits for the service once
    assert "stay offline" in caplog.text


def test_tensorboard_shows_curves_metrics_and_masks_and_a_resumed_run_once(compose, folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_with(compose, folder, "tensorboard")
    killed = trackers.make_tracker(run)
    killed.log(0, {"mask": 0.9})
    killed.tracker.writer.close()
    tracker = trackers.make_tracker(run)
    for step, value in ((0, 0.75), (10, 0.5)):
        tracker.log(step, {"mask": value})
    tracker.finish(METRICS)
    assert isinstance(tracker.tracker, trackers.TensorBoard), "something of TensorBoard failed"
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/mask")] == [(0, 0.75), (10, 0.5)]
    assert events.Scalars("bbox/AP")[0].value == 20.0
    assert events.Tags()["images"] == ["samples/7"]


@pytest.fixture
def finished(compose, folder):
    """finished(kind) -> a run without a tracker, or reused from another study, and its records by folder."""
    (folder / "metrics.jsonl").write_text('{"step": 0, "mask": 0.75}\n{"step": 10, "mask": 0.5}\n')

    def runs(kind, **settings):
        run = run_with(compose, folder, kind)
        run = dataclasses.replace(run, config=dataclasses.replace(run.config, logger=LoggerConfig(kind, **settings)))
        about = (run.config.settings(), run.config.hash(), {}, {}, 3, 9, {}, METRICS, {}, {})
        return [run], {run.folder: RunRecord("study", "arm", 0, *about)}

    return runs


def test_tensorboard_gets_finished_runs_whole_and_once(finished, folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert replay(*finished("none")) == 0
    assert replay(*finished("tensorboard")) == 1
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/mask")] == [(0, 0.75), (10, 0.5)]
    assert len(events.Scalars("bbox/AP")) == 1 and events.Tags()["images"] == ["samples/7"]
    started = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"roi.op" in started and b"budget.train.lr" in started
    assert replay(*finished("tensorboard")) == 0
    shutil.rmtree(folder / "tensorboard")
    assert replay(*finished("tensorboard")) == 1


def test_a_tracker_that_failed_gets_the_run_again(finished, monkeypatch):
    class Broken(trackers.NullTracker):
        def __init__(self, run):
            raise ConnectionError("no network")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Broken)
    assert replay(*finished("tensorboard")) == replay(*finished("tensorboard")) == 1


@pytest.mark.slow
def test_wandb_keeps_all_that_is_to_be_sent_in_the_outputs(finished, folder, tmp_path, monkeypatch):
    """A finished run and the report; the user's home stays as it is, and no list of packages is kept."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    runs, records = finished("wandb", mode="offline", entity="team", tags=["first"])
    assert offline_note(runs) == "" and replay(runs, records) == 1 and replay(runs, records) == 0
    assert replay(*finished("wandb", mode="offline", project="another")) == 1, "another project has not seen it"

    def write_report(study, target):
        target.mkdir()
        (target / "report.md").write_text("found")

    trackers.publish_report("study", runs[0].config, write_report)
    study = folder.parents[1]
    content = kept_by_wandb(folder, b"train/mask", b"first", b"detections")
    assert b"samples" in content and kept_by_wandb(study, b"study-report")
    assert any(path.read_bytes() == b"found" for path in (study / "wandb").rglob("tmp*") if path.is_file())
    assert not list(study.rglob("requirements.txt"))
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "log" not in path.suffix]
    note = offline_note(runs)
    assert "3 runs are kept offline" in note and f"wandb sync {study}/*/*/wandb/offline-run-* {study}/wandb/" in note


def test_a_failing_tracker_is_dropped_with_a_warning(caplog):
    class Broken(trackers.NullTracker):
        def log(self, step, values):
            raise ConnectionError("no network")

    tracker = trackers.SafeTracker(Broken)
    tracker.log(0, {"mask": 0.7})
    tracker.log(1, {"mask": 0.6})
    tracker.finish({})
    assert "ConnectionError: no network" in caplog.text and caplog.text.count("tracking stopped") == 1
    failing = trackers.SafeTracker(lambda: 1 / 0)
    failing.log(0, {})
    assert "ZeroDivisionError" in caplog.text
