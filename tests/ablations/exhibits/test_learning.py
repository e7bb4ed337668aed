"""The exhibit "learning": average precision along training."""

import dataclasses

import pytest

from ablations.config.study import compose_study
from ablations.errors import ConfigError, TrainingError
from ablations.execution.command import start_study
from ablations.execution.run import run_arm
from ablations.exhibits import learning
from ablations.records.schema import WEIGHTS
from ablations.records.storage import load_study
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.store import stages_of
from ablations.training.snapshots import snapshots

TINY = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", "device=cpu"]
TINY += ["precision=float32", "budget.rpn.steps=1", "budget.train.steps=4", "model.score_threshold=0.02"]


@pytest.fixture
def trained(compose, tmp_path, log):
    """A study of two arms and its runs, all of them done, with the seeds 5 and 6."""
    overrides = ["study=maskloss", *TINY, "budget.seeds=2", "budget.first_seed=5", f"outputs={tmp_path}"]
    study, runs = compose_study(compose(overrides), overrides, compose)
    start_study(study, runs)
    make_backbone(stages_of(runs[0].config), log)
    make_proposals(stages_of(runs[0].config), log)
    return load_study(tmp_path / "maskloss/study.json"), runs, [run_arm(run, log) for run in runs]


@pytest.mark.slow
def test_the_first_seeds_runs_are_evaluated_with_the_weights_that_they_kept(trained, tmp_path):
    study, runs, records = trained
    measured = [learning.measure_run(study, run) for run in runs]
    content = learning.make(study, runs, tmp_path, measured)
    assert content["seed"] == 5 and set(content["arms"]) == {"softmax", "sigmoid"}
    for run, record in zip(runs[:2], records[:2], strict=True):
        points = content["arms"][run.arm]
        assert [point["step"] for point in points] == [1, 2, 4]
        assert points[-1]["metrics"] == {kind: record.metrics[kind] for kind in ("bbox", "segm")}
        # The weights of the end, put in a snapshot's place, reach what the run did.
        (run.folder / "snapshot-2.safetensors").write_bytes((run.folder / WEIGHTS).read_bytes())
        assert learning.measure_run(study, run)[1]["metrics"] == points[-1]["metrics"]
    assert measured[2:] == [None, None] and not snapshots(runs[2].folder)


@pytest.mark.slow
def test_a_damaged_snapshot_is_named_with_what_to_do(trained):
    study, runs, _ = trained
    snapshots(runs[0].folder)[1].write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"snapshot-1\.safetensors: expected the weights .* force=true"):
        learning.measure_run(study, runs[0])


def test_runs_without_detections_have_no_average_precision(compose):
    overrides = ["study=rpn"]
    study, runs = compose_study(compose(overrides), overrides, compose)
    with pytest.raises(ConfigError, match="expected runs that detect, got task=proposals"):
        learning.measure_run(study, runs[0])


def test_what_keeps_the_weights_does_not_change_the_training(trained, compose, tmp_path, log):
    """The first seed's run is the same as that of a study in which it is not the first."""
    _, runs, records = trained
    budget = dataclasses.replace(runs[0].config.budget, first_seed=4)
    config = dataclasses.replace(runs[0].config, budget=budget)
    again = run_arm(dataclasses.replace(runs[0], study="again", config=config), log)
    assert not snapshots(tmp_path / "again/softmax/seed5") and again.metrics == records[0].metrics
    assert again.files[WEIGHTS] == records[0].files[WEIGHTS]
