"""Snapshots: a run's weights at fixed shares of its training, so that what it reached by then can be measured later."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import nn

from ablations.records.run_log import RunLog
from ablations.records.schema import SNAPSHOTS
from ablations.records.storage import write_atomically
from ablations.training.device import cpu_state_dict

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""The shares of the training's steps after which the weights are kept."""

NAME = re.compile(r"snapshot-(\d+)\.safetensors")
"""A snapshot's file, by the number of steps done."""


def snapshot_names(steps: int) -> dict[int, str]:
    """The files of a training of so many steps, by the number of steps done."""
    marks = sorted({round(share * steps) for share in SHARES} - {0, steps})
    return {mark: f"snapshot-{mark}.safetensors" for mark in marks}


def snapshots_in(files: Mapping[str, str]) -> dict[int, str]:
    """The snapshots among the files of a run's record, by the number of steps done."""
    matches = [match for name in files if (match := NAME.fullmatch(name))]
    return {int(match[1]): match[0] for match in sorted(matches, key=lambda match: int(match[1]))}


def remove_snapshots(folder: Path) -> None:
    """Removes those of an earlier training."""
    for path in folder.glob(SNAPSHOTS):
        path.unlink()


def snapshot_writer(model: nn.Module, folder: Path, steps: int, log: RunLog) -> Callable[[int], None]:
    """A function to be called after each step, with the number of steps done, that saves the weights at SHARES.

    If that fails, as on a full disk, training continues without the snapshot.
    """
    names = snapshot_names(steps)

    def write(step: int) -> None:
        if step in names:
            try:
                write_atomically(folder / names[step], save(cpu_state_dict(model.state_dict())))
            except OSError as error:
                log.write(f"no snapshot at step {step}: {error.strerror or error}; training continues", True)

    return write
