"""What this machine has: cores, memory, compilers, GPUs. torch is imported only by the functions that ask it."""

import contextlib
import functools
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path


def hardware() -> dict[str, str | int]:
    """The machine as a run's record describes it."""
    return {"system": platform.system(), "architecture": platform.machine(), "cpu": _cpu_name(), "cores": cores()}


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(wanted: str) -> list[str]:
    """The GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them; none for device=cpu."""
    import torch

    if wanted == "cpu" or not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def native_bfloat16(gpu: bool) -> bool:
    """Whether the hardware multiplies bfloat16 itself; where it has to be emulated, it is slower than float32.

    The hardware is the GPU, if `gpu` allows one and there is one, and otherwise the CPU.
    """
    if gpu:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def missing_compiler(device: str) -> str | None:
    """What torch.compile lacks on this machine, in words; None if nothing is missing.

    On a CPU it writes C++, which needs a compiler; on a GPU it writes Triton.
    """
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return None if importlib.util.find_spec("triton") else "on a GPU it needs the package triton, found none"
    wanted = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(wanted) else f"on a CPU it needs a C++ compiler, found no {wanted} (or set CXX)"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A single thread computes inside: the last bits of sums on a CPU depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def reset_peak_memory() -> None:
    """Makes `peak_memory` count from now on, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The most memory that this process has held since the last reset, in bytes."""
    import resource  # Unix only

    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@functools.cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
