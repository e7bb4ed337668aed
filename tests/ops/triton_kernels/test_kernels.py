"""The Triton kernels against the reference: on a GPU where there is one, else in Triton's interpreter (tiny shapes).

The interpreter must be chosen before triton is imported: `test_triton_without_gpu.py` runs this file that way. It
runs programs one after another, in about 50 ms each, so races cannot show there. New tensors are filled with NaN, so
that an element that no program writes is seen.
"""

import importlib.util
import os
from functools import partial

import pytest
import torch
import torchvision  # noqa: F401  (its operators, at torch.ops.torchvision)

from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp
from ops.validate import PoolSpec
from tests.ops.cases import assert_near, output_and_gradient, random_boxes, random_map

align_max = partial(roi_align, reduce="max")
OPERATORS = pytest.mark.parametrize("operator", [roi_align, align_max, roi_pool], ids=["align", "align_max", "pool"])
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(
        DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1",
        reason="no GPU, and not under the interpreter",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def launch():
    """The launchers; new tensors are filled with NaN meanwhile."""
    from ops.triton_kernels import launch as launchers

    with pytest.MonkeyPatch.context() as patch:
        empty = torch.Tensor.new_empty

        def filled(self, *args, **kwargs):
            out = empty(self, *args, **kwargs)
            return out.fill_(float("nan")) if out.is_floating_point() else out

        patch.setattr(torch.Tensor, "new_empty", filled)
        yield launchers


def triton(operator, **options):
    def call(feature, boxes, *args):
        return operator(feature.to(DEVICE), boxes.to(DEVICE), *args, backend="triton", **options).cpu()

    return call


def reference(operator):
    return lambda *args: operator(*args, backend="reference")


def awkward() -> torch.Tensor:
    """[1, 6, 4] on a 9 x 8 map: inside, over the borders, reversed, of no size, not finite."""
    nan = float("nan")
    return torch.tensor(
        [[[0.5, 1.2, 4.3, 6.4], [-2, 3, 1.5, 10], [5, 6, 2, 1], [3, 3, 3, 3], [nan, 0, 4, 4], [20, 20, 22, 22]]]
    )


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("ratio", "aligned"), [(2, False), (2, True), (-1, False), (-1, True)])
@pytest.mark.parametrize("reduce", ["ave", "max"])
def test_roi_align(reduce, ratio, aligned, deterministic):
    operator, args = (
        partial(roi_align, reduce=reduce),
        (random_map((1, 6, 9, 8)), awkward(), (3, 2), 1.0, ratio, aligned),
    )
    out, gradient = output_and_gradient(triton(operator, deterministic=deterministic), *args)
    expected, expected_gradient = output_and_gradient(reference(operator), *args)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("reduce", ["ave", "max"])
def test_roi_warp_and_a_scale(reduce, deterministic):
    operator, args = partial(roi_warp, reduce=reduce), (random_map((2, 3, 9, 8)), 4 * random_boxes(4, 8).view(2, 2, 4))
    out, gradient = output_and_gradient(triton(operator, deterministic=deterministic), *args, 2, 0.25, 2)
    expected, expected_gradient = output_and_gradient(reference(operator), *args, 2, 0.25, 2)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_first_of_equal_samples_wins_and_nan_before_all(deterministic):
    # Cells equal over large parts, as after a ReLU, one of NaN and one that lies lower than a sample outside the map.
    feature = random_map((1, 4, 7, 7)).relu()
    feature[0, 0, 3, 4], feature[0, 1, 6, 6] = float("nan"), -5
    boxes = torch.tensor([[[1.0, 1, 5, 5], [5, 5, 8, 8], [0, 0, 6, 6]]])
    args = (feature, boxes, 2, 1.0, 2)
    out, gradient = output_and_gradient(triton(align_max, deterministic=deterministic), *args)
    expected, expected_gradient = output_and_gradient(reference(align_max), *args)
    assert expected.isnan().any() and (expected == 0).any()
    assert torch.equal(out.nan_to_num(nan=99), expected.nan_to_num(nan=99))
    assert_near(gradient, expected_gradient)


