"""Constraints between groups of settings, and between settings and this machine.

The parameters of a rule name the fields of Config that it is about; it is left out where one of them is wrong already.
"""

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

from ablations.config.messages import describe_mismatch
from ablations.config.schema import BudgetConfig, LauncherConfig, LoggerConfig
from ablations.machine import missing_compiler
from data.specs import CollageSpec, FolderSpec, ShapesSpec
from models.config import (
    Constraints,
    FCISConfig,
    MaskClassConfig,
    MaskHeadConfig,
    MaskLossConfig,
    MaskRCNNConfig,
    ResNetConfig,
    RoIConfig,
    ToyConfig,
)

EXTRAS = {"ray": "ray", "submitit": "slurm", "tensorboard": "tensorboard", "wandb": "wandb"}
"""Launchers and trackers that need a package of the same name, and the extra of this project that installs it."""


def broken_rules(groups: dict[str, Any]) -> list[str]:
    """What is wrong with valid fields of Config, by name, taken together: one line for each broken rule."""
    rows = [row for name, part in groups.items() for row in _rules_within(name, part)]
    rows += [row for rule in RULES for row in _call(rule, groups)]
    broken = [
        f"{name}: {describe_mismatch(expected, _value(name, groups))}" for name, holds, expected in rows if not holds
    ]
    return broken + [line for check in MACHINE for line in _call(check, groups)]


def network(stride: int, model: ToyConfig | ResNetConfig) -> Constraints:
    if stride not in model.strides:
        return [("stride", False, f"{' or '.join(map(str, model.strides))} for this model")]
    return [(f"model.{name}", holds, expected) for name, holds, expected in model.rules_at(stride)]


def rounding_step(roi: RoIConfig, model: ToyConfig | ResNetConfig) -> Constraints:
    one_map = not isinstance(model, ResNetConfig) or not model.pyramid
    return [("roi.step", one_map or roi.step == 0, "0: on a pyramid each map has a stride of its own")]


def image_counts(data: ShapesSpec | FolderSpec, budget: BudgetConfig) -> Constraints:
    synthetic, collages = isinstance(data, ShapesSpec), isinstance(data, CollageSpec)
    made = {"train_images": synthetic or collages, "val_images": synthetic}
    expected = f"a number: {'collages' if collages else 'synthetic images'} have no end"
    return [
        (f"budget.{name}", not is_made or getattr(budget, name) is not None, expected) for name, is_made in made.items()
    ]


def proposal_task(task: str, rpn: str) -> Constraints:
    alone = "separate: task=proposals trains the proposal network by itself"
    return [("rpn", task == "detection" or rpn == "separate", alone)]


def without_masks(mask_head: MaskHeadConfig, mask_loss: MaskLossConfig, mask_class: MaskClassConfig) -> Constraints:
    branch, reason = mask_head.kind != "none", "without a mask branch (mask_head=none) it has no effect"
    return [
        ("mask_loss.kind", branch or mask_loss.kind == "sigmoid", f"sigmoid: {reason}"),
        ("mask_class.kind", branch or mask_class.kind == "specific", f"specific: {reason}"),
    ]


def fcis(
    system: MaskRCNNConfig | FCISConfig,
    stride: int,
    model: ToyConfig | ResNetConfig,
    roi: RoIConfig,
    mask_loss: MaskLossConfig,
    mask_class: MaskClassConfig,
    mask_head: MaskHeadConfig,
) -> Constraints:
    """FCIS has none of these parts, so nothing may be set of them."""
    if not isinstance(system, FCISConfig):
        return []
    default_head = MaskHeadConfig(depth=model.mask_depth, channels=model.mask_channels)
    masks = "its masks are a softmax of inside against outside by definition"
    return [
        ("stride", stride in (16, 32), "16 or 32 for system=fcis: its score maps lie on one map, not on a pyramid"),
        ("roi", roi == RoIConfig(), _without("roi", "it has a RoI operator of its own, position-sensitive pooling")),
        ("mask_loss", mask_loss == MaskLossConfig(), _without("mask_loss", masks)),
        (
            "mask_class",
            mask_class == MaskClassConfig(),
            _without("mask_class", "score maps tell the classes apart"),
        ),
        ("mask_head", mask_head == default_head, _without("mask_head", "it reads masks from its score maps")),
    ]


def _without(name: str, reason: str) -> str:
    return f"the default for system=fcis: {reason}; leave {name} out"


RULES: list[Callable[..., Constraints]] = [network, rounding_step, image_counts, proposal_task, without_masks, fcis]


def files(data: ShapesSpec | FolderSpec) -> list[str]:
    """What is not where `data` says."""
    if not isinstance(data, FolderSpec):
        return []
    try:
        data.check_files()
    except ValueError as error:
        return [str(error)]
    return []


def compiler(compile: bool, device: str, launcher: LauncherConfig) -> list[str]:
    reason = missing_compiler(device) if compile and launcher.kind == "local" else None
    return [f"compile=true: {reason}; install it or leave compile at false"] if reason else []


def packages(launcher: LauncherConfig, logger: LoggerConfig) -> list[str]:
    asked = {"launcher": launcher.kind, "logger": logger.kind}
    return [
        f"{setting}={package}: expected the package {package}, found none; "
        f"install it: python -m pip install -e '.[{EXTRAS[package]}]'"
        for setting, package in asked.items()
        if package in EXTRAS and importlib.util.find_spec(package) is None
    ]


MACHINE: list[Callable[..., list[str]]] = [files, compiler, packages]


def _rules_within(name: str, part: Any) -> Constraints:
    """The rules of a group and of the groups in it, under dotted names."""
    if not dataclasses.is_dataclass(part):
        return []
    group_rules = part.rules() if hasattr(part, "rules") else []
    inner = [(field.name, getattr(part, field.name)) for field in dataclasses.fields(part)]
    rows = [(f"{name}.{setting}", holds, expected) for setting, holds, expected in group_rules]
    return rows + [row for field, value in inner for row in _rules_within(f"{name}.{field}", value)]


def _call(rule: Callable[..., list[Any]], groups: dict[str, Any]) -> list[Any]:
    needed = inspect.signature(rule).parameters
    return rule(**{name: groups[name] for name in needed}) if needed.keys() <= groups.keys() else []


def _value(name: str, groups: dict[str, Any]) -> Any:
    first, *others = name.split(".")
    value = groups[first]
    for key in others:
        value = getattr(value, key)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
