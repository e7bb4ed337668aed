"""A study: arms, seeds and hypotheses, composed into runs that differ in the declared factors and nowhere else."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ablations import exhibits
from ablations.config.loading import from_hydra, to_plain, typed
from ablations.config.schema import INDIFFERENT, Config, digest
from ablations.errors import ConfigError
from ablations.records.schema import Arm, Hypothesis, flatten

Compose = Callable[[list[str]], DictConfig]

# What a user may set on the command line without giving a single run another name.
UNNAMED = ("seed", "study", *INDIFFERENT)


LONGEST_NAME = 200
"""Characters of a single run's name, which is a folder's; file systems allow 255. Longer ones end in a digest."""


@dataclass(frozen=True)
class Study:
    name: str
    title: str
    question: str
    factors: list[str]
    arms: dict[str, Arm]
    hypotheses: list[Hypothesis]
    exhibits: list[str] = field(default_factory=list)


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


def single_run(composed: DictConfig, overrides: list[str]) -> Run:
    """The run that a command line without a study asks for, named by what it sets."""
    named = sorted(o for o in overrides if o.lstrip("+~").partition("=")[0].partition(".")[0] not in UNNAMED)
    arm = re.sub(r"[^A-Za-z0-9_.=,-]+", "_", ",".join(named)) or "default"
    if len(arm) > LONGEST_NAME:
        arm = f"{arm[:LONGEST_NAME]}-{digest(named)}"
    return Run("single", arm, from_hydra(composed))


def compose_study(composed: DictConfig, overrides: list[str], compose: Compose) -> tuple[Study, list[Run]]:
    """The study that was asked for and its runs, seed by seed, so that a study cut short is still balanced.

    overrides: what the user typed; compose(overrides) gives the configuration that they amount to.
    Raises ConfigError when the user sets what the study varies, or when arms differ in anything undeclared.
    """
    study = _read(to_plain(composed.study))
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in study.factors or key.partition(".")[0] in study.factors:
            raise ConfigError(f"{override}: study {study.name} varies {key} itself; leave it out or run without it")
        if key == "seed":
            raise ConfigError(f"{override}: a study runs seeds 0 to budget.seeds - 1; set budget.seeds instead")
    arms = {name: from_hydra(compose([*overrides, *arm.overrides])) for name, arm in study.arms.items()}
    check_factors(study, arms)
    seeds = range(next(iter(arms.values())).budget.seeds)
    runs = [
        Run(study.name, name, dataclasses.replace(config, seed=seed)) for seed in seeds for name, config in arms.items()
    ]
    return study, runs


def check_factors(study: Study, arms: dict[str, Config]) -> None:
    """Raises ConfigError if arms differ in anything but the study's factors."""
    stray = [key for key in differences(arms) if key.partition(".")[0] not in study.factors]
    if stray:
        raise ConfigError(f"study {study.name}: expected arms that differ in {study.factors}, got also {stray}")


def differences(arms: dict[str, Config]) -> dict[str, dict[str, Any]]:
    """{setting: {arm: value}} for each setting that is not the same in all arms, under its dotted name."""
    flat = {name: flatten(config.settings()) for name, config in arms.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    values = {key: {name: settings.get(key) for name, settings in flat.items()} for key in keys}
    return {key: by_arm for key, by_arm in values.items() if len({repr(value) for value in by_arm.values()}) > 1}


def _read(content: dict[str, Any]) -> Study:
    arms = {
        name: arm | {"factors": dict(_split(override) for override in arm["overrides"])}
        for name, arm in content["arms"].items()
    }
    study = typed(Study, content | {"arms": arms}, "study")
    for hypothesis in study.hypotheses:
        unknown = sorted(set(hypothesis.contrast) - set(study.arms))
        if unknown:
            raise ConfigError(f"study {study.name}: hypothesis {hypothesis.name} names unknown arms {unknown}")
    strange = sorted(set(study.exhibits) - set(exhibits.names()))
    if strange:
        known = ", ".join(exhibits.names()) or "none"
        raise ConfigError(f"study {study.name}: exhibits: expected some of {known}, got {strange}")
    return study


def _split(override: str) -> tuple[str, int | str]:
    key, _, value = override.partition("=")
    return key, int(value) if value.isdigit() else value
