"""ResNets as backbones: the same features as torchvision's networks, trained and loaded as torchvision's would be."""

from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18, resnet50

from models import weights
from models.backbone import load_pretrained, pretrained_parts
from models.config import ResNetConfig
from models.pooling import PyramidAlign, PyramidPooling
from models.resnet import PYRAMID_STRIDES, FrozenConv2d, PyramidBackbone, Res5, frozen_state, resnet, resnet_backbone
from models.rpn import RPNHead, RPNOutput, propose
from ops.roi_align import roi_align


def set_statistics(network: nn.Module) -> nn.Module:
    """Normalisation that does something, as after training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network.eval()


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return set_statistics(resnet50(weights=None))


@pytest.fixture(scope="module")
def state(theirs):
    return frozen_state(resnet_like(theirs))


def resnet_like(network: nn.Module) -> nn.Module:
    copy = resnet(50)
    copy.load_state_dict({name: value for name, value in network.state_dict().items() if not name.startswith("fc.")})
    return copy


def their_maps(network, images):
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    maps = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        maps.append(x)
    return maps


@pytest.mark.slow
@torch.no_grad()
def test_the_maps_are_torchvisions(theirs, state):
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = their_maps(theirs, images)
    c5 = resnet_backbone(resnet(50), 32)
    load_pretrained(c5, state)
    for ours, wanted in zip(c5.maps(images)[1:], expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
    c4, res5 = resnet_backbone(resnet(50), 16), Res5(resnet(50), stride=2)
    load_pretrained(c4, state)
    load_pretrained(res5, state)
    torch.testing.assert_close(c4(images), c5.maps(images)[-2])
    torch.testing.assert_close(res5(c4(images)), c5(images))  # a RoI that is the whole map
    assert Res5(resnet(50), stride=1)(c4(images)).shape[-2:] == c4(images).shape[-2:]


def test_a_frozen_normalisation_trains_as_two_layers_do():
    torch.manual_seed(0)
    pair = set_statistics(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    joined = FrozenConv2d(nn.Conv2d(3, 4, 3, bias=False), pair[1])
    joined.load_state_dict({"weight": pair[0].weight, "scale": joined.scale, "shift": joined.shift})
    x = torch.randn(2, 3, 6, 6)
    outputs = [module(x) for module in (pair, joined)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(joined.weight.grad, pair[0].weight.grad)
    assert [name for name, _ in joined.named_parameters()] == ["weight"]


def test_frozen_stages_and_pretrained_parts():
    backbone = PyramidBackbone(resnet_backbone(resnet(50), 32, freeze=2))
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("body.stages.0", "body.stages.1.")) for name in trained)
    assert {name.split(".")[0] for name in trained} == {"body", "fpn"}
    pretrained = set(pretrained_parts(backbone).parameters())
    assert pretrained == set(backbone.body.parameters())  # the pyramid's own layers start from nothing
    sides = [tuple(each.shape[-2:]) for each in backbone(torch.zeros(1, 3, 64, 128))]
    assert sides == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]


def test_where_a_block_halves_the_resolution():
    strides = [
        [(b.conv1.stride, b.conv2.stride) for b in (net.layer2[0], net.layer4[0])]
        for net in (resnet(50), resnet(50, stride_in_1x1=True))
    ]
    assert strides == [[((1, 1), (2, 2))] * 2, [((2, 2), (1, 1))] * 2]


@pytest.mark.slow
def test_weights_come_from_files_of_either_kind(theirs, state, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        model = ResNetConfig(weights=str(tmp_path / name))
        loaded = weights.imagenet_state(model)
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], state[key]) for key in state)
    first = weights.weights_digest(model)
    other = theirs.state_dict() | {"conv1.weight": theirs.conv1.weight + 1}
    save_file({name: value.clone() for name, value in other.items()}, tmp_path / "weights.safetensors")
    assert weights.weights_digest(model) != first != weights.weights_digest(ResNetConfig())


def test_weights_that_do_not_fit_or_cannot_be_had_are_refused(tmp_path, monkeypatch):
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "small.pth")
    with pytest.raises(ValueError, match="ResNet-50"):
        weights.imagenet_state(ResNetConfig(weights=str(tmp_path / "small.pth")))
    (tmp_path / "text.pth").write_text("none")
    with pytest.raises(ValueError, match="expected a file of weights"):
        weights.imagenet_state(ResNetConfig(weights=str(tmp_path / "text.pth")))

    def unreachable(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(ValueError, match="model.weights=FILE"):
        weights.imagenet_state(ResNetConfig())


def test_a_pyramid_pools_alike_with_one_launch_and_map_by_map():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, 256 // stride, 256 // stride, generator=generator) for stride in (*PYRAMID_STRIDES, 64)]
    corners = torch.rand(2, 12, 2, generator=generator) * 100
    sides = torch.tensor([8.0, 40, 100, 150]).repeat(3)[:, None] * torch.ones(1, 2)
    boxes = torch.cat([corners, corners + sides], dim=-1)
    operator = lambda *arguments: roi_align(*arguments, sampling_ratio=2)  # noqa: E731
    each = PyramidPooling(operator, 7, PYRAMID_STRIDES)(maps, boxes)
    torch.testing.assert_close(PyramidAlign(7, PYRAMID_STRIDES, 2, "auto")(maps, boxes), each)
    small = roi_align(maps[0], boxes[:, 0:1], 7, 1 / 4, sampling_ratio=2)  # 8 px: from the finest map
    torch.testing.assert_close(each.unflatten(0, (2, 12))[:, 0], small)


def test_anchors_of_each_map_lie_where_its_cells_are():
    head = RPNHead(4, (4, 8), [[32.0], [64.0]], [0.5, 1.0, 2.0])
    maps = [torch.zeros(1, 4, 6, 8), torch.zeros(1, 4, 3, 4)]
    scores, deltas, anchors = head(maps)
    assert [len(each) for each in anchors] == [6 * 8 * 3, 3 * 4 * 3]
    assert scores.shape == (1, 180) and deltas.shape == (1, 180, 4)
    centres = (anchors[1][:, :2] + anchors[1][:, 2:]) / 2
    assert centres[3 * 5].tolist() == [8, 8] and centres[-1].tolist() == [24, 16]
    areas = (anchors[1][:, 2:] - anchors[1][:, :2]).prod(1)
    torch.testing.assert_close(areas, torch.full_like(areas, 64.0**2))


def test_proposals_are_suppressed_within_a_map_only():
    anchors = [torch.tensor([[0.0, 0, 40, 40], [1, 0, 41, 40]]), torch.tensor([[0.0, 0, 40, 40]])]
    output = RPNOutput(torch.tensor([[2.0, 1.0, 0.0]]), torch.zeros(1, 3, 4), anchors)
    sizes = torch.tensor([[64, 64]])
    best = propose(output, sizes, ResNetConfig(proposals_before=10, proposals=3))
    torch.testing.assert_close(best.scores[0, :2], output.scores[0, [0, 2]].sigmoid())
    assert best.scores[0, 2] == 0 and best.boxes[0, 1].tolist() == [0, 0, 40, 40]
    fewer = propose(output, sizes, ResNetConfig(proposals_before=1, proposals=3))  # one of each map takes part
    assert fewer.valid.sum() == 2
