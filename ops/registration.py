"""`install()`: these kernels behind torchvision's own operators, so that any model that calls them is faster.

`torchvision.ops.roi_align`, `roi_pool` and `ps_roi_pool`, the classes around them, detectron2 and whoever else calls
them all end at `torch.ops.torchvision`. There the kernels of a device are replaced, forward and backward; shapes,
autograd, autocast and `torch.compile` stay torchvision's. What a kernel cannot serve goes to torchvision's as before.

Example:
    >>> import torchvision
    >>> ramp, box = torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[0, 0.0, 0.0, 2.0, 2.0]])
    >>> with installed("cpu"):
    ...     torchvision.ops.roi_align(ramp, box, output_size=1, sampling_ratio=2).item()
    5.0
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .backends import HAS_TORCHVISION, HAS_TRITON
from .cpu import compiled

_POOLED = "float spatial_scale, int pooled_height, int pooled_width"
_MAP = "int batch_size, int channels, int height, int width"
SCHEMAS = {
    "roi_align": f"Tensor input, Tensor rois, {_POOLED}, int sampling_ratio, bool aligned -> Tensor",
    "_roi_align_backward": f"Tensor grad, Tensor rois, {_POOLED}, {_MAP}, int sampling_ratio, bool aligned -> Tensor",
    "roi_pool": f"Tensor input, Tensor rois, {_POOLED} -> Tensor, Tensor",
    "_roi_pool_backward": f"Tensor grad, Tensor rois, Tensor argmax, {_POOLED}, {_MAP} -> Tensor",
    "ps_roi_pool": f"Tensor input, Tensor rois, {_POOLED} -> Tensor, Tensor",
    "_ps_roi_pool_backward": f"Tensor grad, Tensor rois, Tensor channel_mapping, {_POOLED}, {_MAP} -> Tensor",
}
"""What the operators of torchvision take and return, as the kernels were written for."""

KERNELS = {"cpu": ".cpu.torchvision_kernels", "cuda": ".triton_kernels.torchvision_kernels"}
"""The module of each device; an operator without a function there is left as it is."""

_libraries: dict[str, torch.library.Library] = {}


def install(*devices: str) -> list[str]:
    """Put these kernels behind torchvision's operators on the given devices, for the whole process.

    Args:
        devices: "cpu", "cuda" or both; without any, those that can be served on this machine.

    Returns:
        The devices on which they are now in place. Calling it again changes nothing.

    Raises:
        RuntimeError: where a device that was named, or no device at all, can be served, or where this version of
            torchvision has operators of another signature. Nothing has changed then.
    """
    refusals = {device: device_refusal(device) for device in devices or KERNELS}
    if devices and any(refusals.values()):
        raise RuntimeError("; ".join(f"install: {device}: {reason}" for device, reason in refusals.items() if reason))
    served = [device for device, reason in refusals.items() if reason is None]
    if not served:
        reasons = "; ".join(f"{device}: {reason}" for device, reason in refusals.items())
        raise RuntimeError(f"install: no device can be served here. {reasons}")
    for device in served:
        if device not in _libraries:
            _libraries[device] = _register(device)
    return served


def uninstall(*devices: str) -> None:
    """Put torchvision's own kernels back, on the given devices or on all of them."""
    for device in devices or tuple(_libraries):
        if device in _libraries:
            _libraries.pop(device)._destroy()


@contextmanager
def installed(*devices: str) -> Iterator[list[str]]:
    """`install`, undone at the end except on devices for which the kernels were in place before."""
    before = set(_libraries)
    served = install(*devices)
    try:
        yield served
    finally:
        for device in set(served) - before:
            uninstall(device)


def device_refusal(device: str) -> str | None:
    """Why torchvision's operators on a device cannot be served by these kernels, or None where they can."""
    if device not in KERNELS:
        return f"expected one of {', '.join(KERNELS)}"
    if not HAS_TORCHVISION:
        return "torchvision is not installed"
    if device == "cpu":
        reason = compiled.build_error(torch.float32) or compiled.build_error(torch.float64)
    elif not HAS_TRITON:
        reason = "triton is not installed"
    else:
        reason = None if torch.cuda.is_available() else "there is no GPU"
    return reason or _unknown_signature()


def _unknown_signature() -> str | None:
    """The first of torchvision's operators that takes or returns something else than `SCHEMAS` says."""
    import torchvision

    for name, expected in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            return f"torchvision {torchvision.__version__} has no operator {name}"
        schema = getattr(torch.ops.torchvision, name).default._schema
        takes = ", ".join(f"{argument.type} {argument.name}" for argument in schema.arguments)
        got = f"{takes} -> {', '.join(str(value.type) for value in schema.returns)}"
        if got != expected:
            return f"expected the operator {name} as ({expected}), torchvision {torchvision.__version__} has ({got})"
    return None


def _register(device: str) -> torch.library.Library:
    module = importlib.import_module(KERNELS[device], __package__)
    library = torch.library.Library("torchvision", "IMPL")
    for name in SCHEMAS:
        ours = getattr(module, name.removeprefix("_"), None)
        if ours is not None:
            key = device.upper()
            theirs = torch.library.get_kernel(getattr(torch.ops.torchvision, name).default, key)
            library.impl(name, _or_theirs(ours, theirs, module.Unserved), key, with_keyset=True)
    return library


def _or_theirs(ours: Callable, theirs, unserved: type[Exception]) -> Callable:
    def kernel(keys, *arguments):
        try:
            with torch.no_grad():
                return ours(*arguments)
        except unserved:
            return theirs.call_boxed(keys, *arguments)

    return kernel
