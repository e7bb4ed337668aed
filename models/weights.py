"""Weights from elsewhere: torchvision's of ImageNet for the backbone, from a file or from where torch keeps them."""

import functools
import hashlib
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from models.config import SHIPPED, ResNetConfig, shipped_backbones
from models.resnet import frozen_state, resnet

# The first set of each, trained by the plain recipe that detectors have always been fine-tuned from.
IMAGENET = {50: ResNet50_Weights.IMAGENET1K_V1, 101: ResNet101_Weights.IMAGENET1K_V1}


def imagenet_state(settings: ResNetConfig) -> dict[str, Tensor]:
    """The pretrained backbone's state, as `load_pretrained` takes it. Raises ValueError where it cannot be had."""
    network = resnet(settings.depth, settings.stride_in_1x1)
    state = fetch(settings.depth) if settings.weights == "imagenet" else read_state(Path(settings.weights))
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"model.weights: expected the state of torchvision's ResNet-{settings.depth}, got another in "
            f"{settings.weights} ({str(error).splitlines()[1].strip()}); give the file of that network, or set "
            "model.depth"
        ) from error
    return frozen_state(network)


def shipped_state(stride: int) -> dict[str, Tensor]:
    """The state of the toy backbone of this stride that comes with the project, kept as float16.

    Raises ValueError where its file is not the one that backbones.json names.
    """
    path = SHIPPED / f"{stride}.safetensors"
    expected = shipped_backbones()["sha256"][str(stride)]
    digest = _file_digest(path, path.stat().st_mtime_ns) if path.exists() else "no file"
    if digest != expected:
        raise ValueError(f"{path}: expected the file with SHA-256 {expected}, got {digest}; run git checkout {path}")
    return {name: value.float() for name, value in load_file(path).items()}


def fetch(depth: int) -> dict[str, Tensor]:
    """From torch's cache, or over the network into it."""
    weights = IMAGENET[depth]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise ValueError(
            f"model.weights=imagenet: expected to fetch {weights.url}, got: {error}; download it elsewhere and give "
            f"model.weights=FILE, or put it into {torch.hub.get_dir()}/checkpoints"
        ) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dictionary from a .safetensors or a .pth file; nothing in it is executed. Raises ValueError."""
    expected = f"{path}: expected a file of weights (.safetensors or .pth)"
    if path.exists() and not path.is_file():
        raise ValueError(f"{expected}, got a folder or a device")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except torch.serialization.pickle.UnpicklingError as error:  # its message advises to run what is in the file
        raise ValueError(f"{expected}, got one that is damaged or holds more than tensors") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{expected}, got: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected names and tensors, as Module.state_dict() gives them, got something else")
    return state


def weights_digest(settings: ResNetConfig) -> str:
    """What the weights are told apart by: the content of a file, or torchvision's name for them."""
    if settings.weights == "imagenet":
        return str(IMAGENET[settings.depth])
    path = Path(settings.weights)
    return _file_digest(path, path.stat().st_mtime_ns)


@functools.lru_cache
def _file_digest(path: Path, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
