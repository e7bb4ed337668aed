"""Recorded and transformed calls: each gives what the same call gives when it is run."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ops.multi_scale import multi_scale_roi_align, multi_scale_roi_pool
from ops.ps_roi import ps_roi_pool
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp
from tests.ops.cases import assert_same_bits, random_map

OPERATORS = {
    "roi_align": lambda f, b: roi_align(f, b, 3, 1 / 16, 2),
    "roi_align adaptive": lambda f, b: roi_align(f, b, (3, 2), 1 / 16),
    "roi_align max": lambda f, b: roi_align(f, b, 3, 1 / 16, 2, True, reduce="max"),
    "roi_align pytorch": lambda f, b: roi_align(f, b, 3, 1 / 16, 2, backend="pytorch"),
    "roi_warp": lambda f, b: roi_warp(f, b, 3, 1 / 16, 2),
    "roi_pool": lambda f, b: roi_pool(f, b, (2, 3), 1 / 16),
    "ps_roi_pool": lambda f, b: ps_roi_pool(f, b, 4, 2, 1 / 16),
    "multi_scale_roi_align": lambda f, b: multi_scale_roi_align([f, f[..., ::2, ::2]], b, 3, [1 / 8, 1 / 16], 2),
    "multi_scale_roi_pool": lambda f, b: multi_scale_roi_pool([f, f[..., ::2, ::2]], b, 3, [1 / 8, 1 / 16]),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)
FEATURE = random_map((2, 8, 20, 24))
SMALL = torch.tensor([[0, 5.0, 6, 33, 40]])
LARGE = torch.tensor([[1, 0.0, 0, 383, 319], [0, 3.0, 50, 300, 90], [1, 20.0, 20, 21, 21]])


class Module(torch.nn.Module):
    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def forward(self, feature, boxes):
        return self.operator(feature, boxes)


def output_and_gradient(operator, boxes):
    leaf = FEATURE.clone().requires_grad_()
    out = operator(leaf, boxes)
    return out, *torch.autograd.grad(out.square().sum(), leaf)


@every_operator
def test_traced_on_small_boxes_it_is_right_on_large_ones(name):
    traced = torch.jit.trace(OPERATORS[name], (FEATURE, SMALL), check_trace=False)
    assert_same_bits(output_and_gradient(traced, LARGE), output_and_gradient(OPERATORS[name], LARGE))


@pytest.mark.filterwarnings("ignore")
def test_traced_with_a_list_of_boxes_it_takes_other_numbers_of_them():
    def pool(feature, first, second):
        return roi_pool(feature, [first, second], 3, 1 / 16)

    traced = torch.jit.trace(pool, (FEATURE, SMALL[:, 1:], SMALL[:, 1:]), check_trace=False)
    assert torch.equal(traced(FEATURE, LARGE[:, 1:], SMALL[:, 1:]), pool(FEATURE, LARGE[:, 1:], SMALL[:, 1:]))


@pytest.mark.slow
@every_operator
def test_compiled_as_a_whole_and_for_other_numbers_of_boxes(name):
    compiled = torch.compile(OPERATORS[name], fullgraph=True, backend="aot_eager", dynamic=True)
    for boxes in (LARGE, torch.cat([LARGE, LARGE])):
        assert_same_bits(output_and_gradient(compiled, boxes), output_and_gradient(OPERATORS[name], boxes))


@every_operator
def test_exported_with_any_number_of_boxes(name):
    shapes = ({}, {0: torch.export.Dim("rois", min=2, max=100)})
    program = torch.export.export(Module(OPERATORS[name]), (FEATURE, LARGE[:2]), dynamic_shapes=shapes)
    assert torch.equal(program.module()(FEATURE, LARGE), OPERATORS[name](FEATURE, LARGE))


@every_operator
def test_meta_and_fake_tensors_have_the_shape_and_strides_of_the_result(name):
    expected = OPERATORS[name](FEATURE, LARGE)
    meta = OPERATORS[name](FEATURE.to("meta").requires_grad_(), LARGE.to("meta"))
    assert meta.is_meta and meta.requires_grad
    with FakeTensorMode() as mode:
        fake = OPERATORS[name](mode.from_tensor(FEATURE), mode.from_tensor(LARGE))
    for out in (meta, fake):
        assert (out.shape, out.stride(), out.dtype) == (expected.shape, expected.stride(), expected.dtype)


@every_operator
def test_torch_func(name):
    operator = OPERATORS[name]
    several = torch.stack([FEATURE, FEATURE.flip(1)])
    mapped = torch.func.vmap(operator, (0, None))(several, LARGE)
    assert torch.equal(mapped, torch.stack([operator(feature, LARGE) for feature in several]))

    def loss(feature, boxes):
        return operator(feature, boxes).square().sum()

    _, expected = output_and_gradient(operator, LARGE)
    assert torch.equal(torch.func.grad(loss)(FEATURE, LARGE), expected)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(FEATURE, torch.stack([LARGE, LARGE.flip(0)]))
    _, flipped = output_and_gradient(operator, LARGE.flip(0))
    assert torch.equal(each, torch.stack([expected, flipped]))


def test_gradients_of_boxes_survive_recording():
    boxes = LARGE.clone().requires_grad_()

    def gradient(operator):
        return torch.autograd.grad(operator(FEATURE, boxes).square().sum(), boxes)[0]

    expected = gradient(OPERATORS["roi_align pytorch"])
    assert expected.abs().sum() > 0
    compiled = torch.compile(OPERATORS["roi_align"], fullgraph=True, backend="aot_eager")
    assert torch.equal(gradient(compiled), expected)
    functional = torch.func.grad(lambda b: OPERATORS["roi_align"](FEATURE, b).square().sum())(LARGE)
    assert torch.equal(functional, expected)


def test_bad_image_indices_are_refused_when_a_recorded_call_runs():
    traced = torch.jit.trace(OPERATORS["roi_align"], (FEATURE, SMALL), check_trace=False)
    with pytest.raises(Exception, match="expected image indices from 0 to 1 in column 0, got 2 to 2"):
        traced(FEATURE, SMALL + torch.tensor([2, 0, 0, 0, 0]))


@pytest.mark.parametrize("backend", ["compiled", "pytorch"], indirect=True)
@pytest.mark.parametrize("operator", [roi_align, roi_pool])
def test_double_backward_raises_but_create_graph_is_allowed(operator, backend):
    leaf = FEATURE.clone().requires_grad_()
    out = operator(leaf, LARGE, 3, 1 / 16, backend=backend)
    (gradient,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
    _, expected = output_and_gradient(lambda f, b: operator(f, b, 3, 1 / 16, backend=backend), LARGE)
    assert torch.equal(gradient, expected)
    with pytest.raises(
        RuntimeError, match="double backward: .*roi_align, roi_pool.* have no gradient of their gradient"
    ):
        gradient.sum().backward()


def test_a_gradient_of_the_gradient_of_a_compiled_call_is_refused():
    leaf = FEATURE.clone().requires_grad_()
    out = torch.func.grad(lambda f: roi_align(f, LARGE, 3, 1 / 16, 2).square().sum())
    with pytest.raises(RuntimeError, match="roi_align: .*no gradient of their gradient"):
        out(leaf).sum().backward()


def test_pytorchs_own_checks_of_the_operator_pass():
    feature = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    settings = repr({"operator": "roi_align", "output_size": (2, 3), "sampling_ratio": 2, "spatial_scale": 0.25,
                     "aligned": False, "reduce": "ave", "deterministic": False, "backend": "auto"})  # fmt: skip
    boxes = torch.tensor([[0, 1.3, 2.1, 20.2, 25.7], [1, 0.4, 3.3, 30.1, 28.9]], dtype=torch.float64)
    torch.library.opcheck(torch.ops.roi_ops.call.default, ([feature], boxes, settings))


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_numpys_numbers_are_numbers(integer):
    expected = roi_align(FEATURE, LARGE, (3, 2), 1 / 16, 2)
    ours = roi_align(FEATURE, LARGE, (integer(3), integer(2)), np.float32(1 / 16), integer(2))
    assert torch.equal(ours, expected)
    assert torch.equal(roi_align(FEATURE, LARGE, np.array([3, 2]), np.float64(1 / 16), integer(2)), expected)
    assert roi_pool(FEATURE, LARGE, integer(3), 1).shape == (3, 8, 3, 3)
    assert ps_roi_pool(FEATURE, LARGE, integer(4), integer(2), np.float32(0.5)).shape == (3, 2, 4, 4)
    for size in (np.float32(3), np.array([3.0, 2.0]), (integer(0), integer(2)), "37"):
        with pytest.raises(ValueError, match="output_size: expected a positive int"):
            roi_pool(FEATURE, LARGE, size)
