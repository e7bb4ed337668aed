"""The C kernels: built or said to be missing, one pass over all levels, and no bit that depends on the threads."""

import os
import shutil
import tempfile
import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ops import sampling
from ops.cpu import compiled, compiled_max, compiled_sum
from ops.multi_scale import MultiScaleRoIAlign
from ops.ps_roi import ps_roi_pool
from ops.roi_align import roi_align
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

pytestmark = pytest.mark.slow

OPERATORS = {
    "RoIAlign": lambda feature, boxes, **options: roi_align(feature, boxes, (5, 4), 1.0, 2, **options),
    "RoIAlign, adaptive": lambda feature, boxes, **options: roi_align(feature, boxes, 5, 1.0, 0, True, **options),
    "RoIAlign, max": lambda feature, boxes, **options: roi_align(feature, boxes, 5, 1.0, 2, reduce="max", **options),
    "parts": lambda feature, boxes, **options: ps_roi_pool(feature, boxes, 6, 3, **options),
    "RoIPool": lambda feature, boxes, **options: roi_pool(feature, boxes, (5, 4), **options),
}


def crowded(dtype=torch.float32, images=2):
    """A map [images, 90, 30, 30] and boxes on it that overlap, cross its borders or lie outside."""
    feature = torch.randn(images, 90, 30, 30, generator=torch.Generator().manual_seed(3)).to(dtype)
    return feature, with_image(torch.cat([random_boxes(100, 30), awkward_boxes(30)]), images)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("images", [1, 2])
def test_the_number_of_threads_changes_no_bit(name, images):
    if "one thread" in compiled.description():
        pytest.skip("the compiler knows no threads")
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(output_and_gradient(OPERATORS[name], *crowded(images=images)))
    finally:
        torch.set_num_threads(before)
    assert results[0][1].any()
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "RoIPool"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_agree_with_those_of_operators(name, dtype):
    by_kernels, by_operators = (
        output_and_gradient(OPERATORS[name], *crowded(dtype), backend=backend) for backend in ("compiled", "pytorch")
    )
    for ours, theirs in zip(by_kernels, by_operators, strict=True):
        assert_near(ours, theirs, 4 * torch.finfo(dtype).eps)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("channels", [1, 3, 15, 16, 63, 64, 65, 130])
def test_any_number_of_channels(channels):
    feature, boxes = crowded()
    feature = torch.cat([feature, feature.flip(1)], dim=1)[:, :channels]
    by_kernels, by_operators = (
        output_and_gradient(OPERATORS["RoIAlign"], feature, boxes, backend=backend)
        for backend in ("compiled", "pytorch")
    )
    for ours, theirs in zip(by_kernels, by_operators, strict=True):
        assert_near(ours, theirs, 1e-6)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("channels", [1, 128])
def test_cells_of_weight_zero_are_not_read(channels):
    """The definition multiplies them by 0, which makes NaN of infinity."""
    feature = torch.ones(1, channels, 4, 4)
    feature[0, :, 1, 2] = float("inf")
    boxes = torch.tensor([[0.0, 0, 0, 2, 2]])  # one sample a bin, on the cells 0 and 1
    grad = torch.full((1, channels, 2, 2), float("inf"))
    out, gradient = output_and_gradient(roi_align, feature, boxes, 2, 1.0, 1, True, grad=grad)
    assert (out == 1).all()
    assert not gradient.isnan().any() and int(gradient.isinf().sum()) == 4 * channels


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_tracing_and_compiling_see_one_operator_that_runs_the_kernels():
    feature, boxes = crowded()
    wanted = roi_align(2 * feature, boxes, 5, 1.0, 2)
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(lambda feature: roi_align(feature, boxes, 5, 1.0, 2), feature, check_trace=False)
    assert_near(traced(2 * feature), wanted)
    assert str(traced.graph).count("roi_ops::call") == 1
    made = torch.compile(lambda feature: roi_align(feature, boxes, 5, 1.0, 2), backend="aot_eager", fullgraph=True)
    assert_near(made(2 * feature), wanted)


@pytest.mark.usefixtures("compiler")
def test_negative_bit_tensors_are_handled():
    feature, boxes = torch._neg_view(random_map((1, 70, 9, 9))), [random_boxes(4, 9)]
    for operator in OPERATORS["RoIAlign"], OPERATORS["RoIPool"]:
        assert_near(operator(feature, boxes), operator(feature.resolve_neg(), boxes))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_default_device_makes_no_difference(device):
    feature, boxes = crowded()
    expected = [output_and_gradient(operator, feature, boxes) for operator in OPERATORS.values()]
    grads = [torch.randn(out.shape, generator=torch.Generator().manual_seed(9)) for out, _ in expected]
    for (name, operator), wanted, grad in zip(OPERATORS.items(), expected, grads, strict=True):
        if name in ("RoIAlign", "RoIAlign, adaptive", "RoIPool"):
            with torch.device(device):
                assert_same_bits(output_and_gradient(operator, feature, boxes, grad=grad), wanted)


class Marked(torch.Tensor):
    """A tensor that is more than its memory."""


