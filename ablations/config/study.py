"""A study: arms, seeds and hypotheses, composed into runs that differ in the declared factors and nowhere else."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from omegaconf import DictConfig
from pydantic import Field

from ablations.config.loading import parse, to_plain, validate
from ablations.config.messages import describe_mismatch
from ablations.config.schema import EXECUTION_SETTINGS, Config, digest
from ablations.config.unused_settings import unused_settings
from ablations.errors import ConfigError
from ablations.records.schema import EXACT, Arm, Floor, Hypothesis, flatten

Compose = Callable[[list[str]], DictConfig]

UNNAMED = ("seed", "study", *EXECUTION_SETTINGS)
"""What a user may set on the command line without giving a single run another name."""

LEARNING = "learning"
"""The exhibit of average precision along training, for which runs keep snapshots of their weights."""

LONGEST_NAME = 200
"""Characters of a single run's name, which is a folder's; file systems allow 255."""


@dataclass(frozen=True)
class Study:
    name: str
    title: str
    question: str
    factors: list[str]
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    hypotheses: list[Hypothesis]
    exhibits: list[str] = field(default_factory=list)
    floor: Floor | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = EXACT


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    study: str
    arm: str
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.outputs) / self.study / self.arm / f"seed{self.config.seed}"

    def __str__(self) -> str:
        return f"{self.arm} seed {self.config.seed}"


def key_of(override: str) -> str:
    """The setting that an override sets: "roi" of "roi=pool"."""
    return override.lstrip("+").partition("=")[0]


def single_run(composed: DictConfig, overrides: list[str]) -> Run:
    """The run that a command line without a study asks for, named by what it sets. Raises ConfigError."""
    config = validate(composed)
    raise_mistakes(without_effect([config], overrides, study=False))
    return Run("single", run_name(overrides), config)


def run_name(overrides: list[str]) -> str:
    """A folder's name for a run with these overrides. Other overrides have another name, whatever the file system.

    A digest ends it where the overrides are not in it as they are, or file systems without capitals would confuse them.
    """
    named = sorted(o.lstrip("+") for o in overrides if key_of(o).partition(".")[0] not in UNNAMED)
    written = ",".join(named)
    name = re.sub(r"[^A-Za-z0-9_.=,-]+", "_", written)[:LONGEST_NAME] or "default"
    return name if name in (written.lower(), "default") else f"{name}-{digest(named)}"


def compose_study(composed: DictConfig, overrides: list[str], compose: Compose) -> tuple[Study, list[Run]]:
    """The study that was asked for and its runs, seed by seed, so that a study cut short is still balanced.

    overrides: what the user typed; compose(overrides) gives the configuration that they amount to. As in a single run,
    precision=auto is not resolved yet: that needs torch.
    Raises ConfigError when the user sets what the study varies, or when arms differ in anything undeclared.
    """
    study = _read(to_plain(composed.study))
    mistakes = _broken_hypotheses(study)
    for override in overrides:
        key = key_of(override)
        if declared(key, study.factors):
            mistakes.append(f"{override}: study {study.name} varies {key} itself; leave it out or run without it")
        if key == "seed":
            mistakes.append(f"{override}: a study runs budget.seeds seeds from budget.first_seed on; set those instead")
    arms = {}
    for name, arm in study.arms.items():
        try:
            arms[name] = validate(compose([*overrides, *arm.overrides]))
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if len(arms) == len(study.arms):
        mistakes += without_effect(list(arms.values()), overrides, study=True)
        mistakes += _undeclared(study, arms) + _broken_floor(study, arms) + _impossible_exhibits(study, arms)
    raise_mistakes(mistakes)
    budget = next(iter(arms.values())).budget
    seeds = range(budget.first_seed, budget.first_seed + budget.seeds)
    return study, [_run_of(study, name, config, seed) for seed in seeds for name, config in arms.items()]


def _run_of(study: Study, arm: str, config: Config, seed: int) -> Run:
    """The run of an arm with a seed. AP along training is shown of the first seed."""
    wanted = LEARNING in study.exhibits and seed == config.budget.first_seed
    snapshots = wanted if config.snapshots is None else config.snapshots
    return Run(study.name, arm, dataclasses.replace(config, seed=seed, snapshots=snapshots))


def raise_mistakes(mistakes: list[str]) -> None:
    """Raises ConfigError with each line once, if there are any."""
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))


def without_effect(configs: list[Config], overrides: list[str], study: bool) -> list[str]:
    """A line for each override that has no effect in any of the configurations."""
    reasons = [unused_settings(config, map(key_of, overrides), study) for config in configs]
    common = set.intersection(*(set(lines) for lines in reasons))
    return [line for line in reasons[0] if line in common]


def declared(key: str, factors: list[str]) -> bool:
    """Whether a setting is one of the factors or part of one: "roi.op" of "roi"."""
    return any(key == factor or key.startswith(f"{factor}.") for factor in factors)


def differences(arms: dict[str, Config]) -> dict[str, dict[str, Any]]:
    """{setting: {arm: value}} for each setting that is not the same in all arms, under its dotted name."""
    flat = {name: flatten(config.settings()) for name, config in arms.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    values = {key: {name: settings.get(key) for name, settings in flat.items()} for key in keys}
    return {key: by_arm for key, by_arm in values.items() if len({repr(value) for value in by_arm.values()}) > 1}


def _read(content: dict[str, Any]) -> Study:
    if "arms" not in content:
        raise ConfigError(f"study: expected one with arms, such as study=roialign, got only {', '.join(content)}")
    arms = {
        name: arm | {"factors": dict(_split(override) for override in arm["overrides"])}
        for name, arm in content["arms"].items()
    }
    return parse(Study, content | {"arms": arms}, "study")


def _broken_hypotheses(study: Study) -> list[str]:
    """A line for each hypothesis that names unknown arms, or a margin where it is no equivalence."""
    lines = []
    for hypothesis in study.hypotheses:
        at = f"study {study.name}: hypothesis {hypothesis.name}"
        unknown = sorted(set(hypothesis.contrast) - set(study.arms))
        if unknown:
            lines.append(f"{at} names unknown arms {unknown}")
        if hypothesis.direction == "equal" and not (hypothesis.margin and hypothesis.margin > 0):
            lines.append(f"{at}: margin: expected points, more than 0, for direction: equal, got {hypothesis.margin}")
        if hypothesis.direction != "equal" and hypothesis.margin is not None:
            lines.append(f"{at}: margin: expected direction: equal, which alone has one, got {hypothesis.direction}")
    return lines


def _undeclared(study: Study, arms: dict[str, Config]) -> list[str]:
    """A line if arms differ in anything but the study's factors."""
    stray = [key for key in differences(arms) if not declared(key, study.factors)]
    return [f"study {study.name}: expected arms that differ in {study.factors}, got also {stray}"] if stray else []


