"""A short training of the whole network ends at the same losses whichever backend pools its RoIs.

The Triton kernels take part on a GPU, or in Triton's interpreter, in which `tests/ops/test_triton_without_gpu.py` runs
this file.
"""

import os
from functools import cache

import pytest
import torch

from models.build import build_mask_rcnn
from models.config import MaskClassConfig, MaskHeadConfig, MaskLossConfig, RoIConfig, ToyConfig
from models.detector import GroundTruth, Proposals
from models.initialise import initialise
from ops.backends import HAS_TRITON

MODEL = ToyConfig(
    channels=[4, 8, 8, 16], blocks=[1, 1, 1], freeze=0, roi_channels=8, shared_channels=8, shared_depth=1,
    box_hidden=16, pooled_size=3, rois_per_image=3,
)  # fmt: skip
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"
STEPS = 4


@cache
def losses(op: str, backend: str, device: str) -> list[float]:
    """The sum of all losses at each step of a training on two images with an object each."""
    roi = RoIConfig(op, reduce="max" if op == "pool" else "ave", backend=backend)
    head = MaskHeadConfig("fcn", depth=0, channels=8)
    model = build_mask_rcnn(MODEL, roi, MaskLossConfig(), MaskClassConfig(), head, stride=16, num_classes=2)
    initialise(model, 0)
    model.to(device).train()
    boxes = torch.tensor([[[8.0, 8, 40, 40]], [[20.0, 12, 60, 50]]])
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    masks[0, 0, 8:40, 8:40] = masks[1, 0, 12:50, 20:60] = 1
    images = masks.float() + 0.1 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    near = (boxes + 3 * torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))).clamp(0, 64)
    near[:, 2:] = near[:, 2:].flip(0)
    truth = GroundTruth(*(each.to(device) for each in (boxes, torch.tensor([[1], [2]]), masks, torch.zeros(2, 0, 4))))
    proposals = Proposals(near.to(device), torch.ones(2, 4, device=device))
    sizes = torch.tensor([[64, 64]] * 2, device=device)

    def draw(name, shape):
        return torch.rand(shape, generator=torch.Generator().manual_seed(len(name))).to(device)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recorded = []
    for _ in range(STEPS):
        loss = sum(model.losses(images.to(device), sizes, truth, proposals, draw).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorded.append(float(loss.detach()))
    return recorded


@pytest.mark.parametrize("op", ["align", "pool"])
@pytest.mark.parametrize(
    "backend",
    [
        "compiled",
        "pytorch",
        "torchvision",
        pytest.param(
            "triton",
            marks=pytest.mark.skipif(
                not INTERPRETED and DEVICE == "cpu", reason="no GPU, and not under Triton's interpreter"
            ),
        ),
    ],
)
def test_training_ends_at_the_same_losses(op, backend):
    expected = losses(op, "reference", "cpu")
    assert expected[-1] < 0.9 * expected[0]
    assert losses(op, backend, DEVICE if backend == "triton" else "cpu") == pytest.approx(expected, rel=1e-4)