def test_numbers_of_samples_that_need_more_than_a_byte():
    feature, boxes = random_map((1, 2, 6, 6)), torch.tensor([[[0.3, 0.1, 5.6, 5.9]]])
    out, gradient = output_and_gradient(triton(align_max), feature, boxes, 1, 1.0, 12)
    expected, expected_gradient = output_and_gradient(reference(align_max), feature, boxes, 1, 1.0, 12)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize("deterministic", [False, True])
def test_roi_pool(deterministic):
    args = (random_map((1, 6, 9, 8)).relu(), awkward(), (3, 2), 1.0)
    out, gradient = output_and_gradient(triton(roi_pool, deterministic=deterministic), *args)
    expected, expected_gradient = output_and_gradient(reference(roi_pool), *args)
    assert torch.equal(out, expected)
    assert_near(gradient, expected_gradient)


@OPERATORS
def test_deterministic_gather_skips_only_rois_that_are_far(operator):
    # 40 RoIs are two lots of those that a tile looks at together; the first lot is nowhere near most tiles.
    near = torch.tensor([[1.0, 1, 2, 2]]).repeat(36, 1)
    boxes = torch.cat([near, torch.tensor([[5.0, 8, 7, 11], [4, 4, 4, 4], [9, 2, 6, 1], [11, 11, 12, 12]])])
    args = (random_map((1, 2, 12, 12)), boxes[None], 1, 1.0)
    _, gradient = output_and_gradient(triton(operator, deterministic=True), *args)
    _, expected = output_and_gradient(reference(operator), *args)
    assert_near(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@OPERATORS
def test_half_precision_accumulates_in_float32(operator, dtype):
    args = (random_map((1, 4, 6, 6)).to(dtype), random_boxes(2, 6)[None], 2)
    out, gradient = output_and_gradient(triton(operator), *args)
    expected, expected_gradient = output_and_gradient(reference(operator), args[0].float(), *args[1:])
    assert out.dtype == gradient.dtype == dtype
    tolerance = 2 * torch.finfo(dtype).eps  # the interpreter truncates where a GPU rounds
    assert_near(out, expected, tolerance)
    assert_near(gradient, expected_gradient, tolerance)


@OPERATORS
def test_odd_layouts_and_no_boxes(operator):
    feature, boxes = random_map((1, 5, 6, 7), channels_last=False), 0.5 * random_boxes(2, 6)[None]
    grad = torch.ones(1).expand(2, 5, 2, 3)
    for deterministic in (False, True):
        call = triton(operator, deterministic=deterministic)
        out, gradient = output_and_gradient(call, feature, boxes, (2, 3), grad=grad)
        expected, expected_gradient = output_and_gradient(reference(operator), feature, boxes, (2, 3), grad=grad)
        assert_near(out, expected)
        assert_near(gradient, expected_gradient)
        out, gradient = output_and_gradient(call, feature, torch.zeros(1, 0, 4), 2)
        assert out.shape == (0, 5, 2, 2)
        assert not gradient.any()


@OPERATORS
@pytest.mark.parametrize("deterministic", [False, True])
def test_rois_may_lie_in_memory_in_any_order(operator, deterministic):
    """The kernels find boxes by their number alone."""
    feature, boxes = random_map((1, 5, 6, 7)), 0.5 * random_boxes(3, 6)
    listed = torch.cat([torch.zeros(3, 1), boxes], dim=1)
    expected = output_and_gradient(reference(operator), feature, listed, (2, 3))
    for rois in (listed.t().contiguous().t(), listed.repeat(1, 2)[:, :5], listed.repeat_interleave(2, dim=0)[::2]):
        assert torch.equal(rois, listed) and rois.stride() != listed.stride()
        measured = output_and_gradient(triton(operator, deterministic=deterministic), feature, rois, (2, 3))
        for ours, theirs in zip(measured, expected, strict=True):
            assert_near(ours, theirs)


@pytest.mark.parametrize("kernel", ["atomic", "deterministic", "scalar"])
def test_levels_in_one_launch(launch, kernel):
    from ops.bench.peer import scalar_align

    maps = [random_map((2, 3, side, side), seed=side).to(DEVICE).requires_grad_() for side in (8, 4, 2)]
    boxes, scales = random_boxes(5, 32), [1 / 4, 1 / 8, 1 / 16]
    image, level = torch.tensor([1, 0, 0, 1, 0]).int(), torch.tensor([0, 2, 1, 0, 1]).int()
    args = (maps, boxes.to(DEVICE), image.to(DEVICE), level.to(DEVICE), scales)
    pooled = {
        "atomic": lambda: launch.bilinear(*args, PoolSpec((2, 2), 2)),
        "deterministic": lambda: launch.bilinear(*args, PoolSpec((2, 2), 2, deterministic=True)),
        "scalar": lambda: scalar_align(*args, (2, 2), 2),  # the benchmark's yardstick
    }
    out = pooled[kernel]()
    grad = torch.rand(out.shape)
    out.backward(grad.to(DEVICE))
    for index, scale in enumerate(scales):
        chosen = (level == index).nonzero().squeeze(1)
        listed = torch.cat([image[chosen, None].float(), boxes[chosen]], dim=1)
        leaf = maps[index].detach().cpu().requires_grad_()
        expected = roi_align(leaf, listed, 2, scale, 2, backend="reference")
        expected.backward(grad[chosen])
        assert_near(out[chosen].detach().cpu(), expected.detach())
        assert_near(maps[index].grad.cpu(), leaf.grad)


def test_registration_for_the_compiler(launch):
    tables = [torch.rand(1, 4, 4, 3, device=DEVICE, requires_grad=True)]
    boxes, image = torch.tensor([[0.5, 0.5, 3, 3]], device=DEVICE), torch.zeros(1, dtype=torch.int32, device=DEVICE)
    for reduce in ("ave", "max"):
        settings = ([1.0], 2, 2, 2, False, reduce, True)
        torch.library.opcheck(torch.ops.roi_ops.bilinear.default, (tables, boxes, image, image, *settings))
    bins = [torch.tensor([[0, 2]], dtype=torch.int32, device=DEVICE), torch.tensor([[2, 4]], dtype=torch.int32)]
    bins = [each.to(DEVICE) for each in (*bins, *bins)]
    torch.library.opcheck(torch.ops.roi_ops.pool.default, (tables[0], image, *bins, True))


def test_compiled_code_gives_the_same(launch):
    feature, boxes = random_map((1, 4, 6, 6)).to(DEVICE), random_boxes(2, 6)[None].to(DEVICE)

    def loss(feature):
        aligned = roi_align(feature, boxes, 2, 1.0, 2, backend="triton", deterministic=True)
        largest = align_max(feature, boxes, 2, 1.0, 2, backend="triton", deterministic=True)
        return (aligned + largest + roi_pool(feature, boxes, 2, backend="triton", deterministic=True)).square().sum()

    gradients = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        leaf = feature.clone().requires_grad_()
        function(leaf).backward()
        gradients.append(leaf.grad)
    assert_near(gradients[1], gradients[0], 1e-6)


@pytest.mark.parametrize("name, settings", [("roi_align", (1.0, 3, 2, 2, True)), ("roi_pool", (1.0, 3, 2))])
def test_what_install_registers_is_torchvisions(name, settings):
    from ops.triton_kernels import torchvision_kernels

    feature = random_map((2, 6, 9, 8), channels_last=False).to(DEVICE)
    boxes = torch.cat([torch.zeros(4, 1), awkward()[0, :4]], dim=1)
    boxes[2:, 0] = 1
    boxes = boxes.to(DEVICE)
    expected = getattr(torch.ops.torchvision, name)(feature, boxes, *settings)
    ours = getattr(torchvision_kernels, name)(feature, boxes, *settings)
    many = name == "roi_pool"
    for out, right in zip(ours if many else [ours], expected if many else [expected], strict=True):
        assert_near(out, right)
        assert out.stride() == right.stride() and out.dtype == right.dtype
    second = [expected[1]] if many else []
    grad = torch.randn(4, 6, 3, 2, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    arguments = (grad, boxes, *second, *settings[:3], *feature.shape, *settings[3:])
    out = getattr(torchvision_kernels, f"{name}_backward")(*arguments)
    assert_near(out, getattr(torch.ops.torchvision, f"_{name}_backward")(*arguments))
    with pytest.raises(torchvision_kernels.Unserved):
        getattr(torchvision_kernels, name)(feature.double(), boxes.double(), *settings)
