"""A short training ends at the same losses whichever backend pools: gradients are right in use, not only in a check."""

import pytest
import torch
from torch import nn

from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from tests.ops.cases import random_boxes

BACKENDS = ("reference", "torchvision", "compiled", "pytorch")


def losses(operator, backend, steps=12) -> list[float]:
    """Fit the mean brightness inside boxes through two convolutions and a pooling layer."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    head = nn.Linear(8 * 9, 1)
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    recorded = []
    for step in range(steps):
        images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(step))
        boxes = random_boxes(6, 48, seed=step).clamp(0, 47).view(2, 3, 4)
        target = torch.stack([crop_mean(images[index // 3], box) for index, box in enumerate(boxes.view(-1, 4))])
        pooled = operator(backbone(images), boxes, 3, 0.25, backend=backend)
        loss = (head(pooled.flatten(1)).squeeze(1) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorded.append(float(loss.detach()))
    return recorded


def crop_mean(image: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    x1, y1, x2, y2 = box.long().tolist()
    return image[:, y1 : y2 + 1, x1 : x2 + 1].mean()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("operator", [roi_align, roi_pool])
def test_backends_train_alike(operator):
    curves = {backend: losses(operator, backend) for backend in BACKENDS}
    assert curves["compiled"][-1] < 0.5 * curves["compiled"][0]
    for backend in BACKENDS[1:]:
        assert curves[backend] == pytest.approx(curves["reference"], rel=1e-3, abs=1e-6)
