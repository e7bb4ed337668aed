"""`python -m ops`: which backend serves which operator on this machine, and why the faster ones do not."""

import importlib.metadata

import torch

from .backends import ORDER, Need, choose, refusal
from .command import run_command
from .cpu import compiled


def main() -> None:
    """Print a row per device, dtype and operator: the backend that "auto" takes, and who declined."""
    print(f"torch {torch.__version__}, torchvision {_version('torchvision')}, triton {_version('triton')}")
    print(f"CPU: {compiled.description()}")
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
    print(f"{'device':8} {'dtype':10} {'operator':15} {'backend':12} declined")
    for device in devices:
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            for label, need in _needs(device, dtype):
                chosen = choose(need, "auto")
                reasons = [f"{name}: {refusal(name, need)}" for name in ORDER[: ORDER.index(chosen)]]
                dtype_name = str(dtype).removeprefix("torch.")
                print(f"{device!s:8} {dtype_name:10} {label:15} {chosen:12} {'; '.join(reasons) or '-'}")


def _needs(device: torch.device, dtype: torch.dtype) -> list[tuple[str, Need]]:
    return [
        ("roi_align", Need("roi_align", device, dtype)),
        ("roi_align max", Need("roi_align", device, dtype, reduce="max")),
        ("roi_align boxes", Need("roi_align", device, dtype, box_gradient=True)),
        ("roi_warp", Need("roi_warp", device, dtype)),
        ("roi_pool", Need("roi_pool", device, dtype, reduce="max")),
        ("ps_roi_pool", Need("ps_roi_pool", device, dtype)),
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    run_command(main)
