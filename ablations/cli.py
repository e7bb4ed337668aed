"""What `python run.py` was asked to do, checked before any work begins. Imports no torch: mistakes are told at once."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from ablations.config.schema import Config
from ablations.config.study import Compose, Run, Study, compose_study, single_run
from ablations.errors import ConfigError


@dataclass(frozen=True)
class Request:
    """What a command line asks for, or one of the many that a sweep stands for. study is None for a single run."""

    runs: list[Run]
    study: Study | None = None


def prepare(composed: DictConfig, overrides: list[str], compose: Compose) -> Request:
    """The request of a command line. Raises ConfigError if anything in it cannot work."""
    if composed.study is None:
        request = Request([single_run(composed, overrides)])
    else:
        study, runs = compose_study(composed, overrides, compose)
        request = Request(runs, study)
    check_outputs(request.runs[0].config)
    return request


def check_outputs(config: Config) -> None:
    """Raises ConfigError if nothing can be written to the folder for outputs."""
    folder = Path(config.outputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"outputs: expected a writable folder, got {folder} ({error.strerror})") from error


def refuse(error: Exception) -> int:
    """Prints what is wrong with a request; returns the exit code for it."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def execute(requests: list[Request]) -> int:
    """Executes single runs in parallel, then one study after another; returns the exit code.

    It is 0 if everything is done, 1 if something failed, 2 if a request cannot work, and 130 after a stop on request.
    """
    from ablations.execution.command import execute_requests  # takes seconds to import, so only now

    return execute_requests(requests)
