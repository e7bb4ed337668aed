"""Snapshots: the weights of a run on the way, so that what it reached there can be measured once it is done."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save
from torch import nn

from ablations.config.schema import Config
from ablations.records.storage import write_atomically
from ablations.training.device import cpu_state_dict

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""The shares of the training's steps after which the weights are kept."""


def keeps_snapshots(config: Config) -> bool:
    """Whether a run does: those with the first seed of a study do, which shows how all of them learn."""
    return config.task == "detection" and config.seed == config.budget.first_seed


def snapshot_keeper(model: nn.Module, folder: Path, steps: int) -> Callable[[int], None]:
    """What to call with the number of steps done: it keeps the model's weights at SHARES of `steps`."""
    marks = {round(share * steps) for share in SHARES} - {0, steps}

    def keep(step: int) -> None:
        if step in marks:
            write_atomically(folder / f"snapshot-{step}.safetensors", save(cpu_state_dict(model.state_dict())))

    return keep


def snapshots(folder: Path) -> dict[int, Path]:
    """The files of a run's snapshots by the number of steps done."""
    files = {int(path.stem.removeprefix("snapshot-")): path for path in folder.glob("snapshot-*.safetensors")}
    return dict(sorted(files.items()))
