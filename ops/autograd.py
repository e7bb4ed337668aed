"""Tracing, compiling, exporting, `torch.func` and double backward for the operators.

Whoever records a call instead of running it (`torch.compile`, `torch.export`, `torch.jit.trace`, fake and meta tensors,
`torch.func`) must see one operator, `roi_ops::call`: the steps of a backend depend on the values of the boxes, and a
record of them would be wrong for other boxes. The operator runs the public function that it stands for once there are
numbers. On NVIDIA GPUs `triton_kernels/launch.py` has operators of its own.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps

import torch
from torch import Tensor

from .validate import Rois, recorded, transformed

AUTOGRAD_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradFunctionality)

functions: dict[str, Callable[..., Tensor]] = {}
"""The operators by name: (list of maps, rois [K, 5], **settings) -> [K, C, P, Q]."""


def recordable(*tensors: Tensor) -> bool:
    """Whether `call` must stand for what is asked with these tensors: it is recorded, and not on a GPU by Triton."""
    return tensors[0].device.type in ("cpu", "meta") and recorded(*tensors)


def call(operator: str, maps: Sequence[Tensor], rois: Rois, **settings) -> Tensor:
    """`functions[operator]` as one operator that can be recorded. [K, C, P, Q], channels last.

    settings are keyword arguments of the function, of which output_size must be (P, Q).
    """
    listed = torch.cat([rois.image[:, None].to(rois.boxes.dtype), rois.boxes], dim=1)
    text = repr({"operator": operator, **settings})
    # Under torch.func no operator with a gradient of its own may stand; a Function with a rule for vmap may.
    if not torch.compiler.is_compiling() and any(map(transformed, (*maps, listed))):
        out = _Call.apply(text, listed, *maps)
    else:
        out = torch.ops.roi_ops.call(list(maps), listed, text)
    return out.permute(0, 3, 1, 2)


def _run(maps: Sequence[Tensor], rois: Tensor, text: str) -> Tensor:
    settings = ast.literal_eval(text)
    with _not_traced():
        return functions[settings.pop("operator")](maps, rois, **settings)


def _gradients(grad: Tensor, maps: Sequence[Tensor], rois: Tensor, text: str, for_rois: bool) -> list[Tensor]:
    """The gradients of maps and, where asked for, of rois; the call is run once more for them."""
    exclude = torch._C._dispatch_tls_local_exclude_set() - AUTOGRAD_KEYS
    keys = torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), exclude)
    with keys, torch.enable_grad():
        leaves = [feature.detach().requires_grad_() for feature in maps]
        boxes = rois.detach().requires_grad_(for_rois)
        out = _run(leaves, boxes, text).permute(0, 2, 3, 1)
        wanted = [*leaves, boxes] if for_rois else leaves
        gradients = torch.autograd.grad(out, wanted, grad, allow_unused=True)
    # The operator has promised contiguous memory, and may not give out one tensor twice.
    filled = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(wanted, gradients, strict=True)]
    return [gradient.contiguous().clone() for gradient in filled]


@contextmanager
def _not_traced() -> Iterator[None]:
    """Sizes are plain integers again while `torch.jit.trace` waits for an operator's result."""
    state = torch._C._get_tracing_state()
    if state is None:
        yield
        return
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]
    set_state(None)
    try:
        yield
    finally:
        set_state(state)


@torch.library.custom_op("roi_ops::call", mutates_args=())
def _call_op(maps: list[Tensor], rois: Tensor, settings: str) -> Tensor:
    return _run(maps, rois, settings).permute(0, 2, 3, 1).contiguous()


@_call_op.register_fake
def _(maps, rois, settings):
    chosen = ast.literal_eval(settings)
    channels = maps[0].shape[1] // chosen.get("parts", 1) ** 2
    return maps[0].new_empty(rois.shape[0], *chosen["output_size"], channels)


