"""The device that a run computes on, and how networks and their weights get there and back."""

import torch
from torch import Tensor, nn

from ablations.errors import ConfigError


def choose_device(wanted: str) -> tuple[torch.device, str]:
    """The device for `wanted` (auto, cpu or cuda) and the reason, in words. Raises ConfigError if there is no GPU."""
    if wanted == "cpu":
        return torch.device("cpu"), "device=cpu was asked for"
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    if wanted == "cuda":
        raise ConfigError("device: expected a CUDA GPU for device=cuda, found none; use device=auto or device=cpu")
    return torch.device("cpu"), "no CUDA GPU was found"


def compile_parts(network: nn.Module, backend: str = "inductor") -> None:
    """Compiles each child module of a network when it is first called (config.compile); names and weights stay.

    The steps between them, matching, sampling and suppression, are left out: their shapes depend on the images.
    """
    for part in network.children():
        part.compile(backend=backend)


def cpu_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state that safetensors can write: in main memory, contiguous."""
    return {name: value.cpu().contiguous() for name, value in state.items()}
