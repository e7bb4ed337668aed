"""Where a run's curves go besides metrics.jsonl. A run never fails because of it."""

import logging
import netrc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ablations.config import Config

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    def log(self, step: int, values: dict[str, float]) -> None: ...

    def finish(self, metrics: dict[str, dict[str, float | None]]) -> None: ...


class Nothing:
    """logger=none."""

    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def finish(self, metrics: dict[str, dict[str, float | None]]) -> None:
        pass


class WandB:
    """logger=wandb: a run grouped by its study and arm; kept offline in its folder where there is no account."""

    def __init__(self, study: str, arm: str, config: Config, folder: Path) -> None:
        import wandb  # takes a second to import, and most runs do without

        self.run = wandb.init(
            project=config.logger.project,
            group=study,
            job_type=arm,
            name=f"{arm}-seed{config.seed}",
            config=config.settings(),
            dir=folder,
            mode=None if os.environ.get("WANDB_MODE") else "online" if has_account() else "offline",
            # A worker takes one run after another: without this the second would be the first one again.
            reinit="finish_previous",
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def finish(self, metrics: dict[str, dict[str, float | None]]) -> None:
        for kind, figures in metrics.items():
            self.run.summary.update({f"{kind}/{name}": value for name, value in figures.items()})
        self.run.finish()


class Safe:
    """Any tracker; the first time that it raises, it is given up with a warning."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self.tracker: Tracker = Nothing()
        self._try(lambda: setattr(self, "tracker", make()))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._try(lambda: self.tracker.log(step, values))

    def finish(self, metrics: dict[str, dict[str, float | None]]) -> None:
        self._try(lambda: self.tracker.finish(metrics))

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # whatever a service's client may raise: the run matters more
            what = f"{type(error).__name__}: {error}"
            logger.warning("tracking stopped: %s; the run goes on, its curves are in metrics.jsonl", what)
            self.tracker = Nothing()


def start(study: str, arm: str, config: Config, folder: Path) -> Tracker:
    if config.logger.kind == "none":
        return Nothing()
    return Safe(lambda: WandB(study, arm, config, folder))


def has_account() -> bool:
    """Whether W&B can log in without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
