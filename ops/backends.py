"""Which backend serves a call, and why."""

import torch
from torch import Tensor


def choose(operator: str, feature: Tensor, backend: str) -> str:
    """The backend that serves this call: the one asked for, or for "auto" the fastest that can."""
    return "cpu" if backend == "auto" else backend


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that half-precision features are computed in on a CPU."""
    return torch.float64 if dtype == torch.float64 else torch.float32
