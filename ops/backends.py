"""Which backend serves a call, and why; `python -m ops` prints it for this machine.

reference    the definition, spelled out (`reference.py`); any device, slow
compiled     C kernels that the machine's own compiler builds (`cpu/compiled.py`); CPUs, no gradients of boxes
pytorch      PyTorch operators (`cpu/pytorch_sum.py`, `cpu/pytorch_max.py`); CPUs and, except for RoIPool, NVIDIA GPUs
triton       `triton_kernels/`; NVIDIA GPUs from compute capability 8.0 on
torchvision  torchvision's own operators, for comparison and where nothing better is at hand
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cpu import compiled
from .validate import PoolSpec, Rois

ORDER = ("triton", "compiled", "pytorch", "torchvision", "reference")
HAS_TRITON = importlib.util.find_spec("triton") is not None
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Need:
    """What a call asks of its backend.

    operator       roi_align, roi_pool, roi_warp or ps_roi_pool
    device, dtype  of the feature maps
    reduce         "ave" or "max"
    box_gradient   whether the boxes require a gradient
    deterministic  whether gradients must have the same bits in every run
    readable       whether C kernels can read the maps: see `compiled.readable`
    largest_bin    for RoIPool, the number of cells that its largest bin may have; called only where it matters
    """

    operator: str
    device: torch.device
    dtype: torch.dtype
    reduce: str = "ave"
    box_gradient: bool = False
    deterministic: bool = False
    readable: bool = True
    largest_bin: Callable[[], int] | None = None


def need_of(
    operator: str,
    maps: Sequence[Tensor],
    rois: Rois,
    spec: PoolSpec,
    largest_bin: Callable[[], int] | None = None,
) -> Need:
    """The needs of a call of `operator` with these arguments; maps are of one device and dtype."""
    return Need(
        operator,
        maps[0].device,
        maps[0].dtype,
        spec.reduce,
        rois.boxes.requires_grad and torch.is_grad_enabled(),
        spec.deterministic,
        all(compiled.readable(feature) for feature in maps),
        largest_bin,
    )


def choose(need: Need, backend: str = "auto") -> str:
    """The name of the backend that serves a call.

    That is the one asked for, or for "auto" the fastest that can. Every operator decides here and nowhere else, so that
    the answer is also what a record may state: `choose(Need("roi_align", device, torch.float32))`. Raises ValueError
    where the backend asked for cannot serve.
    """
    if backend == "auto":
        # Triton's interpreter serves a CPU where it is asked for by name; it is for tests, and slow.
        order = ORDER[1:] if need.device.type == "cpu" else ORDER
        return next(name for name in order if refusal(name, need) is None)
    reason = refusal(backend, need)
    if reason is not None:
        raise ValueError(f'backend "{backend}" cannot serve {need.operator} here: {reason}. Use backend="auto"')
    return backend


def refusal(backend: str, need: Need) -> str | None:
    """Why `backend` cannot serve the call, or None where it can."""
    if backend == "reference":
        return None
    if backend == "compiled":
        return _compiled_refusal(need)
    if backend == "pytorch":
        if need.device.type == "cpu" or (need.device.type == "cuda" and need.operator != "roi_pool"):
            return None
        return f"its operators do not run on {need.device.type}"
    if need.operator == "ps_roi_pool":
        return "it has no such operator"
    if need.box_gradient:
        return "it has no gradient for boxes"
    return triton_refusal(need) if backend == "triton" else _torchvision_refusal(need)


def _compiled_refusal(need: Need) -> str | None:
    if need.device.type != "cpu":
        return f"its kernels need a CPU, the tensors are on {need.device.type}"
    if need.box_gradient:
        return "it has no gradient for boxes"
    if not need.readable:
        return "its kernels read plain tensors only, and a call that is traced or compiled cannot contain them"
    if need.largest_bin is not None and need.largest_bin() > compiled.MAX_BIN_CELLS:
        return f"a bin may have more than {compiled.MAX_BIN_CELLS} cells"
    return compiled.build_error(compiled.stored_as(need.dtype))


def triton_refusal(need: Need) -> str | None:
    if not HAS_TRITON:
        return "triton is not installed"
    if need.dtype not in TRITON_DTYPES:
        return f"its kernels take float32, float16 and bfloat16, not {str(need.dtype).removeprefix('torch.')}"
    if os.environ.get("TRITON_INTERPRET") == "1" and need.device.type == "cpu":
        return None
    if need.device.type != "cuda":
        return f"its kernels need a GPU, the tensors are on {need.device.type}"
    capability = torch.cuda.get_device_capability(need.device)
    if torch.version.hip is None and capability < (8, 0):
        return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
    return None


def _torchvision_refusal(need: Need) -> str | None:
    if not HAS_TORCHVISION:
        return "torchvision is not installed"
    if need.reduce == "max" and need.operator != "roi_pool":
        return "it averages samples and has no maximum"
    if need.device.type == "mps":
        return "its gradients on this device are wrong where many RoIs overlap"
    if need.deterministic and need.device.type == "cuda":
        return "its gradient on a GPU is not deterministic"
    return None
