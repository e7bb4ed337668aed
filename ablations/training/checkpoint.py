"""Where an interrupted training goes on from: one safetensors file, written atomically, that runs no code when read.

Its tensors are the network's and the optimiser's; its header holds, as JSON, the step, the losses so far and whom it
belongs to. Nothing else is needed: the learning rate, the batches and all random draws are functions of the step.
torch's own generator, from which nothing here draws, is kept for layers such as dropout that would.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ablations.config.schema import CheckpointConfig
from ablations.errors import TrainingError
from ablations.records.run_log import RunLog
from ablations.records.storage import write_atomically

SHARE = 0.01
"""Checkpoints take at most about this share of the time: where writing one is slow, they are further apart."""


@dataclass
class Progress:
    """How far a training is.

    step:    steps done, and so the number of the next one
    seconds: spent on them, in all attempts
    resumed: the steps from which it went on after an interruption
    logged:  [step, values] of each logged step
    tail:    losses of the steps whose mean is reported
    scaler:  state of float16's loss scale
    """

    step: int = 0
    seconds: float = 0.0
    resumed: list[int] = field(default_factory=list)
    logged: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    tail: list[dict[str, float]] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)


class Checkpoint:
    """The checkpoint of one training in `path`; what does not belong to `owner` or is damaged counts as none.

    owner: names the run or stage with everything that decides its result
    every: how often to write one
    """

    def __init__(self, path: Path, owner: str, every: CheckpointConfig, log: RunLog) -> None:
        self.path, self.owner, self.every, self.log = path, owner, every, log
        self.cost = 0.0
        self.last = time.monotonic()
        self.tensors: dict[str, Tensor] = {}
        self.progress = self._read() or Progress()
        if self.progress.step:
            self.progress.resumed.append(self.progress.step)
            log.resume(self.progress.step)

    def due(self, step: int) -> bool:
        """Whether one should be written now that `step` steps are done."""
        if self.every.steps is not None and step % self.every.steps == 0:
            return True
        return time.monotonic() - self.last >= max(self.every.seconds, self.cost / SHARE)

    def write(self, progress: Progress, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Replaces the last one. A full disk is no reason to lose the run: it goes on, and the last one stays."""
        began = time.monotonic()
        tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors(module, optimizer).items()}
        tensors["generator"] = torch.get_rng_state()
        header = {"owner": self.owner, "progress": json.dumps(asdict(progress))}
        header["digest"] = _digest(tensors, header["progress"])
        try:
            write_atomically(self.path, save(tensors, header))
        except OSError as error:
            self.log.write(f"no checkpoint at step {progress.step}: {error.strerror or error}; training goes on", True)
        self.last = time.monotonic()
        self.cost = self.last - began

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Puts the network and the optimiser where the checkpoint has them; the first step where there is none."""
        if self.progress.step:
            for place, parameter in _parameters(optimizer).items():
                # As the optimiser makes them, laid out like the parameter: fused kernels go through memory in order.
                prefix = f"optimizer.{place}."
                stored = {
                    name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)
                }
                optimizer.state[parameter] = {
                    name: torch.empty_like(parameter) if value.dim() else torch.empty((), device=parameter.device)
                    for name, value in stored.items()
                }
            expected = _tensors(module, optimizer)
            if {name: value.shape for name, value in expected.items()} != {
                name: value.shape for name, value in self.tensors.items() if name != "generator"
            }:
                raise TrainingError(f"{self.path}: the checkpoint does not fit the network; delete it and go on")
            with torch.no_grad():
                for name, value in expected.items():
                    value.copy_(self.tensors[name])
            torch.set_rng_state(self.tensors["generator"])
        self.tensors = {}
        return self.progress

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _read(self) -> Progress | None:
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
            if header["digest"] != _digest(tensors, header["progress"]):
                raise ValueError("its content is not what was written")
            progress = _progress(json.loads(header["progress"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            self.log.write(f"{self.path}: cannot be read ({error}); training starts from the beginning", True)
            return None
        if header.get("owner") != self.owner:
            self.log.write(
                "the checkpoint belongs to other settings, data or code; training starts from the beginning", True
            )
            return None
        self.tensors = tensors
        return progress


def _progress(content: dict[str, Any]) -> Progress:
    progress = Progress(**content)
    progress.logged = [(step, values) for step, values in progress.logged]
    return progress


def _parameters(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's parameters by group and place: the same names whenever it is built alike."""
    groups = enumerate(optimizer.param_groups)
    return {f"{group}.{place}": p for group, content in groups for place, p in enumerate(content["params"])}


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that training changes, by name: the tensors themselves, so that they can be read and written."""
    found = {f"module.{name}": value for name, value in module.state_dict().items()}
    for place, parameter in _parameters(optimizer).items():
        found |= {f"optimizer.{place}.{name}": value for name, value in optimizer.state[parameter].items()}
    return found


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    """Of names, bytes and text: a bit that flipped on the disk must not become a result."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