def test_only_plain_tensors_are_given_to_the_kernels():
    feature = torch.zeros(1, 4, 8, 8)
    assert compiled.readable(feature) and compiled.readable(torch.nn.Parameter(feature))
    assert not compiled.readable(feature.as_subclass(Marked))
    assert not compiled.readable(feature.to("meta"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert not compiled.readable(feature)
    with FlopCounterMode(display=False):
        assert not compiled.readable(feature)
    assert compiled.readable(feature)


@pytest.mark.usefixtures("compiler")
def test_all_levels_are_pooled_in_one_call(monkeypatch):
    calls = []
    interpolate = compiled_sum.interpolate
    monkeypatch.setattr(compiled_sum, "interpolate", lambda *args: calls.append(args) or interpolate(*args))
    maps = {str(level): random_map((2, 4, 64 >> level, 64 >> level)) for level in range(4)}
    module = MultiScaleRoIAlign(["0", "1", "2", "3"], 3, 2, canonical_scale=56)
    boxes = [random_boxes(30, 256), random_boxes(5, 100)]
    module(maps, boxes, [(256, 256)] * 2)
    assert len(calls) == 1
    module(maps, [boxes[0].requires_grad_(), boxes[1]], [(256, 256)] * 2).sum().backward()
    assert len(calls) == 1 and boxes[0].grad.any()


def ends(dtype=torch.float64):
    """Boxes of many sizes, some reversed, of no size, far outside, or with ends halfway between cells: [2, K]."""
    generator = torch.Generator().manual_seed(4)
    low = torch.rand(400, generator=generator, dtype=torch.float64) * 40 - 5
    high = low + torch.rand(400, generator=generator, dtype=torch.float64) ** 3 * 60 - 1
    halves = torch.tensor([[0.5, 1.5, -0.5, 2.5, 7.0, 7.0, -1e6, 3.0], [3.5, 1.5, 0.5, 9.5, 7.0, 2.0, -1e6, 1e9]])
    return torch.cat([torch.stack([low, high]).to(dtype).double(), halves.double()], dim=1)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("ratio", [-1, 0, 1, 2, 3, 8])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("kind", ["any", "small", "huge", "empty", "none"])
def test_samples_are_those_of_the_operators_to_the_bit(ratio, aligned, kind):
    low, high = ends()
    if kind == "small":
        high = low + (high - low).clamp(max=6)  # bins of few cells, which are merged
    elif kind == "huge":
        low, high = -(high.abs() ** 20), low.abs() ** 20
    elif kind == "empty":
        high = low.clone()
    elif kind == "none":
        low, high = low[:0], high[:0]
    length = torch.tensor([1.0, 2, 13, 30]).repeat(len(low))[: len(low)].double()
    axis = sampling.Axis(low, high, length, 7, ratio, aligned)
    expected = sampling.mean_pairs(axis)
    assert kind != "small" or ratio < 2 or expected[0].shape[2] < 2 * ratio
    pairs = compiled_sum.mean_pairs(axis, torch.float32)
    for ours, theirs in zip(pairs, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_are_those_of_the_operators(dtype):
    low, high = (end.to(dtype) for end in ends(dtype))
    boxes = torch.stack([low, low.flip(0), high, high.flip(0)], dim=1)
    for (rows, columns), (height, width) in (((7, 3), (30, 8)), ((1, 1), (5, 7)), ((14, 7), (64, 9))):
        expected_rows = torch.stack(sampling.pool_bins(low.flip(0), high.flip(0), rows, height), dim=2)
        expected_columns = torch.stack(sampling.pool_bins(low, high, columns, width), dim=2)
        bins = compiled_max.bins_of(boxes, (rows, columns), (height, width), dtype)
        assert torch.equal(bins[0], expected_rows) and torch.equal(bins[1], expected_columns)


def built_by(monkeypatch, compiler: str) -> str | None:
    """The reason why there are no kernels when `compiler` is to build them."""
    monkeypatch.setenv("CC", compiler)
    compiled.build.cache_clear()
    return compiled.build_error(torch.float32)


@pytest.fixture
def forget():
    """What a test has built is built anew afterwards."""
    yield
    compiled.build.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "no C compiler no-such-compiler"),
        ("false", "false failed"),
        ("true", "no library"),
        ("cc 'a", "cannot be read"),
        (r"sh -c 'printf \377 >&2; exit 1'", "sh failed"),
    ],
)
def test_a_machine_without_a_working_compiler_says_so_and_pools(monkeypatch, forget, compiler, reason):
    assert reason in built_by(monkeypatch, compiler)
    assert roi_pool(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2).all()
    assert roi_align(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2).all()


def test_no_folder_to_build_in(monkeypatch, forget):
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    compiled.build.cache_clear()
    if shutil.which("cc"):
        assert "built no library" in compiled.build_error(torch.float32)
    assert roi_pool(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2).all()


@pytest.mark.usefixtures("compiler")
def test_a_compiler_without_thread_support_builds_single_threaded_kernels(monkeypatch, forget, tmp_path):
    expected = [output_and_gradient(operator, *crowded()) for operator in OPERATORS.values()]
    old = tmp_path / "cc"
    old.write_text('#!/bin/sh\ncase "$*" in *openmp*) echo unknown option >&2; exit 1;; esac\nexec cc "$@"\n')
    old.chmod(0o755)
    assert built_by(monkeypatch, str(old)) is None
    assert compiled.description() == "compiled C kernels, for one thread"
    for operator, wanted in zip(OPERATORS.values(), expected, strict=True):
        assert_same_bits(output_and_gradient(operator, *crowded()), wanted)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_width_of_vectors_changes_no_bit(monkeypatch, forget, dtype):
    compiler, results = os.environ.get("CC") or "cc", []
    for width in (64, 32, 16):
        assert built_by(monkeypatch, f"{compiler} -DWIDTH={width}") is None
        results.append([output_and_gradient(OPERATORS[name], *crowded(dtype)) for name in ("RoIAlign", "RoIPool")])
    for others in results[1:]:
        for one, same in zip(results[0], others, strict=True):
            assert_same_bits(one, same)
