"""Which backend serves a call, and why; `python -m ops` prints it for this machine.

reference    the definition, spelled out; any device, slow
cpu          C kernels, `cpu/compiled.py`; where there is no compiler, and for gradients of boxes, PyTorch operators
             as fast as a CPU allows, `cpu/gathered.py` and `cpu/crop_max.py`
triton       `triton_kernels/`; NVIDIA GPUs from compute capability 8.0 on
torchvision  torchvision's own operators, for comparison and where nothing better is at hand
"""

import importlib.util
import os
from dataclasses import dataclass

import torch

ORDER = ("triton", "cpu", "torchvision", "reference")
HAS_TRITON = importlib.util.find_spec("triton") is not None
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Need:
    """What a call asks of its backend."""

    operator: str  # roi_align, roi_pool, roi_warp or ps_roi_pool
    device: torch.device
    dtype: torch.dtype
    reduce: str = "ave"
    box_gradient: bool = False
    deterministic: bool = False


def choose(need: Need, backend: str) -> str:
    """The backend asked for, or for "auto" the fastest that can serve; ValueError where the one asked for cannot."""
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
    if backend == "cpu":
        if need.device.type == "cpu" or (need.device.type == "cuda" and need.operator != "roi_pool"):
            return None
        return f"its operators do not run on {need.device.type}"
    if need.operator == "ps_roi_pool":
        return "it has no such operator"
    if need.box_gradient:
        return "it has no gradient for boxes"
    return _triton_refusal(need) if backend == "triton" else _torchvision_refusal(need)


def _triton_refusal(need: Need) -> str | None:
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
    if need.reduce == "max" and need.operator != "roi_pool":
        return "it averages samples and has no maximum"
    if need.device.type == "mps":
        return "its gradients on this device are wrong where many RoIs overlap"
    if need.deterministic and need.device.type == "cuda":
        return "its gradient on a GPU is not deterministic"
    return None
