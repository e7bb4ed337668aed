"""RoIAlign and RoIWarp: a case worked by hand, torchvision, the reference, gradients, and the inputs that hurt."""

import functools

import pytest
import torch
from torchvision.ops import roi_align as torchvision_roi_align

from ops.roi_align import roi_align
from ops.roi_warp import roi_warp
from tests.ops.cases import (
    assert_near,
    awkward_boxes,
    output_and_gradient,
    random_boxes,
    random_map,
    with_image,
)

SMALL, LARGE = (3, 5, 13, 16), (2, 3, 50, 44)
SETTINGS = [(ratio, aligned) for ratio in (2, 3, -1) for aligned in (False, True)]


def test_ramp_by_hand(backend):
    # Cell (y, x) holds 10 y + x, which interpolation reproduces: each bin's mean is its centre's value.
    # The box spans 0.5 to 4.5 in pixels of a scale of 1, so two bins a side have their centres at 1.5 and 3.5.
    ramp = (10.0 * torch.arange(5)[:, None] + torch.arange(5)).expand(1, 1, 5, 5)
    box = torch.tensor([[0.0, 0.5, 0.5, 4.5, 4.5]])
    # The samples lie at 1, 2, 3 and 4, all on the map.
    expected = torch.tensor([[16.5, 18.5], [36.5, 38.5]])
    assert_near(roi_align(ramp, box, 2, sampling_ratio=2, backend=backend)[0, 0], expected, 1e-6)
    # Half a cell to the upper left with aligned=True.
    assert_near(roi_align(ramp, box, 2, 1.0, 2, True, backend=backend)[0, 0], expected - 5.5, 1e-6)
    # The largest of the samples at 1, 2 and 3, 4.
    largest = torch.tensor([[22.0, 24.0], [42.0, 44.0]])
    assert_near(roi_align(ramp, box, 2, sampling_ratio=2, reduce="max", backend=backend)[0, 0], largest, 1e-6)
    # RoIWarp rounds 0.5 to 1 and 4.5 to 5: bin centres at 2 and 4, the last samples clamped from 4.5 to 4.
    assert_near(
        roi_warp(ramp, box, 2, sampling_ratio=2, backend=backend)[0, 0],
        torch.tensor([[22.0, 23.75], [39.5, 41.25]]),
        1e-6,
    )


