"""The configuration as dataclasses: Hydra composes, `from_hydra` converts, and nothing behind it sees a DictConfig."""

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Discriminator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ablations.errors import ConfigError
from ablations.machine import missing_compiler, native_bfloat16
from data.specs import SPECS
from models.config import (
    FCISConfig,
    MaskClassConfig,
    MaskHeadConfig,
    MaskLossConfig,
    MaskRCNNConfig,
    ResNetConfig,
    RoIConfig,
    ToyConfig,
)


@dataclass(frozen=True)
class ScheduleConfig:
    """One training stage: an optimiser under a learning rate that rises to `lr` and falls again.

    pretrained_lr: the pretrained trunk's rate as a share of it.
    optimizer: adamw, or sgd with a momentum of 0.9.
    warmup: share of the steps in which the rate rises; decay: afterwards it falls to nothing along a cosine, or to a
    tenth at each of `milestones`, shares of the steps.
    scaled_from: the number of images a step that `lr` and `steps` are given for. With another one the rate grows and
    the steps shrink in proportion (the linear scaling rule); null: they are taken as they are.
    micro_batches: parts in which a step's images go through the network one after another, to save memory.
    """

    steps: int
    images_per_step: int = 16
    lr: float = 2e-3
    weight_decay: float = 1e-4
    pretrained_lr: float = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    warmup: float = 0.1
    decay: Literal["cosine", "steps"] = "cosine"
    milestones: list[float] = field(default_factory=list)
    scaled_from: int | None = None
    micro_batches: int = 1

    def scaled(self) -> "ScheduleConfig":
        """The same by the linear scaling rule for the images a step at hand."""
        if self.scaled_from is None or self.scaled_from < 1:
            return self
        factor = self.images_per_step / self.scaled_from
        steps = max(round(self.steps / factor), 1)
        return dataclasses.replace(self, lr=self.lr * factor, steps=steps, scaled_from=self.images_per_step)


@dataclass(frozen=True)
class BudgetConfig:
    """How much is spent: seeds of a study, images at most (null: all that there are), and the length of each stage."""

    name: str
    seeds: int
    train_images: int | None
    val_images: int | None
    backbone: ScheduleConfig
    rpn: ScheduleConfig
    train: ScheduleConfig
    log_every: int = 10


@dataclass(frozen=True)
class LoggerConfig:
    """Where curves go besides metrics.jsonl."""

    kind: Literal["none", "wandb", "tensorboard"] = "none"
    project: str = "mask-rcnn-ablations"


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a training is written down to go on from: every so many seconds (more where writing takes long), and
    every so many steps; null: by time only."""

    seconds: float = 30.0
    steps: int | None = None


@dataclass(frozen=True)
class LauncherConfig:
    """Which engine runs are given to.

    address: of a Ray cluster; null: the one that RAY_ADDRESS names or this machine belongs to, else one of its own.
    cluster: for submitit: slurm, or local for processes of this machine, to try it out.
    options: for submitit: what each job asks for, such as {timeout_min: 240, slurm_partition: gpu}.
    """

    kind: Literal["local", "ray", "submitit"] = "local"
    address: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    options: dict[str, str | int | float | bool | None] = field(default_factory=dict)


EXTRAS = {"ray": "ray", "submitit": "slurm", "tensorboard": "tensorboard", "wandb": "wandb"}
"""Launchers and loggers that need a package of the same name, and the extra of this project that installs it."""


INDIFFERENT = (
    "outputs", "device", "workers", "threads", "compile", "force", "code", "checkpoint", "logger", "launcher",
)  # fmt: skip
"""Settings of how a run is carried out: they decide no more of its result than how sums are rounded."""


@dataclass(frozen=True)
class Config:
    """One run. The first block decides the result and is what runs are told apart by; the second does not."""

    data: Any  # one of data.specs.SPECS
    system: Annotated[MaskRCNNConfig | FCISConfig, Discriminator("kind")]
    model: Annotated[ToyConfig | ResNetConfig, Discriminator("name")]
    roi: RoIConfig
    mask_loss: MaskLossConfig
    mask_class: MaskClassConfig
    mask_head: MaskHeadConfig
    budget: BudgetConfig
    task: Literal["detection", "proposals"] = "detection"
    stride: int = 16
    rpn: Literal["separate", "joint"] = "separate"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0

    outputs: str = "outputs"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = None
    threads: int | None = None
    compile: bool = False
    force: bool = False
    code: Literal["redo", "keep"] = "redo"
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)

    def settings(self) -> dict[str, Any]:
        """What decides the result, as plain data."""
        settings = dataclasses.asdict(self)
        for name in INDIFFERENT:
            del settings[name]
        del settings["budget"]["seeds"]  # of the study, not of the run: more seeds leave finished runs as they are
        return settings

    def hash(self) -> str:
        return digest(self.settings())


def digest(content: Any) -> str:
    """A short name for plain data: the same data, the same name, on every machine."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def from_hydra(composed: DictConfig) -> Config:
    """The typed configuration, checked. Raises ConfigError."""
    plain = to_plain(composed)
    plain.pop("study", None)
    data, budget = plain.pop("data", None), plain.get("budget")
    kind = data.pop("kind", None) if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in SPECS:
        raise ConfigError(f"data.kind: expected one of {', '.join(SPECS)}, got {kind!r}")
    images = budget if isinstance(budget, dict) else {}
    counts = {"num_train": images.get("train_images"), "num_val": images.get("val_images")}
    if kind == "shapes" and None in counts.values():
        names = "budget.train_images, budget.val_images"
        raise ConfigError(f"{names}: drawn images have no end, so data=shapes needs numbers; got {counts}")
    data |= counts
    if plain.get("precision") == "auto":
        # Decided here, so that a record says which it was, and runs of either kind are told apart.
        plain["precision"] = "bfloat16" if native_bfloat16(plain.get("device") != "cpu") else "float32"
    config = typed(Config, plain | {"data": typed(SPECS[kind], data, "data.")})
    scaled = {name: getattr(config.budget, name).scaled() for name in ("backbone", "rpn", "train")}
    config = dataclasses.replace(config, budget=dataclasses.replace(config.budget, **scaled))
    validate(config)
    return config


