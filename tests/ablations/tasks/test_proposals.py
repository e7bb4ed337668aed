"""The task "proposals": a run is the shared proposal network, trained with its own seed."""

import pytest
import torch
from safetensors.torch import load_file

from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.errors import ConfigError
from ablations.execution.run import run_arm
from ablations.records.summary import headline, table
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.store import stages_of


def test_seed_0_gives_the_shared_proposal_network_and_another_seed_does_not(compose, tmp_path, log):
    tiny = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", "budget.rpn.steps=2"]
    tiny += ["budget.backbone.steps=1", f"outputs={tmp_path}", "device=cpu"]
    shared = stages_of(from_hydra(compose(tiny)))
    make_backbone(shared, log)
    make_proposals(shared, log)
    network, cached = load_file(shared.rpn_folder / "model.safetensors"), shared.proposals("val")

    runs = {}
    for seed in (0, 1):
        config = from_hydra(compose([*tiny, "task=proposals", f"seed={seed}"]))
        run = Run("rpn", "arm", config)
        record = run_arm(run, log)
        assert set(record.stages) == {"backbone"} and record.steps == 2
        assert "average recall" in headline(record) and "R50" in table(record)
        runs[seed] = load_file(run.folder / "model.safetensors")
    saved = load_file(tmp_path / "rpn/arm/seed0/proposals.safetensors")
    assert all(torch.equal(runs[0][name], network[name]) for name in network)
    assert torch.equal(saved["boxes"], cached.boxes) and torch.equal(saved["scores"], cached.scores)
    assert not all(torch.equal(runs[0][name], runs[1][name]) for name in network)


def test_a_joint_rpn_is_refused(compose):
    with pytest.raises(ConfigError, match="rpn: expected separate, got joint"):
        from_hydra(compose(["task=proposals", "rpn=joint"]))
