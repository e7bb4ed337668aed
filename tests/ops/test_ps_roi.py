"""Position-sensitive pooling: cases worked by hand, the original release's formula, gradients, inputs that hurt."""

import math

import pytest
import torch
from torchvision.ops import ps_roi_pool as torchvision_ps_roi_pool

from ops import geometry
from ops.bench.cases import Case, make_boxes
from ops.ps_roi import ps_roi_pool
from ops.sampling import part_cells
from tests.ops.cases import (
    assert_near,
    assert_same_bits,
    awkward_boxes,
    output_and_gradient,
    random_boxes,
    random_map,
    with_image,
)

DTYPES = [torch.float32, torch.float64]


def test_ramp_by_hand(backend):
    # x rounds to 1 and 4, cells of 1.5 round outwards to columns 1-2 and 2-3; y rounds to 1 and 3, rows 1 and 2.
    ramp = (10.0 * torch.arange(5)[:, None] + torch.arange(5)).expand(1, 1, 5, 5)
    out, gradient = output_and_gradient(
        ps_roi_pool, ramp, [torch.tensor([[1.4, 0.6, 3.6, 3.4]])], 2, 1, backend=backend, grad=torch.ones(1, 1, 2, 2)
    )
    assert out.tolist() == [[[[11.5, 12.5], [21.5, 22.5]]]]
    assert gradient[0, 0, 1:3, 1:4].tolist() == [[0.5, 1.0, 0.5]] * 2
    assert gradient.sum() == 4