def _broken_floor(study: Study, arms: dict[str, Config]) -> list[str]:
    """A line if the study's floor names no arm with masks."""
    with_masks = [
        name for name, config in arms.items() if config.task == "detection" and config.mask_head.kind != "none"
    ]
    if study.floor is None or study.floor.arm in with_masks:
        return []
    expected = f"one of the arms with masks, {', '.join(with_masks) or 'of which there are none'}"
    return [f"study.floor.arm: {describe_mismatch(expected, study.floor.arm)}"]


def _impossible_exhibits(study: Study, arms: dict[str, Config]) -> list[str]:
    """A line for each reason why the study's exhibits cannot be made: most run networks on images, some of which may
    take maps, and LEARNING needs detectors."""
    lines = []
    if {*study.exhibits} - {LEARNING} and any(config.model.frozen for config in arms.values()):
        lines.append(
            f"model.freeze: expected a number of stages in study {study.name}, whose exhibits run networks on images "
            "(study.exhibits), got all"
        )
    if LEARNING in study.exhibits and any(config.task != "detection" for config in arms.values()):
        lines.append(f"study.exhibits: {LEARNING}: expected a study of detectors, got task=proposals")
    return lines


def _split(override: str) -> tuple[str, int | str]:
    key, _, value = override.partition("=")
    return key, int(value) if value.isdigit() else value
