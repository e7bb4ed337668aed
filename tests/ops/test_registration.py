"""`install()`: torchvision's operators, served by our kernels, give what torchvision's own give."""

import doctest

import pytest
import torch
import torchvision
from torch.library import opcheck

from ops import registration
from ops.registration import install, installed, uninstall
from tests.ops.cases import assert_near, awkward_boxes, output_and_gradient, random_boxes, random_map, with_image

pytestmark = pytest.mark.usefixtures("compiler")
OPERATORS = [
    ("roi_align", ((3, 4), 1 / 8, 2)),
    ("roi_align", ((3, 4), 1 / 8, -1)),
    ("roi_align", (5, 1 / 8, 2, True)),
    ("roi_pool", ((3, 4), 1 / 8)),
    ("ps_roi_pool", (3, 1 / 8)),
]


@pytest.fixture
def boxes():
    return with_image(torch.cat([awkward_boxes(96.0), random_boxes(40, 96.0)]), 2)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name, settings", OPERATORS)
def test_outputs_and_gradients_are_torchvisions(name, settings, dtype, channels_last, boxes):
    operator = getattr(torchvision.ops, name)
    feature = random_map((2, 18, 12, 14), dtype, channels_last)
    if name == "ps_roi_pool":  # torchvision's gradient reads the map's last row and column, its output does not
        boxes = boxes[((boxes[:, 1:] >= 0) & (boxes[:, 1:] < 88)).all(dim=1)]
    expected, expected_gradient = output_and_gradient(operator, feature, boxes.to(dtype), *settings)
    with installed("cpu"):
        out, gradient = output_and_gradient(operator, feature, boxes.to(dtype), *settings)
    assert_near(out, expected)
    assert_near(gradient, expected_gradient)
    assert out.is_contiguous() and gradient.stride() == expected_gradient.stride()


def test_it_is_our_kernels_that_serve(boxes, monkeypatch):
    from ops.cpu import torchvision_kernels

    def refuse(*arguments):
        raise ZeroDivisionError

    for name in registration.SCHEMAS:
        monkeypatch.setattr(torchvision_kernels, name.removeprefix("_"), refuse)
    feature = random_map((2, 9, 12, 14))
    with installed("cpu"):
        for name, settings in OPERATORS:
            with pytest.raises(ZeroDivisionError):
                getattr(torchvision.ops, name)(feature, boxes, *settings)
    for name, settings in OPERATORS:
        getattr(torchvision.ops, name)(feature, boxes, *settings)


def test_the_second_results_are_torchvisions(boxes):
    feature = torch.randn(2, 9, 12, 14)
    for name in ("roi_pool", "ps_roi_pool"):
        operator = getattr(torch.ops.torchvision, name)
        pooled, expected = operator(feature, boxes, 1 / 8, 3, 3)
        with installed("cpu"):
            ours, second = operator(feature, boxes, 1 / 8, 3, 3)
        assert torch.equal(second, expected) and second.dtype == expected.dtype
        assert_near(ours, pooled)


@pytest.mark.parametrize("name, settings", OPERATORS)
def test_pytorchs_own_checks_of_an_operator_pass(name, settings, boxes):
    feature = torch.randn(2, 9, 12, 14, dtype=torch.float64, requires_grad=True)
    (rows, columns), *others = torch.nn.modules.utils._pair(settings[0]), *settings[1:]
    if name == "roi_align":
        others = [*others, False][:3]
    arguments = (feature, boxes.double(), others[0], rows, columns, *others[1:])
    with installed("cpu"):
        opcheck(getattr(torch.ops.torchvision, name).default, arguments)


def test_a_compiled_model_calls_our_kernels_and_gets_the_strides_it_was_promised(boxes):
    feature = torch.randn(2, 4, 12, 14, requires_grad=True)

    def twice(feature, boxes):
        return 2 * torchvision.ops.roi_align(feature, boxes, 3, 1 / 8, 2)

    with installed("cpu"):
        out = torch.compile(twice, backend="aot_eager", fullgraph=True)(feature, boxes)
        (gradient,) = torch.autograd.grad(out.sum(), feature)
    expected = twice(feature, boxes)
    assert_near(out.detach(), expected.detach())
    assert_near(gradient, torch.autograd.grad(expected.sum(), feature)[0])


def test_scripted_models_are_served_too(boxes):
    scripted = torch.jit.script(torchvision.ops.roi_align)
    feature = torch.randn(2, 4, 12, 14)
    expected = scripted(feature, boxes, [3, 3], 1 / 8, 2)
    with installed("cpu"):
        assert_near(scripted(feature, boxes, [3, 3], 1 / 8, 2), expected)


def test_what_the_kernels_cannot_serve_goes_to_torchvisions(boxes):
    feature = torch.randn(2, 12, 12, 14)
    expected = torchvision.ops.ps_roi_pool(feature, boxes, (3, 4), 1 / 8)
    with installed("cpu"):
        assert torch.equal(torchvision.ops.ps_roi_pool(feature, boxes, (3, 4), 1 / 8), expected)


def test_a_gradient_of_the_gradient_is_refused_as_before(boxes):
    feature = torch.randn(2, 4, 12, 14, requires_grad=True)
    with installed("cpu"):
        pooled = torchvision.ops.roi_align(feature, boxes, 3, 1 / 8, 2)
        (gradient,) = torch.autograd.grad(pooled.square().sum(), feature, create_graph=True)
        with pytest.raises(RuntimeError, match="double backwards on roi_align not supported"):
            gradient.sum().backward()


