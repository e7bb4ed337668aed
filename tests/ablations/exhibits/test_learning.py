"""The exhibit "learning", average precision along training, and the snapshots that it is made of."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from ablations.config.study import compose_study
from ablations.errors import ConfigError, RecordError, Stopped
from ablations.execution.command import start_study
from ablations.execution.jobs import plan
from ablations.execution.reuse import finished_record, reuse_finished_run
from ablations.execution.run import run_arm
from ablations.exhibits import learning
from ablations.records.schema import WEIGHTS
from ablations.records.storage import load_study
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.store import stages_of
from ablations.tasks.detection import trained_model
from ablations.training import loop
from ablations.training.snapshots import snapshots_in

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("learning")]  # one process makes what the tests share

TINY = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", "device=cpu", "precision=float32"]
TINY += ["budget.rpn.steps=1", "budget.train.steps=4", "model.score_threshold=0.02", "budget.seeds=2"]


@pytest.fixture
def composed(compose, tmp_path):
    """The study and its runs, of which none is done, with the seeds 5 and 6."""
    overrides = ["study=maskloss", *TINY, "budget.first_seed=5", f"outputs={tmp_path}"]
    return compose_study(compose(overrides), overrides, compose)


@pytest.fixture
def runs(composed, log):
    """The runs, of which none is done; their stages are."""
    start_study(*composed)
    stages = stages_of(composed[1][0].config)
    make_backbone(stages, log)
    make_proposals(stages, log)
    return composed[1]


def names_in(folder):
    return sorted(path.name for path in folder.glob("snapshot-*"))


def test_the_first_seeds_runs_keep_their_weights_and_these_are_evaluated(runs, tmp_path, log):
    records = [run_arm(run, log) for run in runs[:3]]
    study = load_study(tmp_path / "maskloss/study.json")
    assert [names_in(run.folder) for run in runs[:3]] == [["snapshot-1.safetensors", "snapshot-2.safetensors"]] * 2 + [
        []
    ]
    measured = [learning.measure_run(study, run) for run in runs[:3]]
    content = learning.make(study, runs[:3], tmp_path, measured)
    assert content["seed"] == 5 and set(content["arms"]) == {"softmax", "sigmoid"} and measured[2] is None
    first, last = (load_file(runs[0].folder / name) for name in ("snapshot-1.safetensors", WEIGHTS))
    assert set(first) == set(last) and any(not torch.equal(first[name], last[name]) for name in first)
    for run, record in zip(runs[:2], records, strict=False):
        points = content["arms"][run.arm]
        assert [point["step"] for point in points] == [1, 2, 4]
        assert points[-1]["metrics"] == {kind: record.metrics[kind] for kind in ("bbox", "segm")}
        assert all(set(point["metrics"]) == {"bbox", "segm"} for point in points)


def test_what_is_evaluated_are_the_snapshots_weights(runs, tmp_path, log, monkeypatch):
    run_arm(runs[0], log)
    seen = []
    monkeypatch.setattr(
        learning, "detect", lambda model, stages: seen.append(model.state_dict()["box_head.scores.bias"].clone()) or []
    )
    learning.measure_run(load_study(tmp_path / "maskloss/study.json"), runs[0])
    kept = [load_file(runs[0].folder / f"snapshot-{step}.safetensors")["box_head.scores.bias"] for step in (1, 2)]
    assert len(seen) == 2 and all(map(torch.equal, seen, kept)) and not torch.equal(*kept)
    assert not torch.equal(kept[1], trained_model(runs[0]).state_dict()["box_head.scores.bias"])


def test_a_damaged_snapshot_is_refused_and_its_run_made_again(runs, tmp_path, log):
    run_arm(runs[0], log)
    path = runs[0].folder / "snapshot-2.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"snapshot-2\.safetensors is damaged"):
        learning.measure_run(load_study(tmp_path / "maskloss/study.json"), runs[0])
    assert finished_record(runs[0]) is None


def test_snapshots_of_an_abandoned_training_are_not_those_of_the_next(runs, tmp_path, log, monkeypatch):
    """A training is stopped after its first snapshot; the next has another number of steps."""
    calls = iter([False, False, True])
    monkeypatch.setattr(loop, "stop_requested", lambda: next(calls))
    with pytest.raises(Stopped):
        run_arm(runs[0], log)
    assert names_in(runs[0].folder) == ["snapshot-1.safetensors", "snapshot-2.safetensors"]
    monkeypatch.setattr(loop, "stop_requested", lambda: False)
    train = dataclasses.replace(runs[0].config.budget.train, steps=8)
    budget = dataclasses.replace(runs[0].config.budget, train=train)
    longer = dataclasses.replace(runs[0], config=dataclasses.replace(runs[0].config, budget=budget))
    (runs[0].folder / "snapshot-3.safetensors").write_bytes(b"left behind")
    record = run_arm(longer, log)
    assert snapshots_in(record.files) == {step: f"snapshot-{step}.safetensors" for step in (1, 2, 4)}
    assert names_in(longer.folder) == list(snapshots_in(record.files).values())


def test_a_continued_training_keeps_the_snapshots_from_before_it_was_stopped(runs, log, monkeypatch):
    whole = run_arm(runs[0], log)
    again = dataclasses.replace(runs[0], study="stopped")
    calls = iter([False, True])
    monkeypatch.setattr(loop, "stop_requested", lambda: next(calls))
    with pytest.raises(Stopped):
        run_arm(again, log)
    monkeypatch.setattr(loop, "stop_requested", lambda: False)
    record = run_arm(again, log)
    assert record.provenance["resumed"] == [2] and record.files == whole.files


def test_snapshots_change_nothing_and_a_reused_run_brings_them_along(runs, tmp_path, log):
    without = dataclasses.replace(runs[0].config, snapshots=None)
    plain = run_arm(dataclasses.replace(runs[0], study="plain", config=without), log)
    kept = run_arm(runs[0], log)
    assert plain.metrics == kept.metrics and plain.files[WEIGHTS] == kept.files[WEIGHTS]
    assert not snapshots_in(plain.files) and len(snapshots_in(kept.files)) == 2
    (tmp_path / "plain/softmax/seed5/run.json").unlink()
    other = dataclasses.replace(runs[0], study="other")
    other.folder.mkdir(parents=True)  # its lock would be there
    reused = reuse_finished_run(other)
    assert reused.files == kept.files and len(names_in(other.folder)) == 2
    study = load_study(tmp_path / "maskloss/study.json")
    assert learning.measure_run(study, other) == learning.measure_run(study, runs[0])


def test_a_run_that_kept_nothing_has_its_last_point_alone(runs, tmp_path, log):
    record = run_arm(dataclasses.replace(runs[0], config=dataclasses.replace(runs[0].config, snapshots=False)), log)
    (point,) = learning.measure_run(load_study(tmp_path / "maskloss/study.json"), runs[0])
    assert point == {"step": 4, "metrics": {kind: record.metrics[kind] for kind in ("bbox", "segm")}}


def test_a_full_disk_costs_a_snapshot_not_the_run(runs, log, monkeypatch):
    from ablations.training import snapshots

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, "write_atomically", full)
    record = run_arm(runs[0], log)
    assert not snapshots_in(record.files) and record.steps == 4
    assert "no snapshot at step 2: No space left on device; training continues" in log.file.getvalue()


def test_which_runs_keep_snapshots(composed, compose):
    _, runs = composed
    assert [run.config.snapshots for run in runs] == [True, True, False, False]
    assert all(run.config.hash() == dataclasses.replace(run.config, snapshots=None).hash() for run in runs)
    for overrides, expected in (
        (["study=length"], {False}),
        (["study=maskloss", "snapshots=false"], {False}),
        (["study=length", "snapshots=true"], {True}),
    ):
        _, others = compose_study(compose(overrides), overrides, compose)
        assert {run.config.snapshots for run in others} == expected
    assert len(plan(runs)) > len(runs)


def test_studies_without_detectors_have_no_average_precision_along_training(compose):
    overrides = ["study=rpn", "study.exhibits=[learning]"]
    with pytest.raises(ConfigError, match="learning: expected a study of detectors, got task=proposals"):
        compose_study(compose(overrides), overrides, compose)
