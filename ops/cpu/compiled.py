"""The library of the backend `compiled`: C kernels, `compiled.c`, built by the machine's own compiler on first use.

PyTorch has no operator that finds the maxima of many rectangles at once, and its sums of gathered rows require every
pair of row and column to be materialised, forward and, sorted by cell, once more backward. Building takes less than a
second for each dtype in each process that pools. Where there is no compiler, `ops/backends.py` has the backend
`pytorch` serve.
"""

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..validate import recorded

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-shared", "-fPIC")
OPTIONAL_FLAGS = (("-march=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())
"""In order of preference: not every compiler knows both."""

DTYPES = {
    torch.float32: ("-DREAL=float",),
    torch.float64: ("-DREAL=double",),
    torch.bfloat16: ("-DREAL=float", "-DBFLOAT16"),
    torch.float16: ("-DREAL=float", "-DFLOAT16"),  # not every compiler knows it
}
"""What tells the compiler the dtype of maps; sums are taken in REAL."""

MAX_BIN_CELLS = 1 << 16
"""The most cells of a RoIPool bin: the kernels note in 16 bits which cell of a bin holds its maximum."""


@functools.cache
def build(dtype: torch.dtype) -> ctypes.CDLL | str:
    """The kernels for a dtype, built now and kept while the process lives, or the reason why there are none."""
    if dtype not in DTYPES:
        return f"there are no kernels for {str(dtype).removeprefix('torch.')}"
    wanted = os.environ.get("CC") or "cc"
    try:
        compiler = shlex.split(wanted)
    except ValueError as error:
        return f"CC={wanted} cannot be read: {error}"
    if not compiler or shutil.which(compiler[0]) is None:
        return f"there is no C compiler {wanted}"
    reason = ""
    for flags in OPTIONAL_FLAGS:
        built = _run([*compiler, *FLAGS, *flags, *DTYPES[dtype], str(SOURCE), "-lm"])
        if not isinstance(built, str):
            return built
        reason = built
    return reason


def _run(command: list[str]) -> ctypes.CDLL | str:
    """The library that a compiler's command makes, or why it makes none."""
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            target = f"{folder}/kernels.so"
            subprocess.run(
                [*command, "-o", target], check=True, capture_output=True, text=True, errors="replace", timeout=60
            )
            return ctypes.CDLL(target)
    except subprocess.CalledProcessError as error:
        return f"{command[0]} failed: {error.stderr.strip().partition(chr(10))[0]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} built no library that loads: {error}"


def build_error(dtype: torch.dtype) -> str | None:
    """Why there are no kernels for a dtype on this machine, or None where there are."""
    built = build(dtype)
    return built if isinstance(built, str) else None


def stored_as(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which kernels are given maps of a dtype: the same where they can be built for it, or float32."""
    return dtype if dtype == torch.float64 or build_error(dtype) is None else torch.float32


def summed_as(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which kernels take sums over maps of a dtype, and gradients of them."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def description() -> str:
    """What serves float32 on a CPU, in words."""
    reason = build_error(torch.float32)
    if reason is not None:
        return f"PyTorch operators alone, as {reason}"
    return "compiled C kernels" if call("threaded", torch.float32) else "compiled C kernels, for one thread"


def readable(feature: Tensor) -> bool:
    """Whether a map is plain main memory, and nothing records the call that would see operators and no kernels.

    That is a compiler, a tracer or a dispatch mode. Kernels find the map's numbers, as they are, at its address.
    """
    return not recorded(feature) and feature.device.type == "cpu" and not feature.is_neg()


class Size(ctypes.Structure):
    """`struct size` in the kernels."""

    _fields_ = [(name, ctypes.c_int64) for name in ("K", "P", "Q", "C", "lines", "M", "N", "parts")]


def locate(tables: Sequence[Tensor], image: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The kernels' `plane`, `width` and `line` of RoIs on images [K] and levels [K] of maps [B, H_l, W_l, C]."""
    if len(tables) == 1:
        _, height, width, _ = tables[0].shape
        step = tables[0].stride(0) * tables[0].element_size()
        return image * step + tables[0].data_ptr(), torch.full_like(image, width), image * height
    facts, lines = [], 0
    for table in tables:
        batch, height, width, _ = table.shape
        facts.append([table.data_ptr(), table.stride(0) * table.element_size(), width, lines, height])
        lines += batch * height
    address, step, width, line, height = torch.tensor(facts, dtype=torch.int64, device="cpu").t()[:, level]
    return address + image * step, width, line + image * height


def zeros(*shape: int) -> Tensor:
    """Whole numbers, 0 at first, for a kernel to count in, whatever the default device."""
    return torch.zeros(shape, dtype=torch.int64, device="cpu")


def room(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Room for what a kernel writes before anything reads it."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def channels_last(feature: Tensor) -> Tensor:
    """A tensor [B, C, H, W] as [B, H, W, C] in contiguous memory, itself where it lies so. No gradient."""
    feature = feature.resolve_neg()
    table = feature.permute(0, 2, 3, 1)
    if table.is_contiguous() or not feature.is_contiguous():
        return table.contiguous()
    return _transposed(feature.flatten(2)).view(table.shape)


def channels_first(feature: Tensor) -> Tensor:
    """A tensor [B, C, H, W] in contiguous memory, itself where it lies so. No gradient."""
    table = feature.permute(0, 2, 3, 1)
    if feature.is_contiguous() or not table.is_contiguous():
        return feature.contiguous()
    return _transposed(table.flatten(1, 2)).view(feature.shape)


def _transposed(values: Tensor) -> Tensor:
    """[N, B, A] of contiguous [N, A, B]; several times as fast as PyTorch's copy."""
    batch, rows, columns = values.shape
    out = values.new_empty(batch, columns, rows)
    sizes = (batch, rows, columns, values.element_size())
    call("transpose", values.dtype, out, values, *sizes, torch.get_num_threads())
    return out


def call(kernel: str, dtype: torch.dtype, *arguments: Tensor | Size | int) -> int:
    """Run a function of the library for maps of `dtype`; tensors, all contiguous, are handed over as addresses."""
    library = build(stored_as(dtype))
    assert isinstance(library, ctypes.CDLL), library
    function = getattr(library, kernel)
    function.restype = ctypes.c_int64
    return function(*map(_as_c, arguments))


def _as_c(argument: Tensor | Size | int):
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, Size):
        return ctypes.byref(argument)
    assert argument.is_contiguous() and argument.is_cpu
    return ctypes.c_void_p(argument.data_ptr())
