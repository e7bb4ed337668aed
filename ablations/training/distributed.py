"""Several processes that train one run together, started by torchrun: each takes its share of a step's micro batches.

    torchrun --nproc-per-node 8 run.py model=r50_fpn data=coco budget=paper budget.train.micro_batches=8 ...

Rank 0 does everything that a single process does: files, logs, checkpoints, the optimiser. It sends commands to the
other ranks (worker_loop in execution/distributed_worker.py), which know the configuration, compute the gradients and
detections that a command asks for, and keep nothing. A run's micro batches are part of its settings, so its result
depends on the number of processes only through the order in which gradients are added up.

torch's DistributedDataParallel would give every rank an optimiser, a scaler and a checkpoint to keep in step. Here the
weights exist once, and a single process and several run the same training loop.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ablations.config.schema import Config
from ablations.errors import ConfigError, Desynchronised, Stopped, TrainingError

END = -1
"""Broadcast in place of a step's number: this training is over."""


@dataclass(frozen=True)
class Command:
    """What rank 0 asks of the other ranks.

    kind: "train_run" or "train_proposals": gradients while a run or the shared proposal network is trained; "detect"
    or "propose": the network's detections or proposals on the images of a split.
    """

    kind: Literal["train_run", "train_proposals", "detect", "propose"]
    config: Config
    split: str = "val"


def world_size() -> int:
    """The number of processes that work together; 1 where torchrun did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def check_config(config: Config) -> None:
    """Raises ConfigError if the processes cannot share this work."""
    for name in ("train", "rpn"):
        count = getattr(config.budget, name).micro_batches
        if count % world_size():
            raise ConfigError(
                f"budget.{name}.micro_batches: expected a multiple of torchrun's {world_size()} processes, got {count}"
            )
    if config.launcher.kind != "local":
        raise ConfigError(f"launcher: torchrun starts the processes itself; leave {config.launcher.kind} out")


def init_process_group(device: torch.device) -> None:
    """Connects to the other processes; each takes the GPU of its own local rank."""
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        # The other ranks wait while rank 0 does what only it does; if it dies, torchrun ends them.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=30))


def destroy_process_group() -> None:
    """Ends the other ranks' worker loops, and the group."""
    if dist.is_initialized():
        if rank() == 0:
            _broadcast_command(None)
        dist.destroy_process_group()


class SharedTraining:
    """A context of rank 0 around one training that all ranks share; the others leave it at its end."""

    def __init__(self, kind: Literal["train_run", "train_proposals"], config: Config) -> None:
        self.command = Command(kind, config)
        self.device: torch.device | None = None  # set once the other ranks have the command

    def __enter__(self) -> "SharedTraining":
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, *__: object) -> None:
        if self.device is None:
            return
        if error is not None and not isinstance(error, Stopped | TrainingError):
            raise Desynchronised from error
        dist.broadcast(torch.tensor(END, device=self.device), 0)

    def start_step(self, step: int, module: nn.Module, scale: Tensor) -> None:
        """Broadcasts the number of the next step, the weights that it starts from and the scale of its loss."""
        if world_size() == 1:
            return
        if self.device is None:
            _broadcast_command(self.command)
            self.device = next(module.parameters()).device
        dist.broadcast(torch.full((), step, device=self.device), 0)
        broadcast_tensors([*trained_tensors(module), scale])


@contextmanager
def collective() -> Iterator[None]:
    """A context of rank 0 around what all ranks do at the same time, other than a training."""
    try:
        yield
    except Exception as error:
        if world_size() > 1:
            raise Desynchronised from error
        raise


def desynchronised(error: BaseException | None) -> bool:
    """Whether an error left the other ranks waiting for a broadcast that never comes.

    It need not be Desynchronised itself: on a full disk, closing a file on the way out raises another error in its
    place.
    """
    while error is not None and not isinstance(error, Desynchronised):
        error = error.__context__
    return error is not None


def abort_all_ranks() -> NoReturn:
    """Ends this process; torchrun then ends the others, which wait for a broadcast that never comes."""
    try:
        sys.stdout.flush()
    finally:
        os._exit(1)


def reduce_gradients(module: nn.Module, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds up all ranks' gradients in rank 0's parameters; returns there the sum of their shares of the losses."""
    if world_size() == 1:
        return losses
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _flat([p.grad for p in parameters if p.grad is not None], lambda values: dist.reduce(values, 0))
    values = torch.stack(list(losses.values()))
    dist.reduce(values, 0)
    return dict(zip(losses, values, strict=True))


def trained_tensors(module: nn.Module) -> list[Tensor]:
    """What training changes: parameters that are trained, and buffers of floating point."""
    parameters = [p.data for p in module.parameters() if p.requires_grad]
    return parameters + [buffer for buffer in module.buffers() if buffer.is_floating_point()]


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Gives every rank the values of rank 0."""
    if world_size() > 1:
        _flat(list(tensors), lambda values: dist.broadcast(values, 0))


def send_command(command: Command, module: nn.Module) -> None:
    """Rank 0 asks the other ranks for what its module finds: "detect" or "propose"."""
    if world_size() > 1:
        _broadcast_command(command)
        broadcast_tensors(trained_tensors(module))


def gather(items: list[Any]) -> list[Any]:
    """Merges all ranks' lists in turn, as their items were dealt out: rank 0 gets all, in order; the others nothing."""
    if world_size() == 1:
        return items
    lists: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(items, lists, 0)
    if lists is None:
        return []
    longest = max(map(len, lists))
    return [shares[index] for index in range(longest) for shares in lists if index < len(shares)]


def commands() -> Iterable[Command]:
    """On a rank other than 0: the commands from rank 0, until it ends the group."""
    while (command := _broadcast_command(None)) is not None:
        yield command


def training_steps(module: nn.Module) -> Iterable[tuple[int, Tensor]]:
    """On a rank other than 0: the steps of a shared training, and the scale of each one's loss. `module` gets rank
    0's weights at each step."""
    device = next(module.parameters()).device
    step, scale = torch.tensor(END, device=device), torch.ones((), device=device)
    while True:
        dist.broadcast(step, 0)
        if int(step) == END:
            return
        broadcast_tensors([*trained_tensors(module), scale])
        yield int(step), scale


def _broadcast_command(command: Command | None) -> Command | None:
    """Returns the command of rank 0 on every rank."""
    box = [command]
    dist.broadcast_object_list(box, 0)
    return box[0]


def _flat(tensors: list[Tensor], operation: Callable[[Tensor], Any]) -> None:
    """Calls operation with all values as one tensor, which is sent far faster than many, and puts them back."""
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    operation(flat)
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))