@pytest.mark.parametrize(("ratio", "aligned"), SETTINGS)
@pytest.mark.parametrize("shape", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_parity_with_torchvision(backend, shape, ratio, aligned):
    feature = random_map(shape)
    side = 16.0 * shape[2]
    boxes = with_image(torch.cat([random_boxes(9, side), awkward_boxes(side)]), shape[0])
    args = (boxes, (3, 4), 1 / 16, ratio, aligned)
    expected, expected_gradient = output_and_gradient(torchvision_roi_align, feature, *args)
    out, gradient = output_and_gradient(roi_align, feature, *args, backend=backend)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@functools.cache
def in_float64(operator, reduce, shape, ratio):
    """A map, boxes, and the reference's output and gradient, which take seconds."""
    feature = random_map(shape) + torch.rand(shape, generator=torch.Generator().manual_seed(1))
    side = 16.0 * shape[2]
    boxes = with_image(torch.cat([random_boxes(5, side), awkward_boxes(side)]), shape[0])
    args, options = ((3, 2), 1 / 16, ratio), {"reduce": reduce, "backend": "reference"}
    return feature, boxes, args, *output_and_gradient(operator, feature.double(), boxes.double(), *args, **options)


@pytest.mark.xdist_group("in_float64")
@pytest.mark.parametrize("operator", [roi_align, roi_warp])
@pytest.mark.parametrize("reduce", ["ave", "max"])
@pytest.mark.parametrize("shape", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ratio", [2, 0])
def test_float64_reference(fast_backend, operator, reduce, shape, ratio):
    feature, boxes, args, expected, expected_gradient = in_float64(operator, reduce, shape, ratio)
    out, gradient = output_and_gradient(operator, feature, boxes, *args, reduce=reduce, backend=fast_backend)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.slow
@pytest.mark.parametrize("reduce", ["ave", "max"])
@pytest.mark.parametrize("shape", [(1, 2, 5, 6), (1, 1, 50, 44)])
@pytest.mark.parametrize("backend", ["reference", "pytorch"])
def test_gradcheck_of_features_and_boxes(backend, reduce, shape):
    feature = (random_map(shape) + torch.rand(shape)).double().requires_grad_()
    boxes = torch.tensor([[[0.7, 1.1, 4.3, 3.9], [-0.6, 0.3, 2.2, 4.6]]], dtype=torch.float64, requires_grad=True)

    def pooled(feature, boxes):
        return roi_align(feature, boxes, 2, 1.0, 2, True, reduce=reduce, backend=backend)

    assert torch.autograd.gradcheck(pooled, (feature, boxes), fast_mode=shape[2] > 10)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_box_gradients_match_the_reference(shape):
    feature, boxes = random_map(shape), random_boxes(6, 16.0 * shape[2]).repeat(shape[0], 1, 1)
    gradients = []
    for backend in ("reference", "auto"):
        leaf = boxes.clone().requires_grad_()
        out = roi_align(feature, leaf, 3, 1 / 16, 2, backend=backend)
        (out * torch.linspace(0, 1, out.numel()).view(out.shape)).sum().backward()
        gradients.append(leaf.grad)
    assert float(gradients[0].abs().max()) > 0
    assert_near(gradients[1], gradients[0])


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (2, 4, 48, 48)])
def test_many_overlapping_rois(fast_backend, shape):
    feature, boxes = random_map(shape), with_image(random_boxes(640, 16.0 * shape[2]), 2)
    expected, expected_gradient = output_and_gradient(
        torchvision_roi_align, feature.double(), boxes.double(), 7, 1 / 16, 2
    )
    out, gradient = output_and_gradient(roi_align, feature, boxes, 7, 1 / 16, 2, backend=fast_backend)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_forms_of_boxes_agree(shape):
    feature, boxes = random_map(shape), random_boxes(4, 16.0 * shape[2]).repeat(shape[0], 1, 1)
    boxes = boxes + torch.arange(float(shape[0]))[:, None, None]
    regular = roi_align(feature, boxes, 3, 1 / 16, 2)
    image = torch.arange(float(shape[0])).repeat_interleave(4)[:, None]
    assert_near(roi_align(feature, list(boxes), 3, 1 / 16, 2), regular)
    assert_near(roi_align(feature, torch.cat([image, boxes.flatten(0, 1)], dim=1), 3, 1 / 16, 2), regular)
    ragged = [boxes[0], *(each[:0] for each in boxes[1:-1]), boxes[-1, :2]]
    assert_near(roi_align(feature, ragged, 3, 1 / 16, 2), torch.cat([regular[:4], regular[-4:-2]]))


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_no_boxes(backend, shape):
    feature = random_map(shape).requires_grad_()
    for boxes in ([torch.zeros(0, 4)] * shape[0], torch.zeros(0, 5), torch.zeros(shape[0], 0, 4)):
        for ratio in (2, -1):
            out = roi_align(feature, boxes, 7, 1 / 16, ratio, backend=backend)
            assert out.shape == (0, shape[1], 7, 7)
            out.sum().backward()
    assert not feature.grad.any()
    assert roi_align(torch.zeros(0, 3, 8, 8), [], 7, backend=backend).shape == (0, 3, 7, 7)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("reduce", ["ave", "max"])
