"""The exhibit "learning": average precision along training."""

import dataclasses

import pytest

from ablations.config.study import compose_study
from ablations.execution.command import start_study
from ablations.execution.run import run_arm
from ablations.exhibits import learning
from ablations.records.storage import load_study
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.store import stages_of

TINY = ["budget=smoke", "budget.seeds=1", "budget.train_images=8", "budget.val_images=4", "device=cpu"]
TINY += ["precision=float32", "budget.rpn.steps=1", "budget.train.steps=4", "model.score_threshold=0.02"]


@pytest.mark.slow
def test_the_last_point_is_what_a_run_with_that_seed_reaches(compose, tmp_path, log):
    overrides = ["study=maskloss", *TINY, f"outputs={tmp_path}"]
    study, runs = compose_study(compose(overrides), overrides, compose)
    start_study(study, runs)
    stages = stages_of(runs[0].config)
    make_backbone(stages, log)
    make_proposals(stages, log)
    content = learning.make(load_study(tmp_path / "maskloss/study.json"), runs, tmp_path)
    assert content["seed"] == 1 and set(content["arms"]) == {"softmax", "sigmoid"}
    for run in runs:
        points = content["arms"][run.arm]
        assert [point["step"] for point in points] == [1, 2, 4]
        record = run_arm(dataclasses.replace(run, config=dataclasses.replace(run.config, seed=1)), log)
        assert points[-1]["metrics"] == record.metrics
