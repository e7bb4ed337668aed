"""Backbones: images to a feature map, or to the maps of a pyramid.

Letters: B images, H and W image side, h = H / stride, w = W / stride, C channels.

Every stride here is made of 3x3 (or 7x7) convolutions padded symmetrically, so cell i of a map of stride s is
centred on image pixel s * i: the convention of the original RoIAlign (`aligned=False`).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d

Module = TypeVar("Module", bound=nn.Module)


class Pretrained(nn.Module):
    """A part of a network whose first weights are not drawn but come from the pretrained backbone."""

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Takes what belongs here from the state of a whole backbone."""
        raise NotImplementedError


def pretrained_parts(network: nn.Module) -> nn.ModuleList:
    """Those parts of a network that are pretrained: they learn more slowly than the rest."""
    return nn.ModuleList(part for part in network.modules() if isinstance(part, Pretrained))


def load_pretrained(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Gives each pretrained part of a network its share of a pretrained backbone's state."""
    for part in network.modules():
        if isinstance(part, Pretrained):
            part.load_pretrained(state)


class Backbone(Pretrained):
    """Stages in sequence, the first `freeze` of which are not trained (as in Fast R-CNN: early layers are generic)."""

    def __init__(self, stages: list[nn.Module], out_channels: int, stride: int, freeze: int = 0) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.out_channels = out_channels
        self.stride = stride
        self.freeze = freeze
        for stage in self.stages[:freeze]:
            stage.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] to features [B, C, h, w]."""
        return self.maps(images)[-1]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] to what each stage gives, from the finest on."""
        maps = [images]
        with torch.no_grad():
            for stage in self.stages[: self.freeze]:
                maps.append(stage(maps[-1]))
        for stage in self.stages[self.freeze :]:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """The state may be that of a backbone with more stages."""
        prefixes = tuple(f"stages.{index}." for index in range(len(self.stages)))
        self.load_state_dict({name: value for name, value in state.items() if name.startswith(prefixes)})


class Projection(nn.Module):
    """Replaces the backbone when the network takes feature maps of a frozen backbone.

    A 1x1 convolution that is trained, so that heads for fewer channels fit behind it; without out_channels nothing.
    """

    def __init__(self, in_channels: int, out_channels: int | None, stride: int) -> None:
        super().__init__()
        self.layer = nn.Identity() if out_channels is None else nn.Conv2d(in_channels, out_channels, 1)
        self.out_channels = out_channels or in_channels
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [B, in_channels, h, w] to features [B, C, h, w]."""
        return self.layer(maps)


TOY_DEPTHS = {16: 2, 32: 3}
"""Stages behind the stem of the toy backbone of each stride: C4 and C5."""


def toy_backbone(channels: list[int], blocks: list[int], out_channels: int, stride: int, freeze: int = 0) -> Backbone:
    """A small ResNet: the first of `toy_stages`, then a 1x1 convolution.

    stride 16 stops after the second stage (C4), stride 32 after the third (C5); the 1x1 convolution gives both the
    same number of channels, so that the same heads fit behind them.
    """
    depth = TOY_DEPTHS[stride]
    stages = [*toy_stages(channels, blocks)[: 1 + depth], nn.Conv2d(channels[depth], out_channels, 1)]
    return Backbone(stages, out_channels, stride, freeze)


def toy_stages(channels: list[int], blocks: list[int]) -> nn.ModuleList:
    """A 7x7 stem of stride 4, then stages of basic blocks, each halving the resolution.

    channels: of the stem and of the stages at strides 8, 16, 32; blocks: blocks of each stage.
    """
    stem = nn.Sequential(
        nn.Conv2d(3, channels[0], 7, stride=4, padding=3, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU(True)
    )
    stages = [_stage(*part) for part in zip(channels, channels[1:], blocks, strict=False)]
    return nn.ModuleList([stem, *stages])


def _stage(channels_in: int, channels_out: int, num_blocks: int) -> nn.Module:
    shortcut = nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride=2, bias=False), nn.BatchNorm2d(channels_out)
    )
    first = BasicBlock(channels_in, channels_out, stride=2, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out) for _ in range(num_blocks - 1)))


def fold_batch_norm(module: Module) -> Module:
    """Folds each batch normalisation of a pretrained backbone into the convolution before it, in place.

    Detectors freeze these statistics when they fine-tune (batches are too small to estimate them); a frozen
    normalisation is an affine map, and folding it saves a pass over each feature map.
    """
    return join_batch_norm(module, lambda convolution, norm: fuse_conv_bn_eval(convolution.eval(), norm.eval()))


def join_batch_norm(module: Module, join: Callable[[Any, Any], nn.Module]) -> Module:
    """Puts join(convolution, norm) in place of each convolution and the batch normalisation after it, in place."""
    children = list(module.named_children())
    for (name, child), (next_name, following) in zip(children, children[1:], strict=False):
        if isinstance(child, nn.Conv2d) and isinstance(following, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            setattr(module, name, join(child, following))
            setattr(module, next_name, nn.Identity())
    for child in module.children():
        join_batch_norm(child, join)
    return module
