"""Trackers show a run's curves: Weights & Biases or TensorBoard. A run never fails because of its tracker.

Trackers get what the records hold: settings, curves, metrics, sample masks and the report; and nothing from the
environment, the command line, the checkout or the machine.
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

from ablations.config.schema import Config, LoggerConfig
from ablations.config.study import Run
from ablations.records.schema import Metrics, flatten
from ablations.tracking.sample_masks import SampleImage, paint, renumbered, samples_of
from data import digests

PLAIN = (bool, int, float, str)
"""What TensorBoard takes as a value of a hyperparameter."""

USERS_DATA_FOLDER = os.environ.get("WANDB_DATA_DIR")

SEEN = "seen.txt"
"""In a tracker's folder within a run's: the tracker has the whole run. It names where: W&B's entity and project."""

REPORT_SENT = "report.txt"
"""In W&B's folder within a study's: where the report was sent, and which version of it."""

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    def log(self, step: int, values: dict[str, float]) -> None: ...

    def finish(self, metrics: Metrics) -> None:
        """Sends the metrics in points, and the masks on the study's sample images; the run is done."""


class NullTracker:
    """logger=none."""

    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def finish(self, metrics: Metrics) -> None:
        pass


class TensorBoard:
    """logger=tensorboard: event files in the run's folder; `tensorboard --logdir outputs` shows all runs."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional

        self.folder, self.settings = run.folder, flatten(run.config.settings())
        events = run.folder / "tensorboard"
        shutil.rmtree(events, ignore_errors=True)  # a resumed run logs its earlier steps again
        self.writer = SummaryWriter(events)
        text = yaml.safe_dump(run.config.settings(), sort_keys=False)
        self.writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def finish(self, metrics: Metrics) -> None:
        for kind, values in metrics.items():
            for name, value in values.items():
                if value is not None:
                    self.writer.add_scalar(f"{kind}/{name}", value)
        self._add_hparams(metrics)
        for sample in samples_of(self.folder):
            self.writer.add_image(f"samples/{sample.image_id}", paint(sample), dataformats="HWC")
        self.writer.close()

    def _add_hparams(self, metrics: Metrics) -> None:
        """A row in the tab HParams; SummaryWriter.add_hparams would write it, and the metrics again, elsewhere."""
        from torch.utils.tensorboard.summary import hparams

        plain = {name: value if isinstance(value, PLAIN) else str(value) for name, value in self.settings.items()}
        points = {f"{kind}/{name}": value for kind, table in metrics.items() for name, value in table.items()}
        for summary in hparams(plain, {name: value for name, value in points.items() if value is not None}):
            self.writer._get_file_writer().add_summary(summary)


class WandB:
    """logger=wandb: runs grouped by study and arm; without an account or network they stay offline in their folders."""

    unreachable = False  # set once the service has timed out in this process

    def __init__(self, run: Run) -> None:
        config, self.folder = run.config, run.folder
        self.run = self.start(
            config.logger,
            group=run.study,
            job_type=run.arm,
            name=f"{run.arm}-seed{config.seed}",
            config=config.settings(),
            dir=run.folder,
            id=identity(run.folder),
            resume="allow",
        )

    @classmethod
    def start(cls, destination: LoggerConfig, **about: Any) -> Any:
        """A run at W&B; about: arguments of wandb.init. Raises what that raises, with mode=online also if offline."""
        import wandb  # optional, and takes a second to import

        if not USERS_DATA_FOLDER:  # what is to be uploaded waits here, by default in the user's home
            os.environ["WANDB_DATA_DIR"] = str((about["dir"] / "wandb").absolute())
        settings = wandb.Settings(
            init_timeout=20,
            host="",
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            silent=True,
        )
        # A worker executes one run after another: without `reinit` the second would continue the first.
        about |= {"settings": settings, "reinit": "finish_previous"}
        about |= {"project": destination.project, "entity": destination.entity, "tags": destination.tags}
        if destination.mode != "auto":
            return wandb.init(mode=destination.mode, **about)
        if os.environ.get("WANDB_MODE") or (has_account() and not cls.unreachable):
            try:
                return wandb.init(**about)
            except wandb.errors.CommError as error:
                cls.unreachable = True
                logger.warning("W&B cannot be reached (%s): runs stay offline; `wandb sync` uploads them later", error)
        return wandb.init(mode="offline", **about)

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def finish(self, metrics: Metrics) -> None:
        import wandb

        rows = [[kind, name, value] for kind, values in metrics.items() for name, value in values.items()]
        self.run.summary.update({f"{kind}/{name}": value for kind, name, value in rows})
        self.run.log({"metrics": wandb.Table(columns=["kind", "metric", "points"], data=rows)})
        images = [self._image(wandb, sample) for sample in samples_of(self.folder)]
        if images:
            self.run.log({"samples": images})
        self.run.finish()
        (self.folder / "wandb" / IDENTITY).unlink(missing_ok=True)

    @staticmethod
    def _image(wandb: Any, sample: SampleImage) -> Any:
        sample = renumbered(sample, MOST_CLASSES)
        layers = {"ground truth": sample.truth, "detections": sample.detections}
        masks = {name: {"mask_data": layer, "class_labels": sample.classes} for name, layer in layers.items()}
        return wandb.Image(sample.image, masks=masks, caption=f"image {sample.image_id}")


MOST_CLASSES = 127
"""W&B keeps a mask's classes in signed bytes: higher ones vanish."""

