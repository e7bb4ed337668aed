"""A short training of the whole network ends at the same losses whichever backend pools its RoIs.

The Triton kernels take part on a GPU, or in Triton's interpreter, in which `tests/ops/test_triton_without_gpu.py` runs
this file.
"""

import os
from functools import cache

import pytest
import torch

from models.build import build_detector, build_mask_rcnn, serving_backends
from models.config import DetectorConfig, FCISConfig, MaskHeadConfig, RoIConfig, ToyConfig
from models.initialise import initialise
from models.structures import GroundTruth, Proposals
from ops.backends import HAS_TRITON
from tests.ops.cases import backend_of

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
    model = build_mask_rcnn(DetectorConfig(MODEL, roi=roi, mask_head=head), num_classes=2)
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
        loss = sum(model(images.to(device), sizes, truth, proposals, draw).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorded.append(float(loss.detach()))
    return recorded


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("config", "operator"),
    [
        (DetectorConfig(MODEL), "roi_align"),
        (DetectorConfig(MODEL, roi=RoIConfig("align", reduce="max")), "roi_align"),
        (DetectorConfig(MODEL, roi=RoIConfig("align", backend="pytorch")), "roi_align"),
        (DetectorConfig(MODEL, roi=RoIConfig("warp", backend="reference")), "roi_warp"),
        (DetectorConfig(MODEL, roi=RoIConfig("pool", reduce="max")), "roi_pool"),
        (DetectorConfig(MODEL, roi=RoIConfig("pool", reduce="max", backend="torchvision")), "roi_pool"),
        (DetectorConfig(MODEL, FCISConfig(parts=3, cells=9, head_channels=8, head_depth=1)), "ps_roi_pool"),
    ],
)
def test_the_backend_that_a_record_names_is_the_one_that_pools(config, operator):
    names = serving_backends(config, torch.device("cpu"))
    assert names.keys() == {operator}
    model = build_detector(config, num_classes=2).train()
    boxes, features = torch.tensor([[[8.0, 8, 40, 40]]]), torch.rand(1, 8, 4, 4, requires_grad=True)
    if operator == "ps_roi_pool":
        out = model.pool(model.maps(features), boxes).scores
    else:
        out = model.roi_pooling(features, boxes)
    assert names[operator] == backend_of(out)