@pytest.mark.parametrize("ratio", [2, -1])
def test_boxes_that_are_not_finite_give_zero(backend, shape, reduce, ratio):
    boxes = random_boxes(3, 200).repeat(shape[0], 1, 1)
    boxes[:, 1, 2], boxes[0, 2, 0], boxes[1, 2, 3] = float("nan"), float("inf"), -float("inf")
    out, gradient = output_and_gradient(
        roi_align, random_map(shape), boxes, 3, 1 / 16, ratio, reduce=reduce, backend=backend
    )
    assert out.isfinite().all() and gradient.isfinite().all()
    assert not out[1].any() and not out[2].any() and not out[5].any() and out[0].any()


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("reduce", ["ave", "max"])
def test_boxes_of_no_width_are_empty_under_adaptive_aligned_sampling(backend, shape, reduce):
    boxes = torch.tensor([[40.0, 16, 40, 90], [40, 16, 30, 90]]).repeat(shape[0], 1, 1)
    boxes.requires_grad_(backend != "compiled")
    feature = random_map(shape).requires_grad_()
    out = roi_align(feature, boxes, 3, 1 / 16, -1, True, reduce=reduce, backend=backend)
    out.sum().backward()
    assert not out.any() and not feature.grad.any() and (boxes.grad is None or not boxes.grad.any())


@pytest.mark.parametrize("reduce", ["ave", "max"])
def test_huge_boxes_take_bounded_memory(fast_backend, reduce):
    boxes = torch.tensor([[[-1e7, -1e7, 1e7, 1e7]]])
    out = roi_align(torch.ones(1, 2, 8, 8), boxes, 2, 1.0, -1, reduce=reduce, backend=fast_backend)
    assert out.isfinite().all()


@pytest.mark.parametrize("channels", [1, 7, 65, 130])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("side", [8, 48])
def test_channel_counts_and_memory_formats(fast_backend, channels, channels_last, side):
    feature = random_map((2, channels, side, side), channels_last=channels_last)
    boxes = with_image(random_boxes(6, side), 2)
    expected, expected_gradient = output_and_gradient(torchvision_roi_align, feature, boxes, 3, 1.0, 2)
    out, gradient = output_and_gradient(roi_align, feature, boxes, 3, 1.0, 2, backend=fast_backend)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("side", [8, 48])
def test_gradients_that_are_expanded_or_strided(fast_backend, side):
    feature, boxes = random_map((2, 6, side, side)), with_image(random_boxes(5, side), 2)
    for grad in (
        torch.ones(1).expand(5, 6, 3, 3),
        torch.rand(3, 5, 3, 6).permute(1, 3, 0, 2),
        torch.rand(5, 12, 3, 3)[:, ::2],
    ):
        _, expected = output_and_gradient(torchvision_roi_align, feature, boxes, 3, 1.0, 2, grad=grad)
        _, gradient = output_and_gradient(roi_align, feature, boxes, 3, 1.0, 2, grad=grad, backend=fast_backend)
        assert_near(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [8, 48])
def test_half_precision_is_computed_in_float32(fast_backend, dtype, side):
    feature, boxes = random_map((1, 6, side, side)).to(dtype), random_boxes(5, side)[None]
    out, gradient = output_and_gradient(roi_align, feature, boxes, 3, 1.0, 2, backend=fast_backend)
    expected, expected_gradient = output_and_gradient(
        roi_align, feature.float(), boxes, 3, 1.0, 2, backend=fast_backend
    )
    assert out.dtype == gradient.dtype == dtype
    assert_near(out, expected, torch.finfo(dtype).eps)
    assert_near(gradient, expected_gradient, torch.finfo(dtype).eps)


@pytest.mark.parametrize("side", [8, 48])
def test_autocast_changes_nothing(fast_backend, side):
    feature, boxes = random_map((1, 6, side, side)), random_boxes(5, side)[None]
    expected, expected_gradient = output_and_gradient(roi_align, feature, boxes, 3, 1.0, 2, backend=fast_backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, gradient = output_and_gradient(roi_align, feature, boxes, 3, 1.0, 2, backend=fast_backend)
    assert torch.equal(out, expected)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("side", [16, 48])
def test_two_runs_are_bit_identical(fast_backend, side):
    feature, boxes = random_map((2, 16, side, side)), with_image(random_boxes(300, side), 2)
    first, second = (
        output_and_gradient(roi_align, feature, boxes, 5, 1.0, 2, deterministic=True, backend=fast_backend)
        for _ in range(2)
    )
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