def test_bad_boxes_are_refused_where_torchvision_reads_memory_it_does_not_own():
    feature = torch.randn(2, 4, 12, 14)
    with installed("cpu"):
        for name, settings in OPERATORS:
            for index in (-1.0, 2.0):
                with pytest.raises(RuntimeError, match="image indices from 0 to 1"):
                    getattr(torchvision.ops, name)(
                        torch.randn(2, 9, 4, 4), torch.tensor([[index, 0, 0, 9, 9]]), *settings
                    )
        with pytest.raises(RuntimeError, match=r"Tensor\[B, C, H, W\].*\[4, 12, 14\]"):
            torch.ops.torchvision.roi_align(feature[0], torch.zeros(1, 5), 1.0, 3, 3, 2, False)
        with pytest.raises(RuntimeError, match="multiple of 3"):
            torch.ops.torchvision.ps_roi_pool(feature, torch.zeros(1, 5), 1.0, 3, 3)
        with pytest.raises(RuntimeError, match="same type"):
            torchvision.ops.roi_align(feature, torch.zeros(1, 5, dtype=torch.float64), 3)
        with pytest.raises(RuntimeError, match=r"Tensor\[K, 5\]"):
            torch.ops.torchvision.roi_pool(feature, torch.zeros(1, 4), 1.0, 3, 3)
    assert torchvision.ops.roi_pool(feature, torch.zeros(0, 5), 3).shape == (0, 4, 3, 3)


def test_gradients_of_other_shapes_than_the_output_are_refused():
    boxes, sizes = torch.zeros(2, 5), (1.0, 3, 3, 1, 9, 8, 8)
    grad, argmax = torch.ones(2, 9, 3, 3), torch.zeros(2, 9, 3, 3, dtype=torch.int32)
    operators = torch.ops.torchvision
    with installed("cpu"):
        with pytest.raises(RuntimeError, match=r"grad must have shape \[2, 9, 3, 3\], got \[1, 9, 3, 3\]"):
            operators._roi_align_backward(grad[:1], boxes, *sizes, 2, False)
        with pytest.raises(RuntimeError, match="argmax must have shape"):
            operators._roi_pool_backward(grad, boxes, argmax[..., :2], *sizes)
        with pytest.raises(RuntimeError, match="argmax must be of int32"):
            operators._roi_pool_backward(grad, boxes, argmax.long(), *sizes)
        with pytest.raises(RuntimeError, match=r"grad must have shape \[2, 1, 3, 3\]"):
            operators._ps_roi_pool_backward(grad, boxes, argmax, *sizes)
        assert operators._roi_pool_backward(grad, boxes, argmax + 63, *sizes).sum() == grad.sum()
        for beyond in (64, -2):
            with pytest.raises(RuntimeError, match=r"argmax values must be in \[-1, 64\)"):
                operators._roi_pool_backward(grad, boxes, argmax + beyond, *sizes)
        one, mapping = torch.ones(2, 1, 3, 3), torch.arange(9, dtype=torch.int32).view(1, 1, 3, 3).repeat(2, 1, 1, 1)
        assert operators._ps_roi_pool_backward(one, boxes, mapping, *sizes).sum() > 0
        with pytest.raises(RuntimeError, match="channel_mapping must have shape"):
            operators._ps_roi_pool_backward(one, boxes, mapping[:1], *sizes)
        with pytest.raises(RuntimeError, match=r"channel_mapping values must be in \[0, 9\)"):
            operators._ps_roi_pool_backward(one, boxes, mapping + 1, *sizes)


def test_no_boxes_give_no_results():
    feature = torch.randn(2, 9, 12, 14, requires_grad=True)
    with installed("cpu"):
        for name, settings in OPERATORS:
            pooled = getattr(torchvision.ops, name)(feature, torch.zeros(0, 5), *settings)
            assert pooled.shape[0] == 0
            assert torch.autograd.grad(pooled.sum(), feature)[0].abs().sum() == 0


def in_place() -> bool:
    """Whether our kernels serve: torchvision's own take no bfloat16 on a CPU."""
    half = torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16)
    try:
        torchvision.ops.roi_align(half, torch.zeros(1, 5, dtype=torch.bfloat16), 2)
    except (RuntimeError, NotImplementedError):
        return False
    return True


def test_installing_twice_and_uninstalling_leaves_torchvision_as_it_was():
    assert not in_place()
    assert install("cpu") == install("cpu") == ["cpu"] and in_place()
    with installed("cpu"):
        assert in_place()
    assert in_place()  # the block does not undo what was there before it
    uninstall()
    uninstall("cpu")
    assert not in_place()
    with installed():
        assert in_place()
    assert not in_place()


def test_a_changed_torchvision_signature_is_refused_with_a_reason(monkeypatch):
    monkeypatch.setitem(registration.SCHEMAS, "roi_pool", "Tensor input, Tensor rois -> Tensor")
    with pytest.raises(RuntimeError, match=r"expected the operator roi_pool as \(Tensor input, .*, torchvision .* has"):
        install("cpu")
    assert not in_place()


def test_devices_that_cannot_be_served_say_why():
    with pytest.raises(RuntimeError, match="install: tpu: expected one of cpu, cuda"):
        install("cpu", "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="install: cuda: .*(no GPU|not installed)"):
            install("cuda")


def test_the_example_runs():
    done = doctest.testmod(registration, extraglobs={"torch": torch})
    assert done.attempted >= 2 and not done.failed
