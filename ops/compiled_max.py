"""RoIPool by a C kernel, `compiled_max.c`, which the machine's own compiler builds on first use.

PyTorch has no operator that finds the maxima of many rectangles at once and where they lie; composed of those it has
(`crop_max.py`), RoIPool takes several times as long. Building takes less than a second in each process that pools.
Where there is no compiler, `crop_max.py` serves, with the same results (for boxes no larger than twice the map,
gradients are the same to the bit).
Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width.
"""

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
REALS = {torch.float32: "float", torch.float64: "double"}
CELLS_OF_A_BIN = 1 << 16  # that a place of 16 bits can tell apart


@functools.cache
def build(dtype: torch.dtype) -> ctypes.CDLL | str:
    """The kernels for a dtype, built now and kept while the process lives, or the reason why there are none."""
    wanted = os.environ.get("CC") or "cc"
    try:
        compiler = shlex.split(wanted)
    except ValueError as error:
        return f"CC={wanted} cannot be read: {error}"
    if not compiler or shutil.which(compiler[0]) is None:
        return f"there is no C compiler {wanted}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = f"{folder}/kernels.so"
        real = f"-DREAL={REALS[dtype]}"
        try:
            subprocess.run(
                [*compiler, *FLAGS, real, str(SOURCE), "-o", target],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            )
            kernels = ctypes.CDLL(target)
        except subprocess.CalledProcessError as error:
            return f"{compiler[0]} failed: {error.stderr.strip().partition(chr(10))[0]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{compiler[0]} built no library that loads: {error}"
    for kernel in (kernels.forward, kernels.backward):
        kernel.argtypes, kernel.restype = [ctypes.c_void_p] * 7, None
    return kernels


def refusal(dtype: torch.dtype) -> str | None:
    """Why there are no kernels for a dtype, or None where there are."""
    built = build(dtype)
    return built if isinstance(built, str) else None


def serves(dtype: torch.dtype, rows: Tensor, columns: Tensor) -> bool:
    """Whether there are kernels, bins [K, P, 2] and [K, Q, 2] are not too large for them, and they need no tracing."""
    if torch.compiler.is_compiling():
        return False
    tall, wide = (int(bins.diff(dim=2).max()) if bins.numel() else 0 for bins in (rows, columns))
    return tall * wide <= CELLS_OF_A_BIN and refusal(dtype) is None


def roi_pool(feature: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """RoIPool of `feature` [B, C, H, W] (float32, float64) in bins that `serves` accepts. [K, C, P, Q], channels last.

    image is [K]; rows [K, P, 2] and columns [K, Q, 2] hold each bin's first cell and the one after its last.
    """
    return _CompiledMax.apply(feature.permute(0, 2, 3, 1).contiguous(), image, rows, columns).permute(0, 3, 1, 2)


class _CompiledMax(torch.autograd.Function):
    """Maxima [K, P, Q, C] of a map [B, H, W, C]."""

    @staticmethod
    def forward(ctx, table, image, rows, columns):
        size = torch.tensor([*rows.shape[:2], columns.shape[1], *table.shape[1:]], device="cpu")
        out = table.new_empty(*size[:3].tolist(), table.shape[3])
        where = out.new_empty(out.shape, dtype=torch.uint16)
        _call("forward", table, out, where, image, rows, columns, size)
        ctx.save_for_backward(where, image, rows, columns, size)
        ctx.table_shape = table.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        total = grad.new_zeros(ctx.table_shape)
        _call("backward", total, grad.contiguous(), *ctx.saved_tensors)
        return total, None, None, None


def _call(name: str, table: Tensor, out: Tensor, *others: Tensor) -> None:
    library = build(table.dtype)
    assert isinstance(library, ctypes.CDLL), library
    tensors = [table, out, *(each.contiguous() for each in others)]
    getattr(library, name)(*(each.data_ptr() for each in tensors))
