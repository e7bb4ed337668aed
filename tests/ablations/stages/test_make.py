"""What the stages leave for the networks that use them."""

import pytest
import torch
from torchvision.models import resnet50

from ablations.config.loading import from_hydra
from ablations.stages.make import make_backbone
from ablations.stages.proposals import proposal_network
from ablations.stages.store import Stages
from ablations.tasks.detection import build_model


@pytest.mark.slow
def test_a_resnets_backbone_has_the_given_weights(compose, tmp_path):
    network = resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    overrides = ["model=r50_c4", f"model.weights={tmp_path / 'weights.pth'}", "budget=smoke", "budget.train_images=1"]
    config = from_hydra(compose([*overrides, "budget.val_images=1"]))
    stages = Stages(tmp_path / "stages", config)
    make_backbone(stages, lambda *_: None)
    detector, proposer = build_model(stages), proposal_network(stages, seed=0)
    for trunk in (detector.backbone, proposer.trunk):
        assert torch.equal(trunk.stages[3][0].conv2.weight, network.layer3[0].conv2.weight)
    assert torch.equal(detector.shared_head.layer[2].conv3.weight, network.layer4[2].conv3.weight)
