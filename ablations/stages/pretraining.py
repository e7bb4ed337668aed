"""The task that the toy backbone is pretrained on in place of ImageNet: a dense one, without RoIs.

At each cell of the backbone's map the network predicts what the image shows around it: the class and the outlines at
positions FINE pixels apart, and the distances to the sides of the object at the cell's centre.

Letters: B images, K classes, G padded ground truths, h and w cells, n and m fine positions (h * stride / FINE).
Boxes are xyxy in image pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.dataset import Batch
from models.backbone import TOY_DEPTHS, Backbone, toy_stages
from models.initialise import set_initial_std

FINE = 4
"""Distance in pixels between the positions at which classes and outlines are predicted."""

SIDE_UNIT = 32.0
"""Pixels that distances to an object's sides are divided by, so that their loss is of order 1."""


class DenseNetwork(nn.Module):
    """The toy backbones of all strides, pretrained as one network: the stages of the coarsest one, and for each stride
    the 1x1 convolution that ends its backbone and a dense head."""

    def __init__(self, channels: list[int], blocks: list[int], out_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stages = toy_stages(channels, blocks)
        self.outputs = nn.ModuleDict(
            {str(stride): nn.Conv2d(channels[depth], out_channels, 1) for stride, depth in TOY_DEPTHS.items()}
        )
        self.heads = nn.ModuleDict({str(stride): DenseHead(out_channels, stride, num_classes) for stride in TOY_DEPTHS})

    def forward(self, images: Tensor) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        """images [B, 3, H, W] -> for each stride what its `DenseHead` gives."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return {
            stride: self.heads[str(stride)](self.outputs[str(stride)](maps[1 + depth]))
            for stride, depth in TOY_DEPTHS.items()
        }

    def backbone(self, stride: int) -> Backbone:
        """The backbone of a stride, made of this network's layers."""
        output = self.outputs[str(stride)]
        assert isinstance(output, nn.Conv2d)
        return Backbone([*self.stages[: 1 + TOY_DEPTHS[stride]], output], output.out_channels, stride)


class DenseHead(nn.Module):
    """Two 1x1 convolutions on a backbone's map; the channels of one are spread over the fine positions of a cell."""

    def __init__(self, in_channels: int, stride: int, num_classes: int) -> None:
        super().__init__()
        self.factor = stride // FINE
        self.fine = nn.Conv2d(in_channels, (num_classes + 2) * self.factor**2, 1)
        self.sides = nn.Conv2d(in_channels, 4, 1)
        set_initial_std(0.01, self.fine, self.sides)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features [B, C, h, w] -> class logits [B, K + 1, n, m], outline logits [B, n, m], sides [B, 4, h, w]."""
        fine = F.pixel_shuffle(self.fine(features), self.factor)
        return fine[:, :-1], fine[:, -1], self.sides(features)


def dense_losses(network: DenseNetwork, batch: Batch) -> dict[str, Tensor]:
    """The losses of all strides, under names such as class_16."""
    return {
        f"{name}_{stride}": loss
        for stride, predictions in network(batch.images).items()
        for name, loss in head_losses(predictions, stride, batch).items()
    }


def head_losses(predictions: tuple[Tensor, Tensor, Tensor], stride: int, batch: Batch) -> dict[str, Tensor]:
    """Class and outline at every fine position; sides at the cells that have an object at their centre."""
    classes, outlines, sides = (output.float() for output in predictions)
    objects = object_at(batch, -stride // 2 + FINE // 2, FINE, classes.shape[-2:])  # [B, n, m]
    centres = object_at(batch, 0, stride, sides.shape[-2:])  # [B, h, w]
    labels = F.pad(batch.labels, (1, 0)).gather(1, objects.flatten(1)).view_as(objects)
    distance, inside = side_targets(batch, centres, stride)
    return {
        "class": F.cross_entropy(classes, labels),
        "outline": F.binary_cross_entropy_with_logits(outlines, outline_targets(objects).to(outlines.dtype)),
        "sides": (F.smooth_l1_loss(sides, distance, reduction="none") * inside).sum() / inside.sum().clamp(min=1),
    }


def object_at(batch: Batch, first: int, step: int, shape: Sequence[int]) -> Tensor:
    """[B, *shape]: the ground truth (1..G) whose mask covers pixel first + step * i, 0 for background."""
    pixels = lambda count, side: (first + step * torch.arange(count, device=batch.masks.device)).clamp(0, side - 1)  # noqa: E731
    rows, columns = pixels(shape[0], batch.masks.shape[2]), pixels(shape[1], batch.masks.shape[3])
    covered = batch.masks[:, :, rows][..., columns].long()  # [B, G, *shape], at most one of G
    number = torch.arange(1, covered.shape[1] + 1, device=covered.device)
    return (covered * number[:, None, None]).amax(1)


def outline_targets(objects: Tensor) -> Tensor:
    """[B, n, m]: whether another object, or the background, is at the next position to the right or below."""
    right = F.pad(objects[:, :, 1:] != objects[:, :, :-1], (0, 1))
    below = F.pad(objects[:, 1:] != objects[:, :-1], (0, 0, 0, 1))
    return right | below


def side_targets(batch: Batch, centres: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Distances [B, 4, h, w] from each cell's centre to the left, top, right and bottom side of the object there, in
    units of SIDE_UNIT, and [B, 1, h, w]: whether there is an object."""
    boxes = F.pad(batch.boxes, (0, 0, 1, 0))  # the background gets an empty box
    box = boxes.gather(1, centres.flatten(1)[..., None].expand(-1, -1, 4)).unflatten(1, centres.shape[1:])
    y = stride * torch.arange(centres.shape[1], device=box.device)[:, None]
    x = stride * torch.arange(centres.shape[2], device=box.device)[None, :]
    x1, y1, x2, y2 = box.unbind(-1)
    distance = torch.stack([x - x1, y - y1, x2 - x, y2 - y], dim=1) / SIDE_UNIT
    return distance, (centres > 0)[:, None]
