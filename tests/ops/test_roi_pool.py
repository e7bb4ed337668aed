"""RoIPool: a case worked by hand, torchvision, ties, gradients, and the inputs that hurt."""

import pytest
import torch
from torchvision.ops import roi_pool as torchvision_roi_pool

from ops.cpu import compiled_max, pytorch_max
from ops.roi_pool import roi_pool
from tests.ops.cases import (
    assert_near,
    assert_same_bits,
    awkward_boxes,
    output_and_gradient,
    random_boxes,
    random_map,
    with_image,
)

SHAPES = [(3, 5, 13, 16), (2, 3, 50, 44)]
DTYPES = [torch.float32, torch.float64]


def test_ramp_by_hand(backend):
    # Ends 0.6 and 3.4 round to 1 and 3, three cells a side; bins of 1.5 cells round outwards to cells 1-2 and 2-3.
    ramp = (10.0 * torch.arange(5)[:, None] + torch.arange(5)).expand(1, 1, 5, 5)
    out, gradient = output_and_gradient(
        roi_pool, ramp, [torch.tensor([[0.6, 0.6, 3.4, 3.4]])], 2, backend=backend, grad=torch.ones(1, 1, 2, 2)
    )
    assert out.tolist() == [[[[22, 23], [32, 33]]]]
    assert gradient.nonzero()[:, 2:].tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_parity_with_torchvision(backend, shape, dtype):
    feature = random_map(shape, dtype)
    side = 16.0 * shape[2]
    boxes = with_image(torch.cat([random_boxes(20, side), awkward_boxes(side)]), shape[0]).to(dtype)
    expected, expected_gradient = output_and_gradient(torchvision_roi_pool, feature, boxes, (3, 4), 1 / 16)
    out, gradient = output_and_gradient(roi_pool, feature, boxes, (3, 4), 1 / 16, backend=backend)
    assert torch.equal(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_of_equal_maxima_takes_the_gradient(backend, dtype):
    feature = torch.zeros(1, 2, 6, 6, dtype=dtype)
    feature[0, 1] = -0.0
    feature[0, 1, 3, 3] = 0.0
    boxes = torch.tensor([[[1.0, 2, 4, 5]]])
    grad = torch.ones(1, 2, 1, 1, dtype=dtype)
    _, gradient = output_and_gradient(roi_pool, feature, boxes, 1, grad=grad, backend=backend)
    assert gradient.nonzero().tolist() == [[0, 0, 2, 1], [0, 1, 2, 1]]


def test_gradcheck(backend):
    feature = torch.randperm(60).view(1, 2, 5, 6).double().requires_grad_()
    boxes = torch.tensor([[[0.7, 1.1, 4.3, 3.9], [-0.6, 0.3, 2.2, 4.6], [9, 9, 12, 12]]])
    assert torch.autograd.gradcheck(lambda feature: roi_pool(feature, boxes, 2, backend=backend), (feature,))


@pytest.mark.parametrize("side", [16, 48])
def test_many_overlapping_rois(fast_backend, side):
    feature, boxes = random_map((2, 4, side, side)).relu(), with_image(random_boxes(640, side), 2)
    expected, expected_gradient = output_and_gradient(torchvision_roi_pool, feature, boxes, 7)
    out, gradient = output_and_gradient(roi_pool, feature, boxes, 7, backend=fast_backend)
    assert torch.equal(out, expected)
    assert_near(gradient, expected_gradient)
    with torch.no_grad():
        assert torch.equal(roi_pool(feature, boxes, 7, backend=fast_backend), expected)


def test_odd_torchvision_edge_is_not_followed(backend):
    # A RoI of 57 rows in 7 bins: torchvision's float32 edges read a 58th row, which the definition does not.
    feature = torch.zeros(1, 1, 64, 64)
    feature[0, 0, 57] = 1
    box = [torch.tensor([[0.0, 0, 56, 56]])]
    assert torchvision_roi_pool(feature, box, 7).any()
    assert not roi_pool(feature, box, 7, backend=backend).any()


def test_no_boxes_and_boxes_that_are_not_finite(backend):
    feature = random_map((2, 3, 9, 9)).requires_grad_()
    for boxes in ([torch.zeros(0, 4)] * 2, torch.zeros(0, 5), torch.zeros(2, 0, 4)):
        out = roi_pool(feature, boxes, 7, backend=backend)
        assert out.shape == (0, 3, 7, 7)
        out.sum().backward()
    boxes = torch.tensor([[0.0, 0, float("nan"), 5], [0, -float("inf"), 3, 3], [0, 0, 1e30, 1e30], [0, 0, 5, 5]])
    out, gradient = output_and_gradient(roi_pool, feature, [boxes, boxes], 2, backend=backend)
    assert out.isfinite().all() and gradient.isfinite().all()
    assert not out[:2].any() and out[3].any()


@pytest.mark.parametrize("channels", [1, 7, 65, 130])
@pytest.mark.parametrize("channels_last", [False, True])
def test_channel_counts_memory_formats_and_gradient_strides(fast_backend, channels, channels_last):
    feature = random_map((2, channels, 12, 12), channels_last=channels_last)
    boxes = with_image(random_boxes(6, 12), 2)
    for grad in (None, torch.ones(1).expand(6, channels, 3, 3), torch.rand(6, 2 * channels, 3, 3)[:, ::2]):
        expected, expected_gradient = output_and_gradient(torchvision_roi_pool, feature, boxes, 3, grad=grad)
        out, gradient = output_and_gradient(roi_pool, feature, boxes, 3, grad=grad, backend=fast_backend)
        assert torch.equal(out, expected)
        assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    feature, boxes = random_map((1, 6, 12, 12)).to(dtype), random_boxes(5, 12)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, gradient = output_and_gradient(roi_pool, feature, boxes, 3)
    expected, expected_gradient = output_and_gradient(roi_pool, feature.float(), boxes, 3)
    assert out.dtype == gradient.dtype == dtype
    assert torch.equal(out.float(), expected)
    assert_near(gradient, expected_gradient, torch.finfo(dtype).eps)


def training_like(backend, dtype=torch.float32, side=30):
    """Output and gradient for overlapping, border and outside boxes on a map with ties, not a number and infinities."""
    feature = random_map((2, 80, side, side), dtype).relu()
    feature[0, 1, 7, 8], feature[1, 0, 3:9, 4:20], feature[0, 2, 2, 3] = float("nan"), -float("inf"), float("inf")
    boxes = torch.cat([random_boxes(200, side), awkward_boxes(side).clamp(-0.4 * side, 1.4 * side)])
    return output_and_gradient(roi_pool, feature, with_image(boxes, 2), 5, deterministic=True, backend=backend)


def test_two_runs_are_bit_identical(fast_backend):
    assert_same_bits(training_like(fast_backend), training_like(fast_backend))


@pytest.mark.parametrize("dtype", DTYPES)
def test_portions_make_no_difference(monkeypatch, dtype):
    whole = training_like("pytorch", dtype)
    monkeypatch.setattr(pytorch_max, "ELEMENTS_AT_ONCE", 3000)
    assert_same_bits(training_like("pytorch", dtype), whole)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_and_operators_give_the_same_bits(dtype):
    assert_same_bits(training_like("compiled", dtype), training_like("pytorch", dtype))


@pytest.mark.usefixtures("compiler")
def test_bins_too_large_for_the_kernels_are_left_to_operators(monkeypatch):
    by_kernels = []
    monkeypatch.setattr(compiled_max, "roi_pool", lambda *args: by_kernels.append(args) or torch.zeros(1, 1, 1, 1))
    feature = torch.zeros(1, 1, 257, 256)
    feature[0, 0, 256, 255] = 5
    large = [torch.tensor([[0.0, 0, 255, 256]])]
    assert roi_pool(feature, large, 1).item() == 5 and not by_kernels
    with pytest.raises(ValueError, match="a bin may have more than 65536 cells"):
        roi_pool(feature, large, 1, backend="compiled")
    roi_pool(feature, [torch.tensor([[0.0, 0, 255, 250]])], 1)
    roi_pool(feature, [torch.tensor([[900.0, 900, 10, 10]])], 1)  # reversed: one cell
    roi_pool(feature, [torch.tensor([[-3e38, 0, 3e38, 9]])], 1)  # out of all bounds: none
    assert len(by_kernels) == 3
