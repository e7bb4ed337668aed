"""The C kernels: built or said to be missing, one pass over all levels, and no bit that depends on the threads."""

import pytest
import torch

from ops import compiled, compiled_sum
from ops.multi_scale import MultiScaleRoIAlign
from ops.ps_roi import ps_roi_pool
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from tests.ops.cases import (
    assert_near,
    assert_same_bits,
    awkward_boxes,
    needs_compiler,
    output_and_gradient,
    random_boxes,
    random_map,
    with_image,
)
from tests.ops.conftest import no_compiler

OPERATORS = {
    "RoIAlign": lambda feature, boxes: roi_align(feature, boxes, (5, 4), 1.0, 2),
    "RoIAlign, adaptive": lambda feature, boxes: roi_align(feature, boxes, 5, 1.0, 0, True),
    "RoIAlign, max": lambda feature, boxes: roi_align(feature, boxes, 5, 1.0, 2, reduce="max"),
    "parts": lambda feature, boxes: ps_roi_pool(feature, boxes, 6, 3),
    "RoIPool": lambda feature, boxes: roi_pool(feature, boxes, (5, 4)),
}


def crowded(dtype=torch.float32, images=2):
    """A map [images, 90, 30, 30] and boxes on it that overlap, cross its borders or lie outside."""
    feature = torch.randn(images, 90, 30, 30, generator=torch.Generator().manual_seed(3)).to(dtype)
    return feature, with_image(torch.cat([random_boxes(100, 30), awkward_boxes(30)]), images)


@needs_compiler
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("images", [1, 2])
def test_the_number_of_threads_changes_no_bit(name, images):
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


@needs_compiler
@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "RoIPool"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_agree_with_gathered_rows(monkeypatch, name, dtype):
    by_kernels = output_and_gradient(OPERATORS[name], *crowded(dtype))
    no_compiler(monkeypatch)
    for ours, theirs in zip(by_kernels, output_and_gradient(OPERATORS[name], *crowded(dtype)), strict=True):
        assert_near(ours, theirs, 4 * torch.finfo(dtype).eps)


@needs_compiler
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


def built_by(monkeypatch, compiler: str) -> str | None:
    """The reason why there are no kernels when `compiler` is to build them."""
    monkeypatch.setenv("CC", compiler)
    compiled.build.cache_clear()
    return compiled.refusal(torch.float32)


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
    ],
)
def test_a_machine_without_a_working_compiler_says_so_and_pools(monkeypatch, forget, compiler, reason):
    assert reason in built_by(monkeypatch, compiler)
    assert roi_pool(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2).all()
    assert roi_align(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2).all()


@needs_compiler
def test_a_compiler_that_knows_no_threads_builds_kernels_for_one(monkeypatch, forget, tmp_path):
    expected = [output_and_gradient(operator, *crowded()) for operator in OPERATORS.values()]
    old = tmp_path / "cc"
    old.write_text('#!/bin/sh\ncase "$*" in *openmp*) echo unknown option >&2; exit 1;; esac\nexec cc "$@"\n')
    old.chmod(0o755)
    assert built_by(monkeypatch, str(old)) is None
    for operator, wanted in zip(OPERATORS.values(), expected, strict=True):
        assert_same_bits(output_and_gradient(operator, *crowded()), wanted)
