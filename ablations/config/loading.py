"""From plain settings to typed ones: what Hydra composes, and what a run's config.yaml holds."""

import dataclasses
from collections.abc import Container
from typing import Any, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations.config import validation
from ablations.config.messages import check, no_such
from ablations.config.schema import SCHEDULES, Config
from ablations.config.unused_settings import unused_settings
from ablations.errors import ConfigError
from ablations.machine import native_bfloat16
from ablations.records.schema import flatten


def from_hydra(composed: DictConfig) -> Config:
    """The typed configuration with its precision resolved. Raises ConfigError with one line for each mistake."""
    return resolve_precision(validate(composed))


def validate(composed: DictConfig) -> Config:
    """The typed configuration, with precision=auto as it is. Raises ConfigError with one line for each mistake."""
    plain = to_plain(composed)
    study = plain.pop("study", None)
    groups, mistakes = _groups(plain, study is not None)
    for split in ("train", "val"):
        if isinstance(plain.get("data"), dict) and f"num_{split}" in plain["data"]:
            mistakes.append(f"data.num_{split}: no such setting; set budget.{split}_images")
    mistakes += validation.broken_rules(groups)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return _derived(Config(**groups))


def mistakes_beside(composed: DictConfig, unknown: Container[str]) -> list[str]:
    """A line for each mistake in the settings, but in those groups of which it is not known what they should be."""
    plain = to_plain(composed)
    study = plain.pop("study", None)
    groups, lines = _groups(plain, study is not None)
    lines = [line for line in lines if line.partition(":")[0].partition(".")[0] not in unknown]
    known = {name: group for name, group in groups.items() if name not in unknown}
    return lines if "study" in unknown else lines + validation.broken_rules(known)


def resolve_precision(config: Config) -> Config:
    """The configuration with its precision resolved for this machine, so that a record says which it was.

    This asks torch for a GPU, which takes seconds to import.
    """
    if config.precision != "auto":
        return config
    fast = native_bfloat16(config.device != "cpu")
    return dataclasses.replace(config, precision="bfloat16" if fast else "float32")


def from_settings(settings: dict[str, Any]) -> Config:
    """The configuration that `Config.settings` describes, as a run's config.yaml holds it. Raises ConfigError."""
    try:
        budget, data = settings["budget"] | {"seeds": 1}, with_data_kind(settings["data"])
        values = settings | {"budget": budget, "data": data, "model": with_weights(settings["model"])}
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"expected a run's settings, got something else ({error!r})") from error
    return cast(Config, parse(Config, values))


def with_data_kind(data: dict[str, Any]) -> dict[str, Any]:
    """Settings of data with their kind, which older records lack: only COCO folders have a root."""
    return {"kind": "coco" if "root" in data else "shapes"} | data


def with_weights(model: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model with `weights`, which older records lack: every toy backbone was pretrained anew."""
    return {"weights": "scratch"} | model


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as dictionaries and lists, with references resolved."""
    try:
        return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:
        place, reason = getattr(error, "full_key", None) or "the configuration", str(error).splitlines()[0]
        raise ConfigError(f"{place}: expected ${{...}} to name another setting, got: {reason}") from error


def parse(kind: type, values: Any, name: str = "") -> Any:
    """An instance of dataclass `kind` from plain values. Raises ConfigError with one line for each mistake."""
    built, mistakes = check(kind, values, name)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return built


def _groups(plain: dict[str, Any], study: bool) -> tuple[dict[str, Any], list[str]]:
    """The fields of Config that are right, by name, and what is wrong with the others."""
    hints = get_type_hints(Config, include_extras=True)
    groups, mistakes = {}, []
    for field in dataclasses.fields(Config):
        if field.name in plain:
            value, wrong = check(hints[field.name], plain[field.name], field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            wrong = [f"{field.name}: missing"]
        else:
            continue
        mistakes += wrong
        if not wrong:
            groups[field.name] = value
    unknown = [name for name in plain if name not in hints]
    known = [*hints, "study", *(name for name in flatten(plain) if "." in name)]
    useful = _with_effect(groups, known, study)
    return groups, [no_such(name, known, useful) for name in unknown] + mistakes


def _with_effect(groups: dict[str, Any], names: list[str], study: bool) -> list[str]:
    """Those of the settings that have an effect; all of them where that cannot be told."""
    try:
        config = Config(**groups)
    except ValueError:  # some fields are wrong
        return names
    return [name for name in names if not unused_settings(config, [name], study)]


def _derived(config: Config) -> Config:
    """The configuration with the settings that follow from others."""
    budget = dataclasses.replace(config.budget, **{name: getattr(config.budget, name).scaled() for name in SCHEDULES})
    counts: dict[str, Any] = {"num_train": budget.train_images, "num_val": budget.val_images}
    return dataclasses.replace(config, budget=budget, data=dataclasses.replace(config.data, **counts))
