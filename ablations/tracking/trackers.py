"""Where a run's curves go besides metrics.jsonl: Weights & Biases or TensorBoard. A run never fails because of it.

What goes there is what the records hold: settings, curves, figures, sample masks, the report. Nothing of the
environment, the command line, the checkout or the machine does.
"""

import logging
import netrc
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import yaml

from ablations.config.schema import Config
from ablations.export import write_report
from ablations.tracking.sample_masks import Sample, painted, samples_of

Metrics = dict[str, dict[str, float | None]]

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    def log(self, step: int, values: dict[str, float]) -> None: ...

    def finish(self, metrics: Metrics) -> None:
        """The run is done: its figures in points, and the masks that it draws on the study's samples."""


class Nothing:
    """logger=none."""

    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def finish(self, metrics: Metrics) -> None:
        pass


class TensorBoard:
    """logger=tensorboard: event files in the run's folder. `tensorboard --logdir outputs` shows all runs."""

    def __init__(self, study: str, arm: str, config: Config, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional

        self.folder = folder
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)  # a resumed run logs its earlier steps again
        self.writer = SummaryWriter(folder / "tensorboard")
        text = yaml.safe_dump(config.settings(), sort_keys=False)
        self.writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def finish(self, metrics: Metrics) -> None:
        for kind, figures in metrics.items():
            for name, value in figures.items():
                if value is not None:
                    self.writer.add_scalar(f"{kind}/{name}", value)
        for sample in samples_of(self.folder):
            self.writer.add_image(f"samples/{sample.image_id}", painted(sample), dataformats="HWC")
        self.writer.close()


class WandB:
    """logger=wandb: a run grouped by its study and arm; kept offline in its folder without an account or a network."""

    unreachable = False  # once this process has waited for the service in vain

    def __init__(self, study: str, arm: str, config: Config, folder: Path) -> None:
        self.folder = folder
        self.run = self.start(
            project=config.logger.project,
            group=study,
            job_type=arm,
            name=f"{arm}-seed{config.seed}",
            config=config.settings(),
            dir=folder,
            id=identity(folder),
            resume="allow",
        )

    @classmethod
    def start(cls, **about: Any) -> Any:
        import wandb  # takes a second to import, and most runs do without

        settings = wandb.Settings(
            init_timeout=20,
            host="",
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            silent=True,
        )
        # A worker takes one run after another: without `reinit` the second would be the first one again.
        about |= {"settings": settings, "reinit": "finish_previous"}
        if os.environ.get("WANDB_MODE") or (has_account() and not cls.unreachable):
            try:
                return wandb.init(**about)
            except wandb.errors.CommError as error:
                cls.unreachable = True
                logger.warning("W&B cannot be reached (%s): runs stay offline; `wandb sync` sends them later", error)
        return wandb.init(mode="offline", **about)

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def finish(self, metrics: Metrics) -> None:
        import wandb

        rows = [[kind, name, value] for kind, figures in metrics.items() for name, value in figures.items()]
        self.run.summary.update({f"{kind}/{name}": value for kind, name, value in rows})
        self.run.log({"figures": wandb.Table(columns=["kind", "measure", "points"], data=rows)})
        images = [self._image(wandb, sample) for sample in samples_of(self.folder)]
        if images:
            self.run.log({"samples": images})
        self.run.finish()
        (self.folder / IDENTITY).unlink(missing_ok=True)

    @staticmethod
    def _image(wandb: Any, sample: Sample) -> Any:
        layers = {"ground truth": sample.truth, "detections": sample.detections}
        masks = {name: {"mask_data": layer, "class_labels": sample.classes} for name, layer in layers.items()}
        return wandb.Image(sample.image, masks=masks, caption=f"image {sample.image_id}")


IDENTITY = "wandb-id.txt"


def identity(folder: Path) -> str:
    """The run's name at W&B: kept in its folder until it is done, so that a resumed run goes on with its own."""
    path = folder / IDENTITY
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


class Safe:
    """Any tracker; the first time that it raises, it is given up with a warning."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self.tracker: Tracker = Nothing()
        self._try(lambda: setattr(self, "tracker", make()))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._try(lambda: self.tracker.log(step, values))

    def finish(self, metrics: Metrics) -> None:
        self._try(lambda: self.tracker.finish(metrics))

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # whatever a service's client may raise: the run matters more
            what = f"{type(error).__name__}: {error}"
            logger.warning("tracking stopped: %s; the run goes on, its curves are in metrics.jsonl", what)
            self.tracker = Nothing()


TRACKERS: dict[str, Callable[[str, str, Config, Path], Tracker]] = {"wandb": WandB, "tensorboard": TensorBoard}


def start(study: str, arm: str, config: Config, folder: Path) -> Tracker:
    if config.logger.kind == "none":
        return Nothing()
    return Safe(lambda: TRACKERS[config.logger.kind](study, arm, config, folder))


def publish_report(study: str, config: Config) -> None:
    """logger=wandb: writes the report of a study and hands it over as an artefact of the study's group."""
    if config.logger.kind != "wandb":
        return
    folder = Path(config.outputs) / study
    try:
        write_report(folder, folder / "report")
        import wandb

        name = f"{study}-report"
        run = WandB.start(project=config.logger.project, group=study, job_type="report", name=name, dir=folder)
        artefact = wandb.Artifact(name, type="report")
        artefact.add_dir(str(folder / "report"))
        run.log_artifact(artefact)
        run.finish()
    except Exception as error:  # whatever a service's client may raise: the records matter more
        logger.warning("the report did not go to W&B: %s: %s", type(error).__name__, error)


def has_account() -> bool:
    """Whether W&B can log in without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
