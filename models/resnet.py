"""torchvision's ResNets as backbones of a detector: C4, C5 or a feature pyramid.

Letters: B images, H and W image side, h = H / stride, w = W / stride, C channels, N RoIs, P pooled side.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50, resnet101
from torchvision.models.resnet import ResNet
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.backbone import Backbone, Module, Pretrained, join_batch_norm

DEPTHS = {50: resnet50, 101: resnet101}

CHANNELS = (64, 256, 512, 1024, 2048)
"""The channels of the stem and of res2 to res5, whose strides are 4, 4, 8, 16 and 32."""

PYRAMID_CHANNELS = 256
PYRAMID_STRIDES = (4, 8, 16, 32)
"""The strides of P2 to P5, from which RoIs are pooled; P6, of stride 64, only proposes (FPN section 4.1)."""


class FrozenConv2d(nn.Conv2d):
    """A convolution with the frozen batch normalisation behind it, which is applied to the weights, not to the map.

    That saves a pass over each map, and unlike weights that are folded for good it trains as the two layers would.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, convolution: nn.Conv2d, normalisation: Any) -> None:
        assert convolution.bias is None and convolution.padding_mode == "zeros"
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        super().__init__(**{name: getattr(convolution, name) for name in names}, bias=False)
        self.weight = convolution.weight
        scale = normalisation.weight.detach() * (normalisation.running_var + normalisation.eps).rsqrt()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", normalisation.bias.detach() - normalisation.running_mean * scale)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale[:, None, None, None]
        return F.conv2d(x, weight, self.shift, self.stride, self.padding, self.dilation, self.groups)


def freeze_batch_norm(module: Module) -> Module:
    """Joins each convolution without a bias and the batch normalisation after it to a FrozenConv2d, in place."""
    return join_batch_norm(module, FrozenConv2d)


def resnet(depth: int, stride_in_1x1: bool = False) -> ResNet:
    """torchvision's ResNet without its classifier.

    stride_in_1x1: whether a block halves the resolution in its first 1x1 convolution, as the original ResNets of Caffe
    that the paper used, or in its 3x3, as torchvision's.
    """
    network = DEPTHS[depth](weights=None)
    network.fc = nn.Identity()
    if stride_in_1x1:
        for layer in (network.layer2, network.layer3, network.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return network


LAYERS = {16: 3, 32: 4}
"""Stages behind the stem up to the map of each stride: C4 and C5."""


def resnet_backbone(network: Any, stride: int, freeze: int = 0) -> Backbone:
    """The stem and res2 up to the map of this stride, 16 (C4) or 32 (C5), of anything with a ResNet's attributes."""
    count = LAYERS[stride]
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    layers = [network.layer1, network.layer2, network.layer3, network.layer4]
    return freeze_batch_norm(Backbone([stem, *layers[:count]], CHANNELS[count], stride, freeze))


class Res5(Pretrained):
    """What C4's branches share: the backbone's last stage, on each RoI (section 3, figure 4 left).

    stride: of its first block; 1 on 7x7 RoIs as in the paper, 2 on 14x14 RoIs as in the released code.
    """

    out_channels = CHANNELS[4]

    def __init__(self, network: ResNet, stride: int) -> None:
        super().__init__()
        self.layer = freeze_batch_norm(network.layer4)
        first: Any = network.layer4[0]
        for convolution in (first.conv1, first.conv2, first.downsample[0]):
            if convolution.stride == (2, 2):
                convolution.stride = (stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1024, P, P] -> [N, 2048, P / stride, P / stride]."""
        return self.layer(x)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        prefix = "stages.4."
        of_stage = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        self.layer.load_state_dict(of_stage)


class PyramidBackbone(nn.Module):
    """A backbone and the feature pyramid on its stages (Lin et al. 2017)."""

    out_channels = PYRAMID_CHANNELS
    stride = PYRAMID_STRIDES[0]

    def __init__(self, body: Backbone) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(CHANNELS[1:]), PYRAMID_CHANNELS, LastLevelMaxPool())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] to P2 ... P6, each [B, 256, h, w], of strides 4 to 64."""
        maps = self.body.maps(images)[1:]
        return list(self.fpn(OrderedDict((str(level), feature) for level, feature in enumerate(maps))).values())


def frozen_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a whole ResNet as backbones and Res5 take it: batch normalisation joined with the convolutions."""
    with torch.no_grad():
        return resnet_backbone(network, 32).state_dict()
