"""The settings of a run as dataclasses. Hydra composes them, loading.py converts them; no other code sees a DictConfig.

Limits of one field stand beside it and hold for every instance; `rules` has those between fields of a group, and
validation.py those between groups.
"""

import dataclasses
import hashlib
import json
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field
from pydantic.dataclasses import dataclass

from data.specs import CocoSpec, CollageSpec, ShapesSpec
from models.config import (
    FORBID,
    Constraints,
    Count,
    DetectorConfig,
    FCISConfig,
    MaskClassConfig,
    MaskHeadConfig,
    MaskLossConfig,
    MaskRCNNConfig,
    ResNetConfig,
    RoIConfig,
    ToyConfig,
)

SCHEDULES = ("backbone", "rpn", "train")
"""The schedules of a budget."""


@dataclass(frozen=True, config=FORBID)
class ScheduleConfig:
    """One training: an optimiser under a learning rate that rises to `lr` and falls again.

    pretrained_lr: the pretrained backbone's rate as a share of it.
    optimizer: adamw, or sgd with a momentum of 0.9.
    warmup: share of the steps in which the rate rises; decay: afterwards it falls to nothing along a cosine, or to a
    tenth at each of `milestones`, shares of the steps.
    scaled_from: the number of images per step that `lr` and `steps` are given for. With another one the rate grows and
    the steps shrink in proportion (the linear scaling rule); null: they are taken as they are.
    micro_batches: in how many a step's images go through the network, one after another, to save memory.
    """

    steps: Count
    images_per_step: Count = 16
    lr: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    pretrained_lr: Annotated[float, Field(ge=0)] = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    decay: Literal["cosine", "steps"] = "cosine"
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = field(default_factory=list)
    scaled_from: Count | None = None
    micro_batches: Count = 1

    def rules(self) -> Constraints:
        """Rows of a field's name, whether it fits the other fields, and what would."""
        marks, images = self.milestones, self.images_per_step
        divides = images % self.micro_batches == 0
        return [
            ("milestones", marks == sorted(marks), "shares of the steps in ascending order"),
            ("milestones", self.decay != "cosine" or not marks, "none, []: decay=cosine has none"),
            ("milestones", self.decay != "steps" or bool(marks), "at least one, such as [0.75], for decay=steps"),
            ("micro_batches", divides, f"a number that divides images_per_step = {images}"),
        ]

    def scaled(self) -> "ScheduleConfig":
        """The same schedule by the linear scaling rule for its `images_per_step`."""
        if self.scaled_from is None:
            return self
        factor = self.images_per_step / self.scaled_from
        steps = max(round(self.steps / factor), 1)
        return dataclasses.replace(self, lr=self.lr * factor, steps=steps, scaled_from=self.images_per_step)


@dataclass(frozen=True, config=FORBID)
class BudgetConfig:
    """How much is computed.

    seeds: number of seeds in a study, the first of which is `first_seed`; train_images, val_images: upper limits for
    training and evaluation (null: all); backbone, rpn, train: the schedule of each training.
    """

    name: str
    seeds: Count
    train_images: Count | None
    val_images: Count | None
    backbone: ScheduleConfig
    rpn: ScheduleConfig
    train: ScheduleConfig
    log_every: Count = 10
    first_seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=FORBID)
class StagesConfig:
    """What the stages that runs share, the backbone's pretraining and the proposal network, start from.

    seed: one for all runs; null: each seed of a study has stages of its own, with that seed, so that the intervals over
    seeds hold for other stages too.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = 0


@dataclass(frozen=True, config=FORBID)
class JitterConfig:
    """Proposals made of true boxes (stages/jitter.py), for rpn=jitter.

    share: of the box's width or height, that each side is moved by at most. copies: proposals for each object.
    """

    share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    copies: Annotated[int, Field(ge=1, le=100)] = 8


@dataclass(frozen=True, config=FORBID)
class LoggerConfig:
    """Where curves go besides metrics.jsonl.

    project, entity, tags: of Weights & Biases; entity null: the account's own.
    mode: online, offline (in the run's folder, until `wandb sync`); auto: online with an account and a network.
    """

    kind: Literal["none", "wandb", "tensorboard"] = "none"
    project: str = "mask-rcnn-ablations"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    mode: Literal["auto", "online", "offline"] = "auto"


@dataclass(frozen=True, config=FORBID)
class CheckpointConfig:
    """How often a training writes a checkpoint to resume from: every this many seconds (more where writing takes
    long), and every this many steps; null: by time only."""

    seconds: Annotated[float, Field(gt=0)] = 30.0
    steps: Count | None = None


@dataclass(frozen=True, config=FORBID)
class LauncherConfig:
    """What starts the runs, and where.

    address: of a Ray cluster; null: the one that RAY_ADDRESS names or this machine belongs to, else a new one.
    cluster: for submitit: slurm, or local for processes on this machine, to try it out.
    options: for submitit: what each job requests, such as {timeout_min: 240, slurm_partition: gpu}.
    """

    kind: Literal["local", "ray", "submitit"] = "local"
    address: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    options: dict[str, str | int | float | bool | None] = field(default_factory=dict)


EXECUTION_SETTINGS = (
    "outputs", "cache_features", "snapshots", "device", "workers", "threads", "compile", "force", "code", "checkpoint",
    "logger", "launcher",
)  # fmt: skip
"""Settings of how a run is executed: of its result, they decide at most how sums are rounded."""


@dataclass(frozen=True, config=FORBID)
class Config:
    """One run. The first block decides the result and is what runs are told apart by; the second does not."""

    data: Annotated[ShapesSpec | CocoSpec | CollageSpec, Discriminator("kind")]
    system: Annotated[MaskRCNNConfig | FCISConfig, Discriminator("kind")]
    model: Annotated[ToyConfig | ResNetConfig, Discriminator("name")]
    roi: RoIConfig
    mask_loss: MaskLossConfig
    mask_class: MaskClassConfig
    mask_head: MaskHeadConfig
    budget: BudgetConfig
    task: Literal["detection", "proposals"] = "detection"
    split: Literal["val", "test"] = "val"
    stride: int = 16
    rpn: Literal["separate", "joint", "jitter"] = "separate"
    jitter: JitterConfig = field(default_factory=JitterConfig)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    stages: StagesConfig = field(default_factory=StagesConfig)

    outputs: Annotated[str, Field(min_length=1)] = "outputs"
    cache_features: bool = True
    snapshots: bool | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Count | None = None
    threads: Count | None = None
    compile: bool = False
    force: bool = False
    code: Literal["redo", "keep"] = "redo"
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)

    @property
    def detector(self) -> DetectorConfig:
        """What the network is built from."""
        return DetectorConfig(
            self.model,
            self.system,
            self.roi,
            self.mask_loss,
            self.mask_class,
            self.mask_head,
            self.stride,
            joint_rpn=self.rpn == "joint",
        )

    def settings(self) -> dict[str, Any]:
        """What decides the result, as plain data."""
        settings = dataclasses.asdict(self)
        for name in EXECUTION_SETTINGS:
            del settings[name]
        if self.rpn != "jitter":
            del settings["jitter"]
        for name in ("seeds", "first_seed"):  # of the study, not of the run: more seeds leave finished runs as they are
            del settings["budget"][name]
        return settings

    def hash(self) -> str:
        return digest(self.settings())


def digest(content: Any) -> str:
    """A short name for plain data: the same data, the same name, on every machine."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
