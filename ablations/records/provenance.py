"""Where a record comes from: code, versions, machine, time."""

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ablations.records.code_version import code_version

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "hydra-core")
ROOT = Path(__file__).parents[2]


def provenance(started: datetime) -> dict[str, Any]:
    return {
        "git": git_state(),
        "code": code_version(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": machine(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state() -> dict[str, Any]:
    """The commit, and whether the working tree differs from it; None outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def machine() -> dict[str, Any]:
    return {"system": platform.system(), "architecture": platform.machine(), "cpu": _cpu(), "cores": cores()}


def native_bfloat16(gpu: bool) -> bool:
    """Whether the GPU, if it may be used, or else the CPU multiplies bfloat16 in hardware: it is slower without."""
    if gpu and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def missing_compiler(device: str) -> str | None:
    """What torch.compile would miss here, in words: on a CPU it writes C++, on a GPU Triton; None if all is there."""
    if device != "cpu" and torch.cuda.is_available():
        return None if importlib.util.find_spec("triton") else "on a GPU it needs the package triton, found none"
    wanted = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(wanted) else f"on a CPU it needs a C++ compiler, found no {wanted} (or set CXX)"


def reset_peak_memory() -> None:
    """Lets `peak_memory` start anew, where the system can do that (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The most memory that this process has held since the last reset, in bytes."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
