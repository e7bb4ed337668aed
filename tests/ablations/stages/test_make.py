"""What the stages leave for the networks that use them."""

import errno
from dataclasses import replace

import pytest
import torch
from torchvision.models import resnet50

from ablations.config.loading import from_hydra
from ablations.errors import ConfigError, TrainingError
from ablations.records.run_log import explain
from ablations.stages.make import make_backbone, make_proposals, save_tensors
from ablations.stages.proposals import proposal_network, trained_proposal_network
from ablations.stages.store import Stages
from ablations.tasks.detection import build_model
from data import digests
from models.weights import shipped_state


def test_a_full_disk_is_reported_as_such(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ablations.records.storage.os.fsync", full)
    with pytest.raises(OSError) as told:
        save_tensors(tmp_path / "model.safetensors", {"weight": torch.zeros(3)})
    assert explain(told.value).startswith(f"the disk is full ({tmp_path}/model.safetensors): make room, then")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_resnets_backbone_has_the_given_weights(compose, tmp_path):
    network = resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    overrides = ["model=r50_c4", f"model.weights={tmp_path / 'weights.pth'}", "budget=smoke", "budget.train_images=1"]
    config = from_hydra(compose([*overrides, "budget.val_images=1"]))
    stages = Stages(tmp_path / "stages", config)
    make_backbone(stages, lambda *_: None)
    detector, proposer = build_model(stages), proposal_network(stages, seed=0)
    for backbone in (detector.backbone, proposer.backbone):
        assert torch.equal(backbone.stages[3][0].conv2.weight, network.layer3[0].conv2.weight)
    assert torch.equal(detector.shared_head.layer[2].conv3.weight, network.layer4[2].conv3.weight)


@pytest.mark.slow
def test_another_seed_of_the_stages_makes_other_networks(compose, tmp_path, log):
    overrides = ["budget=smoke", "model.weights=scratch", "budget.backbone.steps=1", "budget.rpn.steps=1"]
    states, proposals = [], []
    for seed in (0, 1):
        stages = Stages(tmp_path, from_hydra(compose([*overrides, f"stages.seed={seed}"])))
        for make in (make_backbone, make_proposals):
            make(stages, log)
        states.append(stages.backbone()), proposals.append(stages.proposals("train").boxes)
    assert all(not torch.equal(states[0][name], states[1][name]) for name in states[0] if name.endswith("weight"))
    assert not torch.equal(*proposals)


@pytest.mark.parametrize("stride", [16, 32])
def test_the_shipped_backbones_are_those_that_their_description_names(compose, tmp_path, log, stride):
    stages = Stages(tmp_path, from_hydra(compose(["model=toy_fpn_head", "budget=smoke", f"stride={stride}"])))
    make_backbone(stages, log)
    state = stages.backbone()
    build_model(stages)
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert all(value.isfinite().all() for value in state.values())
    assert stages.backbone_folder == Stages(tmp_path, replace(stages.config, stride=48 - stride)).backbone_folder


def test_a_damaged_shipped_backbone_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("models.weights.SHIPPED", tmp_path)
    (tmp_path / "16.safetensors").write_bytes(b"not the file")
    with pytest.raises(ValueError, match="expected the file with SHA-256"):
        shipped_state(16)


def test_another_architecture_than_the_shipped_backbones_needs_a_backbone_of_its_own(compose):
    with pytest.raises(ConfigError, match="model.weights=scratch"):
        from_hydra(compose(["model.roi_channels=64"]))
    assert from_hydra(compose(["model.roi_channels=64", "model.weights=scratch"])).model.roi_channels == 64


def test_a_proposal_network_of_other_layers_is_refused_in_a_sentence(compose, tmp_path, log):
    stages = Stages(tmp_path, from_hydra(compose(["budget=smoke", "budget.train_images=1", "budget.val_images=1"])))
    make_backbone(stages, log)
    save_tensors(stages.rpn_folder / "model.safetensors", {"head.conv.weight": torch.zeros(1)})
    digests.write(stages.rpn_folder)
    with pytest.raises(TrainingError, match="expected the layers of the network as it is now.*delete"):
        trained_proposal_network(stages.rpn_folder, stages.config, stages.device)
