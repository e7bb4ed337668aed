"""RoIPool: a case worked by hand, torchvision, ties, gradients, and the inputs that hurt."""

import pytest
import torch
from torchvision.ops import roi_pool as torchvision_roi_pool

from ops import compiled_max, crop_max
from ops.roi_pool import roi_pool
from tests.ops.cases import assert_near, awkward_boxes, output_and_gradient, random_boxes, random_map, with_image

SHAPES = [(3, 5, 13, 16), (2, 3, 50, 44)]
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(params=["reference", "cpu", "cpu without a compiler"])
def backend(request, monkeypatch):
    """Each implementation; the last two are the same one on a machine that has no compiler."""
    name, _, without = request.param.partition(" ")
    if without:
        monkeypatch.setattr(compiled_max, "build", lambda dtype: "not in this test")
    return name


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
@pytest.mark.parametrize("backend", ["cpu", "cpu without a compiler"], indirect=True)
def test_many_overlapping_rois(backend, side):
    feature, boxes = random_map((2, 4, side, side)).relu(), with_image(random_boxes(640, side), 2)
    expected, expected_gradient = output_and_gradient(torchvision_roi_pool, feature, boxes, 7)
    out, gradient = output_and_gradient(roi_pool, feature, boxes, 7, backend=backend)
    assert torch.equal(out, expected)
    assert_near(gradient, expected_gradient)
    with torch.no_grad():
        assert torch.equal(roi_pool(feature, boxes, 7), expected)


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
@pytest.mark.parametrize("backend", ["cpu", "cpu without a compiler"], indirect=True)
def test_channel_counts_memory_formats_and_gradient_strides(backend, channels, channels_last):
    feature = random_map((2, channels, 12, 12), channels_last=channels_last)
    boxes = with_image(random_boxes(6, 12), 2)
    for grad in (None, torch.ones(1).expand(6, channels, 3, 3), torch.rand(6, 2 * channels, 3, 3)[:, ::2]):
        expected, expected_gradient = output_and_gradient(torchvision_roi_pool, feature, boxes, 3, grad=grad)
        out, gradient = output_and_gradient(roi_pool, feature, boxes, 3, grad=grad, backend=backend)
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


def training_like(monkeypatch, dtype=torch.float32, without_compiler=False, side=30):
    """Output and gradient for overlapping, border and outside boxes on a map with ties, not a number and infinities."""
    feature = random_map((2, 80, side, side), dtype).relu()
    feature[0, 1, 7, 8], feature[1, 0, 3:9, 4:20], feature[0, 2, 2, 3] = float("nan"), -float("inf"), float("inf")
    boxes = torch.cat([random_boxes(200, side), awkward_boxes(side).clamp(-0.4 * side, 1.4 * side)])
    with monkeypatch.context() as patch:
        if without_compiler:
            patch.setattr(compiled_max, "build", lambda dtype: "not in this test")
        return output_and_gradient(roi_pool, feature, with_image(boxes, 2), 5, deterministic=True)


def assert_same_bits(first, second):
    """Outputs and gradients alike to the bit, also where they are not a number."""
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours.contiguous().view(torch.uint8), theirs.contiguous().view(torch.uint8))


@pytest.mark.parametrize("without_compiler", [False, True])
def test_two_runs_are_bit_identical(monkeypatch, without_compiler):
    first, second = (training_like(monkeypatch, without_compiler=without_compiler) for _ in range(2))
    assert_same_bits(first, second)


@pytest.mark.parametrize("dtype", DTYPES)
def test_portions_make_no_difference(monkeypatch, dtype):
    whole = training_like(monkeypatch, dtype, without_compiler=True)
    monkeypatch.setattr(crop_max, "ELEMENTS_AT_ONCE", 3000)
    assert_same_bits(training_like(monkeypatch, dtype, without_compiler=True), whole)


needs_compiler = pytest.mark.skipif(compiled_max.refusal(torch.float32) is not None, reason="no C compiler")


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_kernels_give_the_same_bits(monkeypatch, dtype):
    assert_same_bits(training_like(monkeypatch, dtype), training_like(monkeypatch, dtype, without_compiler=True))


@needs_compiler
def test_bins_too_large_for_the_kernels_are_left_to_crops(monkeypatch):
    kernels = []
    monkeypatch.setattr(compiled_max, "roi_pool", lambda *args: kernels.append(args) or torch.zeros(1, 1, 1, 1))
    feature = torch.zeros(1, 1, 257, 256)
    feature[0, 0, 256, 255] = 5
    assert roi_pool(feature, [torch.tensor([[0.0, 0, 255, 256]])], 1).item() == 5 and not kernels
    roi_pool(feature, [torch.tensor([[0.0, 0, 255, 255]])], 1)
    assert kernels


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "no C compiler no-such-compiler"), ("false", "false failed"), ("true", "no library")],
)
def test_a_machine_without_a_working_compiler_says_so_and_pools(monkeypatch, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    compiled_max.build.cache_clear()
    try:
        assert reason in compiled_max.refusal(torch.float32)
        assert roi_pool(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2).all()
    finally:
        compiled_max.build.cache_clear()
