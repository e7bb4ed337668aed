"""Initial weights, drawn so that arms start alike wherever they can."""

import hashlib

import torch
from torch import nn


def initialise(module: nn.Module, seed: int) -> None:
    """Draws each layer's weights from its own stream, named by the seed and the layer's place in the module.

    So two arms start alike wherever they have the same layer with the same shape, whatever else differs between them.
    Weights are He-normal for a ReLU behind them, or normal as `set_initial_std` says; biases are 0.
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            continue
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        fan_in = layer.weight[0].numel() if not isinstance(layer, nn.ConvTranspose2d) else layer.weight.shape[0]
        std = getattr(layer, "init_std", (2 / fan_in) ** 0.5)
        with torch.no_grad():
            layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0, std, generator=generator))
            if layer.bias is not None:
                layer.bias.zero_()


def set_initial_std(std: float, *layers: nn.Module) -> None:
    """Makes `initialise` draw these layers' weights with this standard deviation: predictors start near zero."""
    for layer in layers:
        object.__setattr__(layer, "init_std", std)


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for an independent stream of random numbers, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
