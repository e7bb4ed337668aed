"""A Mask R-CNN of torchvision's with random weights that detects enough to compare, and images for it."""

import functools

import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

CLASSES = 6  # with the background
SIZES = {"min_size": 96, "max_size": 150}  # padded to 128 x 160, so that P6 has a spacing of 53 pixels in torchvision


def images():
    """Two of different shapes: smooth blobs, so that features differ from place to place."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(75, 105), (95, 65)]
    grids = [torch.rand(1, 3, 9, 9, generator=generator) for _ in sizes]
    return [
        torch.nn.functional.interpolate(grid, size, mode="bicubic")[0].clamp(0, 1)
        for grid, size in zip(grids, sizes, strict=True)
    ]


@functools.cache
def randomly_weighted():
    """A Mask R-CNN of random weights that is sure of different things in different places, as a trained one is.

    Batch normalisation has the statistics of these images. Each layer behind it is scaled by what it gives for them, so
    that its outputs spread around 0 by a chosen standard deviation: otherwise all RoIs would look nearly alike, and
    what tells them apart would be hardly more than rounding.
    """
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES, **SIZES)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            # Blocks that add little to their input, or rounding would grow from each to the next.
            nn.init.uniform_(module.weight, *((0.02, 0.05) if name.endswith("bn3") else (0.5, 1.0)))
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None  # the mean of the batches that are seen
    heads = network.roi_heads
    behind = [*network.backbone.fpn.modules(), *network.rpn.modules(), *heads.modules()]
    spread = {layer: 1.0 for layer in behind if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))}
    spread |= {
        network.rpn.head.cls_logits: 2.0,
        network.rpn.head.bbox_pred: 0.5,
        heads.box_predictor.cls_score: 1.0,
        heads.mask_predictor.mask_fcn_logits: 2.0,
    }

    def scale(layer, _, output):
        channels = output.transpose(0, 1).flatten(1)  # [channels, everything else]
        factor, middle = spread[layer] / channels.std(dim=1), channels.mean(dim=1)
        outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0  # the dimension of the weights
        layer.weight *= factor.view([-1 if axis == outputs else 1 for axis in range(layer.weight.dim())])
        layer.bias.copy_((layer.bias - middle) * factor)
        handles.pop(layer).remove()  # the first map, or the only call, decides
        shape = [-1 if axis == 1 else 1 for axis in range(output.dim())]
        return (output - middle.view(shape)) * factor.view(shape)

    handles = {layer: layer.register_forward_hook(scale) for layer in spread}
    with torch.no_grad():
        network.backbone.body.train()(network.transform(images())[0].tensors)
        network.eval()(images())
        heads.box_predictor.cls_score.bias[0] += 2.5  # most RoIs are background
    assert not handles
    return network