IDENTITY = "id.txt"


def identity(folder: Path) -> str:
    """The run's id at W&B, kept in its folder until it is done, so that a resumed run continues under it."""
    path = folder / "wandb" / IDENTITY
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


class SafeTracker:
    """A wrapper for any tracker: the first time that it raises, it is dropped with a warning.

    done: called once the tracker has the whole run
    """

    def __init__(self, make: Callable[[], Tracker], done: Callable[[], object] = lambda: None) -> None:
        self.tracker: Tracker = NullTracker()
        self.done = done
        self._try(lambda: setattr(self, "tracker", make()))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._try(lambda: self.tracker.log(step, values))

    def finish(self, metrics: Metrics) -> None:
        self._try(lambda: self.tracker.finish(metrics))
        if not isinstance(self.tracker, NullTracker):
            self._try(self.done)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # whatever a service's client may raise: the run matters more
            what = f"{type(error).__name__}: {error}"
            logger.warning("tracking stopped: %s; the run continues, and its curves are in metrics.jsonl", what)
            self.tracker = NullTracker()


TRACKERS: dict[str, Callable[[Run], Tracker]] = {"wandb": WandB, "tensorboard": TensorBoard}


def make_tracker(run: Run) -> Tracker:
    """The tracker that the logger setting of a run asks for."""
    if run.config.logger.kind == "none":
        return NullTracker()
    return SafeTracker(
        lambda: TRACKERS[run.config.logger.kind](run), lambda: _note(run).write_text(_target(run.config.logger))
    )


def seen(run: Run) -> bool:
    """Whether the tracker that the logger setting asks for has the whole run, as far as it is known here."""
    if run.config.logger.kind == "none":
        return True
    try:
        return _note(run).read_text() == _target(run.config.logger)
    except OSError:
        return False


def _note(run: Run) -> Path:
    return run.folder / run.config.logger.kind / SEEN


def _target(config: LoggerConfig) -> str:
    return f"{config.entity or ''}/{config.project}\n" if config.kind == "wandb" else "here\n"


def publish_report(study: str, config: Config, write_report: Callable[[Path, Path], None]) -> None:
    """With logger=wandb, has the report of a study written and uploads it as an artifact of the study's group, once for
    each version of it.

    write_report: takes the study's folder and the one to write to
    """
    if config.logger.kind != "wandb":
        return
    folder = Path(config.outputs) / study
    try:
        write_report(folder, folder / "report")
        sent, version = folder / "wandb" / REPORT_SENT, _target(config.logger) + _version(folder / "report")
        if sent.is_file() and sent.read_text(encoding="utf-8") == version:
            return
        import wandb

        name = f"{study}-report"
        run = WandB.start(config.logger, group=study, job_type="report", name=name, dir=folder)
        artifact = wandb.Artifact(name, type="report")
        artifact.add_dir(str(folder / "report"))
        run.log_artifact(artifact)
        run.finish()
        sent.parent.mkdir(exist_ok=True)
        sent.write_text(version, encoding="utf-8")
    except Exception as error:  # whatever a service's client may raise: the records matter more
        logger.warning("the report was not uploaded to W&B: %s: %s", type(error).__name__, error)


def _version(report: Path) -> str:
    """A digest of all files of a report."""
    names = [path.relative_to(report).as_posix() for path in report.rglob("*")]
    return digests.of_content(digests.of_files(report, names))


def has_account() -> bool:
    """Whether W&B can log in without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
