"""Half-precision maps on a CPU: read as they are, with the bits that float32 arithmetic and one rounding give."""

import pytest
import torch

from ops.cpu import compiled
from ops.ps_roi import ps_roi_pool
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from tests.ops.cases import assert_same_bits, awkward_boxes, output_and_gradient, random_boxes, with_image

pytestmark = pytest.mark.usefixtures("compiler")
HALVES = [torch.bfloat16, torch.float16]
OPERATORS = {
    "RoIAlign": lambda feature, boxes: roi_align(feature, boxes, (5, 4), 1.0, 2),
    "RoIAlign, adaptive": lambda feature, boxes: roi_align(feature, boxes, 5, 1.0, 0, True),
    "RoIAlign, max": lambda feature, boxes: roi_align(feature, boxes, 5, 1.0, 2, reduce="max"),
    "RoIPool": lambda feature, boxes: roi_pool(feature, boxes, (5, 4)),
    "parts": lambda feature, boxes: ps_roi_pool(feature, boxes, 6, 3),
}


def in_float32(operator, feature, boxes, grad):
    """The output and gradient by way of float32, each rounded once by PyTorch."""
    wanted = output_and_gradient(operator, feature.float(), boxes, grad=grad.float())
    return [values.to(feature.dtype) for values in wanted]


def crowded(dtype, channels, channels_last):
    feature = torch.randn(2, channels, 30, 30, generator=torch.Generator().manual_seed(3)).to(dtype)
    boxes = with_image(torch.cat([random_boxes(100, 30), awkward_boxes(30)]), 2)
    return feature.contiguous(memory_format=torch.channels_last) if channels_last else feature, boxes


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("channels", [9, 153])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_bits_are_those_of_float32_arithmetic_and_one_rounding(name, channels, channels_last, dtype):
    operator, (feature, boxes) = OPERATORS[name], crowded(dtype, channels, channels_last)
    grad = torch.randn(operator(feature, boxes).shape, generator=torch.Generator().manual_seed(9)).to(dtype)
    assert_same_bits(
        output_and_gradient(operator, feature, boxes, grad=grad), in_float32(operator, feature, boxes, grad)
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_no_copy_in_float32_is_made(dtype):
    feature, boxes = crowded(dtype, 9, True)
    for name, operator in OPERATORS.items():
        noted = operator(feature.requires_grad_(), boxes).grad_fn
        assert noted.name().startswith("_Compiled") == (name != "RoIAlign, max")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("channels", [1, 128])
def test_every_number_is_read_exactly_and_every_mean_rounded_as_pytorch_rounds(dtype, channels):
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    beside = torch.cat([every[1:], every[:1]])  # means of neighbours lie halfway between two numbers
    feature = torch.stack([every, beside]).reshape(1, 2, 1 << 16, 1).expand(-1, -1, -1, channels).permute(0, 3, 2, 1)
    feature = feature.contiguous(memory_format=torch.channels_last)  # [1, channels, 65536, 2]
    row = torch.arange(1.0 * (1 << 16))
    alone = torch.stack([row * 0, row, row * 0, row], dim=1)
    assert_equal_or_nan(roi_pool(feature, [alone], 1)[:, 0, 0, 0], every)
    between = torch.stack([row * 0, row - 0.5, row * 0 + 1, row + 0.5], dim=1)  # one sample, at (row, 0.5)
    means = roi_align(feature, [between], 1, sampling_ratio=1)
    assert_equal_or_nan(means[:, -1, 0, 0], (0.5 * every.float() + 0.5 * beside.float()).to(dtype))


def assert_equal_or_nan(ours, theirs):
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert torch.equal(ours.nan_to_num(nan=0, posinf=None), theirs.nan_to_num(nan=0, posinf=None))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
def test_a_compiler_that_does_not_know_the_numbers_is_given_float32(dtype, monkeypatch, tmp_path):
    operator, (feature, boxes) = OPERATORS["RoIAlign"], crowded(dtype, 153, False)
    expected = output_and_gradient(operator, feature, boxes)
    old = tmp_path / "cc"
    old.write_text('#!/bin/sh\ncase "$*" in *FLOAT16*) echo unknown type >&2; exit 1;; esac\nexec cc "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("CC", str(old))
    compiled.build.cache_clear()
    try:
        assert compiled.stored_as(dtype) == torch.float32
        assert_same_bits(output_and_gradient(operator, feature, boxes), expected)
    finally:
        compiled.build.cache_clear()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 64, 7, 7), (1, 70, 33, 40), (2, 1, 4, 4), (0, 3, 2, 2)])
def test_layouts_are_changed_as_pytorch_does(dtype, shape):
    values = torch.randint(-999, 999, shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for given in (values, values.contiguous(memory_format=torch.channels_last), values[..., ::2], values.expand(shape)):
        table, planes = compiled.channels_last(given), compiled.channels_first(given)
        assert table.is_contiguous() and torch.equal(table.permute(0, 3, 1, 2), given)
        assert planes.is_contiguous() and torch.equal(planes, given)
