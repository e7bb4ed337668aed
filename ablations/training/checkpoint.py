"""Checkpoints, from which an interrupted training resumes: a safetensors file, written atomically. Reading it runs no
code.

Its tensors are the model's and the optimiser's; its header holds, as JSON, the step, the losses so far and which run
or stage it belongs to. Nothing else is needed: learning rate, batches and random numbers are functions of the step.
The state of torch's own generator is kept for layers such as dropout, though nothing here draws from it.
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

CHECKPOINT = "checkpoint.safetensors"

SHARE = 0.01
"""Checkpoints take at most about this share of the time: where writing one is slow, they are less frequent."""


@dataclass
class TrainingState:
    """How far a training has come, apart from its tensors.

    step:    number of steps done, and so the index of the next one
    seconds: time that they took, in all attempts
    resumed: the steps at which it was resumed
    logged:  (step, values) of each logged step
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
    """The checkpoint of one training, in the file `path`. One that is damaged or of another owner is not used.

    owner: identifies the run or stage by everything that decides its result
    every: how often to write it
    """

    def __init__(self, path: Path, owner: str, every: CheckpointConfig, log: RunLog) -> None:
        self.path, self.owner, self.every, self.log = path, owner, every, log
        self.cost = 0.0
        self.last = time.monotonic()
        self.tensors: dict[str, Tensor] = {}
        self.state = self._read() or TrainingState()
        if self.state.step:
            self.state.resumed.append(self.state.step)
            log.resume(self.state.step)

    def due(self, step: int) -> bool:
        """Whether it should be written now that `step` steps are done."""
        if self.every.steps is not None and step % self.every.steps == 0:
            return True
        return time.monotonic() - self.last >= max(self.every.seconds, self.cost / SHARE)

    def write(self, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Replaces the file. If that fails, as on a full disk, training continues and the last checkpoint stays."""
        began = time.monotonic()
        tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors(model, optimizer).items()}
        tensors["generator"] = torch.get_rng_state()
        header = {"owner": self.owner, "progress": json.dumps(asdict(state))}
        header["digest"] = _digest(tensors, header["progress"])
        try:
            write_atomically(self.path, save(tensors, header))
        except OSError as error:
            self.log.write(f"no checkpoint at step {state.step}: {error.strerror or error}; training continues", True)
        self.last = time.monotonic()
        self.cost = self.last - began

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
        """Loads the checkpoint into the model and the optimiser. Without one they stay as they are, at step 0."""
        if self.state.step:
            for key, parameter in _parameters(optimizer).items():
                # In the parameter's memory format, as the optimiser makes them: fused kernels read memory in order.
                prefix = f"optimizer.{key}."
                stored = {
                    name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)
                }
                optimizer.state[parameter] = {
                    name: torch.empty_like(parameter) if value.dim() else torch.empty((), device=parameter.device)
                    for name, value in stored.items()
                }
            expected = _tensors(model, optimizer)
            stored_shapes = {name: value.shape for name, value in self.tensors.items() if name != "generator"}
            if {name: value.shape for name, value in expected.items()} != stored_shapes:
                raise TrainingError(f"{self.path}: the checkpoint does not fit the model; delete it and start again")
            with torch.no_grad():
                for name, value in expected.items():
                    value.copy_(self.tensors[name])
            torch.set_rng_state(self.tensors["generator"])
        self.tensors = {}
        return self.state

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _read(self) -> TrainingState | None:
        if self.path.exists() and not self.path.is_file():  # it could neither be read nor replaced
            what = "a folder" if self.path.is_dir() else "a pipe or a device"
            raise TrainingError(f"{self.path}: expected a file, the checkpoint, got {what}; remove it and start again")
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dictionary
            if header["digest"] != _digest(tensors, header["progress"]):
                raise ValueError("its content is not what was written")
            state = _state(json.loads(header["progress"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.log.write(f"{self.path}: cannot be read ({error}); training starts from the beginning", True)
            return None
        if header.get("owner") != self.owner:
            self.log.write(
                "the checkpoint belongs to other settings, data or code; training starts from the beginning", True
            )
            return None
        self.tensors = tensors
        return state


def _state(content: dict[str, Any]) -> TrainingState:
    state = TrainingState(**content)
    state.logged = [(step, values) for step, values in state.logged]
    return state


def _parameters(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's parameters by their group and their index in it."""
    groups = enumerate(optimizer.param_groups)
    return {f"{number}.{index}": p for number, group in groups for index, p in enumerate(group["params"])}


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that training changes, by name: the tensors themselves, not copies."""
    tensors = {f"module.{name}": value for name, value in model.state_dict().items()}
    for key, parameter in _parameters(optimizer).items():
        tensors |= {f"optimizer.{key}.{name}": value for name, value in optimizer.state[parameter].items()}
    return tensors


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    """A digest of names, bytes and text: a bit that flipped on the disk must not become a result."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