@torch.library.custom_op("roi_ops::call_backward", mutates_args=())
def _call_backward_op(grad: Tensor, maps: list[Tensor], rois: Tensor, settings: str, for_rois: bool) -> list[Tensor]:
    return _gradients(grad, maps, rois, settings, for_rois)


@_call_backward_op.register_fake
def _(grad, maps, rois, settings, for_rois):
    return [like.new_empty(like.shape) for like in ([*maps, rois] if for_rois else maps)]


def _save(ctx, inputs, output):
    maps, rois, ctx.settings = inputs
    ctx.save_for_backward(rois, *maps)


def _backward(ctx, grad):
    rois, *maps = ctx.saved_tensors
    for_rois = ctx.needs_input_grad[1]
    gradients = torch.ops.roi_ops.call_backward(grad, maps, rois, ctx.settings, for_rois)
    return gradients[: len(maps)], gradients[-1] if for_rois else None, None


def _refuse(ctx, *grads):
    raise RuntimeError(f"{ast.literal_eval(ctx.settings)['operator']}: expected one backward pass; {NO_SECOND}")


def _save_settings(ctx, inputs, output):
    ctx.settings = inputs[3]


_call_op.register_autograd(_backward, setup_context=_save)
_call_backward_op.register_autograd(_refuse, setup_context=_save_settings)


class _Call(torch.autograd.Function):
    """`roi_ops::call` for `torch.func`."""

    @staticmethod
    def forward(settings, rois, *maps):
        return torch.ops.roi_ops.call(list(maps), rois, settings)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.settings, rois, *maps = inputs
        ctx.save_for_backward(rois, *maps)

    @staticmethod
    def backward(ctx, grad):
        for_rois = ctx.needs_input_grad[1]
        gradients = _CallBackward.apply(ctx.settings, for_rois, grad, *ctx.saved_tensors)
        return None, gradients[-1] if for_rois else None, *gradients[: len(ctx.saved_tensors) - 1]

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return torch.stack([_Call.apply(*_at(index, inputs, in_dims)) for index in range(info.batch_size)]), 0


class _CallBackward(torch.autograd.Function):
    """`roi_ops::call_backward` for `torch.func`."""

    @staticmethod
    def forward(settings, for_rois, grad, rois, *maps):
        return tuple(torch.ops.roi_ops.call_backward(grad, list(maps), rois, settings, for_rois))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.settings = inputs[0]

    @staticmethod
    def backward(ctx, *grads):
        _refuse(ctx)

    @staticmethod
    def vmap(info, in_dims, *inputs):
        rows = [_CallBackward.apply(*_at(index, inputs, in_dims)) for index in range(info.batch_size)]
        stacked = tuple(map(torch.stack, zip(*rows, strict=True)))
        return stacked, (0,) * len(stacked)


def _at(index: int, inputs: Sequence, dims: Sequence[int | None]) -> list:
    """The arguments of one call out of a batch of them."""
    return [value if dim is None else value.select(dim, index) for value, dim in zip(inputs, dims, strict=True)]


NO_SECOND = "roi_align, roi_pool, roi_warp and ps_roi_pool have no gradient of their gradient"


def differentiable_once(backward: Callable) -> Callable:
    """For a Function's `backward`: a gradient of its results is refused, in words; it may not need one itself."""

    @wraps(backward)
    def once(ctx, *grads):
        with torch.no_grad():
            results = backward(ctx, *grads)
        if not torch.is_grad_enabled() or not any(isinstance(grad, Tensor) and grad.requires_grad for grad in grads):
            return results
        several = results if isinstance(results, tuple) else (results,)
        guarded = tuple(_NoSecond.apply(result, *grads) if isinstance(result, Tensor) else result for result in several)
        return guarded if isinstance(results, tuple) else guarded[0]

    return once


class _NoSecond(torch.autograd.Function):
    """Its first input, with a gradient that raises."""

    @staticmethod
    def forward(ctx, result, *grads):
        return result.view_as(result)

    @staticmethod
    def backward(ctx, *grads):
        raise RuntimeError(f"double backward: expected one backward pass; {NO_SECOND}")
