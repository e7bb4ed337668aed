"""Several processes that train one run together, started by torchrun: each takes its share of a step's micro batches.

    torchrun --nproc-per-node 8 run.py model=r50_fpn data=coco budget=paper budget.train.micro_batches=8 ...

Rank 0 is the leader. It does all that a single process does: files, logs, checkpoints, the optimiser. The others
follow: they know the configuration, compute gradients and detections of what the leader names, and keep nothing. A
run's micro batches are part of its settings, so its result does not depend on how many processes share them, but for
the order in which gradients are added up.
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
"""In the place of a step: this training is over."""

_lost_step = False


@dataclass(frozen=True)
class Order:
    """What the leader asks of its followers: gradients of a run's or of the proposal network's training ("run",
    "proposals"), or what a network finds on the images of a split ("detections", "boxes": proposals)."""

    what: Literal["run", "proposals", "detections", "boxes"]
    config: Config
    split: str = "val"


def size() -> int:
    """Processes that work together; 1 where torchrun did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def check(config: Config) -> None:
    """Raises ConfigError where the processes could not share the work."""
    for stage in ("train", "rpn"):
        parts = getattr(config.budget, stage).micro_batches
        if parts % size():
            raise ConfigError(
                f"budget.{stage}.micro_batches: expected a multiple of torchrun's {size()} processes, got {parts}"
            )
    if config.launcher.kind != "local":
        raise ConfigError(f"launcher: torchrun starts the processes itself; leave {config.launcher.kind} out")


def join(device: torch.device) -> None:
    """Meets the other processes; each takes the GPU of its own number."""
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        # Followers wait as long as the leader is at what only it does; torchrun ends them if it dies.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=30))


def leave() -> None:
    """Sends the followers home."""
    if dist.is_initialized():
        if rank() == 0:
            _tell(None)
        dist.destroy_process_group()


class Crew:
    """Around one training of the leader's: calls the followers for it, and lets them go at its end."""

    def __init__(self, what: Literal["run", "proposals"], config: Config) -> None:
        self.order = Order(what, config)
        self.device: torch.device | None = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, *__: object) -> None:
        if self.device is None:
            return
        if error is not None and not isinstance(error, Stopped | TrainingError):
            raise lost_step() from error
        dist.broadcast(torch.tensor(END, device=self.device), 0)

    def begin(self, step: int, module: nn.Module, scale: Tensor) -> None:
        """Names the next step and hands out the weights that it starts from, and the scale of its loss."""
        if size() == 1:
            return
        if self.device is None:
            _tell(self.order)
            self.device = next(module.parameters()).device
        dist.broadcast(torch.full((), step, device=self.device), 0)
        spread([*trained_tensors(module), scale])


def lost_step() -> Desynchronised:
    """The error to raise where the leader leaves what it does with its followers. It is also remembered: on a full
    disk, closing a file on the way out raises another error in its place."""
    global _lost_step
    _lost_step = True
    return Desynchronised()


def out_of_step() -> bool:
    """Whether the followers wait for what never comes, whatever error has arrived."""
    return _lost_step


def give_up() -> NoReturn:
    """Ends this process, and by that torchrun the others, which wait for what never comes (Desynchronised)."""
    try:
        sys.stdout.flush()
    finally:
        os._exit(1)


@contextmanager
def together() -> Iterator[None]:
    """Around what the leader does at the same time as its followers, other than a training."""
    try:
        yield
    except Exception as error:
        if size() > 1:
            raise lost_step() from error
        raise


def collect(module: nn.Module, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds up all processes' gradients, in the leader's parameters, and their shares of the losses."""
    if size() == 1:
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


def spread(tensors: Iterable[Tensor]) -> None:
    """Gives everyone the leader's values."""
    if size() > 1:
        _flat(list(tensors), lambda values: dist.broadcast(values, 0))


def ask(order: Order, module: nn.Module) -> None:
    """The leader's call for what its module finds."""
    if size() > 1:
        _tell(order)
        spread(trained_tensors(module))


def gather(mine: list[Any]) -> list[Any]:
    """All processes' lists, dealt out in turn as the items were: the leader gets all, in order; others nothing."""
    if size() == 1:
        return mine
    lists: list[Any] | None = [None] * size() if rank() == 0 else None
    dist.gather_object(mine, lists, 0)
    if lists is None:
        return []
    longest = max(map(len, lists))
    return [items[place] for place in range(longest) for items in lists if place < len(items)]


def orders() -> Iterable[Order]:
    """A follower's orders, until it is sent home."""
    while (order := _tell(None)) is not None:
        yield order


def steps(module: nn.Module) -> Iterable[tuple[int, Tensor]]:
    """The steps of a training that a follower takes part in, with the module as the leader has it, and the scale of
    its loss."""
    device = next(module.parameters()).device
    number, scale = torch.tensor(END, device=device), torch.ones((), device=device)
    while True:
        dist.broadcast(number, 0)
        if int(number) == END:
            return
        spread([*trained_tensors(module), scale])
        yield int(number), scale


def _tell(order: Order | None) -> Order | None:
    """The leader's order, everywhere."""
    box = [order]
    dist.broadcast_object_list(box, 0)
    return box[0]


def _flat(tensors: list[Tensor], apply: Callable[[Tensor], Any]) -> None:
    """Calls apply with all values in one piece, which is sent far faster than many, and puts them back."""
    values = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    apply(values)
    for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))