def from_settings(settings: dict[str, Any]) -> Config:
    """The configuration that `Config.settings` describes, as a run's config.yaml holds it. Raises ConfigError."""
    try:
        budget, data = settings["budget"] | {"seeds": 1}, dict(settings["data"])
        kinds = [spec for spec in SPECS.values() if data.keys() <= {field.name for field in dataclasses.fields(spec)}]
        values = settings | {"budget": budget, "data": typed(kinds[0], data, "data.")}
    except (KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"expected a run's settings, got something else ({error!r})") from error
    return typed(Config, values)


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as dictionaries and lists, with references resolved."""
    try:
        return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"the configuration does not resolve: {error}") from error


def typed(kind: type, values: dict[str, Any], prefix: str = "") -> Any:
    """An instance of dataclass `kind` from plain values. Raises ConfigError on a wrong type or an unknown name."""
    try:
        built: Any = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(problem, prefix) for problem in error.errors())) from error
    unknown = _unknown(values, dataclasses.asdict(built), prefix)
    if unknown:
        raise ConfigError("; ".join(unknown))
    return built


def _describe(problem: ErrorDetails, prefix: str) -> str:
    # pydantic also names the kind of system or model that it took: system.fcis.parts for system.parts.
    kinds = ("mask_rcnn", "fcis", "toy", "resnet")
    name = prefix + ".".join(str(part) for part in problem["loc"] if part not in kinds)
    if problem["type"] == "missing":
        return f"{name}: missing"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"


def _unknown(values: dict[str, Any], known: dict[str, Any], prefix: str) -> list[str]:
    problems = []
    for name, value in values.items():
        if name not in known:
            problems.append(f"{prefix}{name}: no such setting; there are {', '.join(known)}")
        elif isinstance(value, dict):
            problems += _unknown(value, known[name], f"{prefix}{name}.")
    return problems


def validate(config: Config) -> None:
    """Refuses what cannot work, with the reason, before any work is done. Raises ConfigError."""

    def require(holds: bool, expected: str, got: object) -> None:
        if not holds:
            raise ConfigError(f"{expected}, got {got!r}")

    try:
        config.data.validate()
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    try:
        config.model.validate(config.stride)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    require(0 <= config.seed < 2**32, "seed: expected 0 or more, below 2^32", config.seed)
    for name in ("workers", "threads"):
        value = getattr(config, name)
        require(value is None or value >= 1, f"{name}: expected 1 or more, or null for automatic", value)

    reason = missing_compiler(config.device) if config.compile and config.launcher.kind == "local" else None
    if reason is not None:
        raise ConfigError(f"compile=true: {reason}; install it or leave compile at false")

    require(config.checkpoint.seconds > 0, "checkpoint.seconds: expected more than 0", config.checkpoint.seconds)
    steps = config.checkpoint.steps
    require(steps is None or steps >= 1, "checkpoint.steps: expected 1 or more, or null for by time only", steps)

    for setting, package in (("launcher", config.launcher.kind), ("logger", config.logger.kind)):
        if package in EXTRAS and importlib.util.find_spec(package) is None:
            command = f"python -m pip install -e '.[{EXTRAS[package]}]'"
            raise ConfigError(f"{setting}={package}: expected the package {package}, found none; install it: {command}")

    budget, roi, head = config.budget, config.roi, config.mask_head
    for name in ("seeds", "log_every"):
        require(getattr(budget, name) >= 1, f"budget.{name}: expected 1 or more", getattr(budget, name))
    for name in ("train_images", "val_images"):
        value = getattr(budget, name)
        require(value is None or value >= 1, f"budget.{name}: expected 1 or more, or null for all", value)
    for stage in ("backbone", "rpn", "train"):
        schedule = getattr(budget, stage)
        for name in ("steps", "images_per_step", "lr"):
            value = getattr(schedule, name)
            require(value > 0, f"budget.{stage}.{name}: expected more than 0", value)
        for name in ("weight_decay", "pretrained_lr"):
            value = getattr(schedule, name)
            require(value >= 0, f"budget.{stage}.{name}: expected 0 or more", value)
        where = f"budget.{stage}"
        require(0 <= schedule.warmup < 1, f"{where}.warmup: expected a share of the steps, 0 to 1", schedule.warmup)
        marks = schedule.milestones
        rising = marks == sorted(marks) and all(0 < mark < 1 for mark in marks)
        require(rising, f"{where}.milestones: expected rising shares of the steps between 0 and 1", marks)
        stepwise = schedule.decay == "steps"
        require(stepwise == bool(marks), f"{where}.milestones: decay=steps needs some, decay=cosine has none", marks)
        scaled_from = schedule.scaled_from
        require(scaled_from is None or scaled_from >= 1, f"{where}.scaled_from: expected 1 or more", scaled_from)
        images, parts = schedule.images_per_step, schedule.micro_batches
        whole = parts >= 1 and images % parts == 0
        require(whole, f"{where}.micro_batches: expected a number that divides images_per_step = {images}", parts)

    require(roi.sampling_ratio >= 0, "roi.sampling_ratio: expected 0 (adaptive) or more", roi.sampling_ratio)
    require(
        roi.op != "pool" or roi.reduce == "max", "roi.reduce: RoIPool is a maximum by definition; use max", roi.reduce
    )
    require(roi.op == "align" or not roi.aligned, "roi.aligned: only RoIAlign has it; leave it false", roi.aligned)
    competing = config.mask_loss.kind == "softmax"
    expected = "mask_loss.rule: sigmoid masks have no rivals to beat; leave it at share"
    require(competing or config.mask_loss.rule == "share", expected, config.mask_loss.rule)
    require(
        config.task == "detection" or config.rpn == "separate",
        "task=proposals: trains the proposal network by itself; leave rpn at separate",
        config.rpn,
    )
    least = 1 if head.kind == "mlp" else 0
    require(head.depth >= least, f"mask_head.depth: expected {least} or more for {head.kind}", head.depth)
    require(head.channels >= 1, "mask_head.channels: expected 1 or more", head.channels)
    if head.kind == "none":
        factors = (config.mask_loss.kind, config.mask_class.kind)
        expected = "mask_loss, mask_class: without a mask branch they decide nothing; leave them at sigmoid, specific"
        require(factors == ("sigmoid", "specific"), expected, factors)
    if isinstance(config.system, FCISConfig):
        validate_fcis(config.system, config, require)


def validate_fcis(fcis: FCISConfig, config: Config, require: Callable[[bool, str, object], None]) -> None:
    """Refuses what FCIS has no part for: nothing is set in vain."""
    require(
        config.stride in (16, 32),
        "system=fcis: its score maps lie on one map, not on a pyramid; expected a stride of 16 or 32",
        config.stride,
    )
    default_mask_head = MaskHeadConfig(depth=config.model.mask_depth, channels=config.model.mask_channels)
    reasons = {
        "roi": (RoIConfig(), "FCIS has a RoI operator of its own, position-sensitive pooling"),
        "mask_loss": (MaskLossConfig(), "FCIS's masks are a softmax of inside against outside by definition"),
        "mask_class": (MaskClassConfig(), "FCIS's score maps, which are its masks, tell the classes apart"),
        "mask_head": (default_mask_head, "FCIS has no mask head: its masks are read from the score maps"),
    }
    for name, (default, reason) in reasons.items():
        require(getattr(config, name) == default, f"{name}: {reason}; leave {name} out", getattr(config, name))
    for name in ("parts", "cells", "head_channels"):
        require(getattr(fcis, name) >= 1, f"system.{name}: expected 1 or more", getattr(fcis, name))
    require(fcis.head_depth >= 0, "system.head_depth: expected 0 or more", fcis.head_depth)
    require(
        fcis.cells % fcis.parts == 0, f"system.cells: expected a multiple of system.parts = {fcis.parts}", fcis.cells
    )
    for name in ("class_weight", "mask_weight", "box_weight"):
        require(getattr(fcis, name) > 0, f"system.{name}: expected more than 0", getattr(fcis, name))
    for name in ("target_threshold", "vote_iou", "vote_threshold"):
        require(0 < getattr(fcis, name) <= 1, f"system.{name}: expected more than 0, at most 1", getattr(fcis, name))
