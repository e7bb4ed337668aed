"""What `install()` gains in a whole model: torchvision's Mask R-CNN with ResNet-50 and a feature pyramid, on a CPU.

One training step, forward and backward without the update of the weights, with torchvision's own kernels and with
ours behind them: the same weights, images, objects and random numbers, in turns.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn

from ..registration import installed

NAME = "maskrcnn_resnet50_fpn"
SIDE, IMAGES, OBJECTS, CLASSES = 400, 2, 6, 91
TOLERANCE = 1e-5  # of each loss: RoIAlign's samples lie in float64 with ours, in float32 with torchvision's


def measure(threads: int, rounds: int, side: int = SIDE) -> dict:
    """Losses of both sides, the largest relative difference between them and, where it is small, seconds of steps."""
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=side, max_size=side)
    images, objects = photographs(side)

    def step() -> dict[str, float]:
        torch.manual_seed(1)  # of the anchors and proposals that are sampled
        network.zero_grad()
        losses: dict[str, Tensor] = network(images, objects)
        torch.stack(list(losses.values())).sum().backward()
        return {name: loss.item() for name, loss in losses.items()}

    def step_installed() -> dict[str, float]:
        with installed("cpu"):
            return step()

    theirs, ours = step(), step_installed()
    error = max(abs(ours[name] - loss) / abs(loss) for name, loss in theirs.items())
    record: dict = {"model": NAME, "side": side, "images": IMAGES, "threads": threads}
    record |= {"losses": theirs, "error": error, "parity": error <= TOLERANCE, "without": [], "with": []}
    for _ in range(rounds if record["parity"] else 0):
        record["without"].append(_seconds(step))
        record["with"].append(_seconds(step_installed))
    return record


def photographs(side: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images [3, side, side] of noise, and objects on them, in the form that torchvision's models take."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, side, side, generator=generator) for _ in range(IMAGES)]
    objects = []
    for _ in images:
        size = side * (0.1 + 0.3 * torch.rand(OBJECTS, 2, generator=generator))
        low = (side - size) * torch.rand(OBJECTS, 2, generator=generator)
        boxes = torch.cat([low, low + size], dim=1)
        pixels = torch.arange(side) + 0.5
        x1, y1, x2, y2 = boxes.t()[..., None]
        rows, columns = (pixels > y1) & (pixels < y2), (pixels > x1) & (pixels < x2)
        masks = (rows[:, :, None] & columns[:, None]).to(torch.uint8)
        labels = torch.randint(1, CLASSES, (OBJECTS,), generator=generator)
        objects.append({"boxes": boxes, "labels": labels, "masks": masks})
    return images, objects


def _seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin
