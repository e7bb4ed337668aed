"""compile=true: the networks' children are compiled, and training gives the same results."""

import pytest
import torch

from ablations import machine
from ablations.config.loading import from_hydra
from ablations.errors import ConfigError
from ablations.stages.proposals import proposal_network
from ablations.stages.store import Stages, stages_of
from ablations.tasks.detection import build_model
from ablations.training.device import compile_parts
from models.build import build_mask_rcnn
from models.config import DetectorConfig, MaskHeadConfig, ToyConfig
from models.initialise import initialise
from models.structures import GroundTruth

# With 4 channels in the first stage, oneDNN of torch 2.14.1 writes beyond its memory in the backward pass on some CPUs.
MODEL = ToyConfig(
    channels=[8, 8, 8, 16], blocks=[1, 1, 1], freeze=1, roi_channels=8, shared_channels=8, shared_depth=1,
    box_hidden=16, pooled_size=3, rois_per_image=4, proposals=8,
)  # fmt: skip


def trained(compiled: bool) -> tuple[list[float], dict[str, torch.Tensor], int]:
    """Losses and weights of three steps with a joint RPN, and how many graphs were compiled."""
    head = MaskHeadConfig("fcn", depth=0, channels=8)
    network = build_mask_rcnn(DetectorConfig(MODEL, mask_head=head, joint_rpn=True), num_classes=2)
    initialise(network, 0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    if compiled:
        compile_parts(network, backend="aot_eager")  # all of the machinery but the code that it would write
    boxes = torch.tensor([[[8.0, 8, 40, 40]], [[20.0, 12, 60, 50]]])
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    masks[0, 0, 8:40, 8:40] = masks[1, 0, 12:50, 20:60] = 1
    truth = GroundTruth(boxes, torch.tensor([[1], [2]]), masks, torch.zeros(2, 0, 4))
    images = masks.float().expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    sizes = torch.tensor([[64, 64]] * 2)
    draw = lambda name, shape: torch.rand(shape, generator=torch.Generator().manual_seed(len(name)))  # noqa: E731
    optimizer, losses = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.05), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.stack(list(network(images, sizes, truth, None, draw).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return losses, network.state_dict(), graphs


@pytest.mark.slow
def test_a_compiled_network_trains_like_a_plain_one():
    (plain, weights, none), (losses, same, graphs) = trained(False), trained(True)
    assert none == 0 and graphs >= 4  # backbone, proposals, box and mask branch
    assert losses == pytest.approx(plain, rel=1e-4) and plain[-1] < plain[0]
    assert list(same) == list(weights)
    for name, value in weights.items():
        torch.testing.assert_close(same[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_the_setting_applies_to_both_networks(compiled, compose, monkeypatch, tmp_path):
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(Stages, "backbone", lambda self: {})
    for module in ("tasks.detection", "stages.proposals"):
        monkeypatch.setattr(f"ablations.{module}.load_pretrained", lambda network, state: None)
    few = ["budget=smoke", "budget.train_images=1", f"outputs={tmp_path}"]
    stages = stages_of(from_hydra(compose([*few, "device=cpu", f"compile={compiled}"])))
    for network in (build_model(stages), proposal_network(stages, seed=0)):
        parts = list(network.children())
        assert len(parts) >= 2 and all((part._compiled_call_impl is not None) == compiled for part in parts)


def test_a_missing_compiler_is_reported_before_any_work(compose, monkeypatch):
    """With a compiler the setting does not change the hash that identifies a run."""
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="compile=true: on a CPU it needs a C.. compiler, found no .*; install it or"):
        from_hydra(compose(["compile=true", "device=cpu"]))
    plain = from_hydra(compose(["device=cpu"]))
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/" + name)
    assert from_hydra(compose(["compile=true", "device=cpu"])).hash() == plain.hash()
