"""The benchmark of the toy network: both sides do the same work."""

import pytest
import torch

from ablations.bench import common, step
from data.dataset import collate
from data.scene import ShapesSpec
from data.shapes import draw
from models.config import ToyConfig

SMALL = ToyConfig(channels=[4, 8, 8, 16], blocks=[1, 1, 1], roi_channels=8, shared_channels=8, shared_depth=1)


@pytest.fixture(scope="module")
def batch():
    images = draw(ShapesSpec(num_train=2, num_val=1, image_side=64, size_cells=(1.0, 3.0)), "train")
    return collate([images[0], images[1]], images.max_objects)


def trained_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def test_both_sides_train_the_same_layers():
    """But for the background: torchvision regresses boxes for it and predicts a mask of it."""
    ours, torchvision = step.our_network(SMALL), step.torchvision_network(SMALL)
    box = 4 * (SMALL.box_hidden + 1)
    mask = torchvision.roi_heads.mask_predictor.logits.in_channels + 1
    assert trained_parameters(torchvision) - trained_parameters(ours) == box + mask


def test_a_step_of_each_side_moves_its_weights(batch):
    torch.manual_seed(0)
    networks = {"ours": step.our_network(SMALL).train(), "torchvision": step.torchvision_network(SMALL).train()}
    before = {side: [p.detach().clone() for p in network.parameters()] for side, network in networks.items()}
    for side, run in common.training_steps(*networks.values(), batch).items():
        run()
        trained = [
            (old, new)
            for old, new in zip(before[side], networks[side].parameters(), strict=True)
            if new.requires_grad and new.grad is not None and new.grad.abs().sum() > 0
        ]
        assert len(trained) > 10 and not any(torch.equal(old, new) for old, new in trained)


def test_the_parts_of_a_step_are_timed(batch, monkeypatch):
    monkeypatch.setattr(step, "ROUNDS", 2)
    parts = step.seconds_by_part(step.our_network(SMALL).train(), batch)
    assert list(parts) == [
        "backbone",
        "RPN head",
        "proposals",
        "RoI operator",
        "shared head",
        "box head",
        "mask branch",
        "backward",
        "optimiser",
        "matching, sampling, losses",
    ]
    assert min(parts.values()) > 0


def test_the_table_has_the_share_of_every_part():
    record = {
        "seconds": {"training step": {"ours": 0.5, "torchvision": 1.0}},
        "ratio": {"training step": 2.0},
        "parts": {"backbone": 0.3, "backward": 0.1},
        "fraction_of_matrix_rate": 0.25,
        "matrix_rate": 80e9,
        "threads": 1,
    }
    lines = step.table(record).splitlines()
    assert lines[1].split() == ["training", "step", "500", "ms", "1000", "ms", "2.00x"]
    assert [line.split()[-3:] for line in lines[4:6]] == [["300.0", "ms", "75.0%"], ["100.0", "ms", "25.0%"]]
    assert lines[-1].startswith("25% of the 80 GFLOP/s that this machine reaches on large matrices with 1 thread(s)")