def test_each_part_reads_its_own_channels(backend):
    # Two maps of 2 x 2 parts, each channel holding its own number: the output shows which was read where.
    feature = torch.arange(8.0)[None, :, None, None].expand(1, 8, 6, 6)
    out = ps_roi_pool(feature, [torch.tensor([[0.0, 0, 6, 6]])], 4, 2, backend=backend)
    assert out[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert torch.equal(out[0, 1], out[0, 0] + 4)


def test_the_release_gives_the_same_cells_for_boxes_that_name_their_last_pixel():
    for low, last in [(3, 130), (0, 255), (37, 40), (12, 12)]:
        start, end = low * (1 / 16), (last + 1) * (1 / 16)  # round(x1) * scale and (round(x2) + 1) * scale
        step = max(end - start, 0.1) / 21
        expected = [(math.floor(start + p * step), math.ceil(start + (p + 1) * step)) for p in range(21)]
        assert geometry.part_cells(low, last + 1, 21, 1 / 16, 16) == expected


def test_edges_on_whole_cells_are_exact():
    # 21 cells of one map cell each: computed as start + p * step, in float32, some would reach into a neighbour.
    for low in range(0, 64, 16):
        cells = geometry.part_cells(low, low + 21 * 16, 21, 1 / 16, 100)
        assert cells == [(low // 16 + p, low // 16 + p + 1) for p in range(21)]
        start, end = part_cells(torch.tensor([float(low)]), torch.tensor([low + 21 * 16.0]), 21, 1 / 16, 100)
        assert torch.stack([start, end], dim=-1)[0].tolist() == [list(cell) for cell in cells]


@pytest.mark.parametrize("kind", ["proposals", "uniform"])
def test_torchvision_agrees_on_the_boxes_of_the_benchmark(kind):
    case = Case("", "ps_roi_pool", 1, (400, 544), 2 * 49, (16,), 40, 7, (112, 560))
    boxes = list(make_boxes(case, kind, torch.device("cpu")))
    assert all((each[:, 2:] - each[:, :2]).unique().numel() > 1 for each in boxes)
    feature = random_map(case.map_shapes[0])
    expected, expected_gradient = output_and_gradient(torchvision_ps_roi_pool, feature, boxes, 7, 1 / 16)
    out, gradient = output_and_gradient(ps_roi_pool, feature, boxes, 7, 7, 1 / 16)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_fast_path_agrees_with_the_definition(fast_backend, dtype, channels_last):
    feature = random_map((2, 5 * 9, 13, 16), dtype, channels_last)
    boxes = with_image(torch.cat([random_boxes(20, 220), awkward_boxes(208)]), 2).to(dtype)
    expected = output_and_gradient(ps_roi_pool, feature, boxes, 9, 3, 1 / 16, backend="reference")
    out = output_and_gradient(ps_roi_pool, feature, boxes, 9, 3, 1 / 16, backend=fast_backend)
    assert expected[0].shape == (31, 5, 9, 9)
    for actual, wanted in zip(out, expected, strict=True):
        assert_near(actual, wanted, 1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.slow
def test_gradcheck(backend):
    feature = torch.randn(1, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[[0.7, 1.1, 4.3, 3.9], [-0.6, 0.3, 2.2, 4.6], [9, 9, 12, 12]]])
    assert torch.autograd.gradcheck(lambda feature: ps_roi_pool(feature, boxes, 4, 2, backend=backend), (feature,))


def test_all_forms_of_boxes_mean_the_same():
    feature, boxes = random_map((2, 8, 9, 9)), random_boxes(6, 9)
    image = torch.arange(2.0).repeat_interleave(3)
    expected = ps_roi_pool(feature, boxes.view(2, 3, 4), 4, 2)
    assert torch.equal(ps_roi_pool(feature, [boxes[:3], boxes[3:]], 4, 2), expected)
    assert torch.equal(ps_roi_pool(feature, torch.cat([image[:, None], boxes], dim=1), 4, 2), expected)


def test_no_boxes_and_boxes_that_are_not_finite(backend):
    feature = random_map((2, 8, 9, 9)).requires_grad_()
    for boxes in ([torch.zeros(0, 4)] * 2, torch.zeros(0, 5), torch.zeros(2, 0, 4)):
        out = ps_roi_pool(feature, boxes, 4, 2, backend=backend)
        assert out.shape == (0, 2, 4, 4)
        out.sum().backward()
    boxes = torch.tensor([[0.0, 0, float("nan"), 5], [0, -float("inf"), 3, 3], [0, 0, 1e30, 1e30], [0, 0, 5, 5]])
    out, gradient = output_and_gradient(ps_roi_pool, feature, [boxes, boxes], 4, 2, backend=backend)
    assert out.isfinite().all() and gradient.isfinite().all()
    assert not out[:2].any() and out[3].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(fast_backend, dtype):
    feature, boxes = random_map((1, 8, 12, 12)).to(dtype), random_boxes(5, 12)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, gradient = output_and_gradient(ps_roi_pool, feature, boxes, 6, 2, backend=fast_backend)
    expected, expected_gradient = output_and_gradient(ps_roi_pool, feature.float(), boxes, 6, 2, backend=fast_backend)
    assert out.dtype == gradient.dtype == dtype
    assert_near(out, expected, torch.finfo(dtype).eps)
    assert_near(gradient, expected_gradient, torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("feature", "size", "parts", "options", "words"),
    [
        (torch.zeros(1, 10, 8, 8), 6, 3, {}, r"multiple of 9 channels.*\[1, 10, 8, 8\]"),
        (torch.zeros(1, 0, 8, 8), 6, 3, {}, "channels"),
        (torch.zeros(1, 9, 8, 8), 7, 3, {}, "multiple of parts = 3, got 7"),
        (torch.zeros(1, 9, 8, 8), 0, 3, {}, "multiple of parts"),
        (torch.zeros(1, 9, 8, 8), 6, 0, {}, "parts: expected a positive int, got 0"),
        (torch.zeros(1, 9, 8), 6, 3, {}, r"\[B, C, H, W\]"),
        (torch.zeros(1, 9, 8, 8), 6, 3, {"spatial_scale": -1.0}, "spatial_scale"),
        (torch.zeros(1, 9, 8, 8), 6, 3, {"backend": "torchvision"}, "no such operator"),
        (torch.zeros(1, 9, 8, 8), 6, 3, {"backend": "fast"}, "auto, reference"),
    ],
)
def test_bad_arguments(feature, size, parts, options, words):
    with pytest.raises(ValueError, match=words):
        ps_roi_pool(feature, [torch.zeros(1, 4)], size, parts, **options)


def test_both_layouts_of_the_map_give_the_same_bits(compiler):
    boxes = with_image(torch.cat([awkward_boxes(48.0), random_boxes(20, 48.0)]), 2)
    feature = torch.randn(2, 18, 12, 14)
    feature[0, 3, 5] = float("inf")
    planes = output_and_gradient(ps_roi_pool, feature, boxes, 6, 3, 1 / 4)
    rows = output_and_gradient(ps_roi_pool, feature.contiguous(memory_format=torch.channels_last), boxes, 6, 3, 1 / 4)
    assert_same_bits(planes, rows)
