"""The SETTING=VALUE arguments of a command line: checked before Hydra composes them, and a sweep's runs.

Hydra reads the values. What it would say of a mistake is said here instead, in the same words as of typed settings:
its advice (`+lr=0.1`, `key=[value1,value2]`) would be refused in the next step.
"""

import difflib
import itertools
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ablations.config.messages import HELP, format_value
from ablations.config.schema import EXECUTION_SETTINGS
from ablations.config.study import Compose, key_of
from ablations.errors import ConfigError
from ablations.paths import CONF

HYDRA = {
    "hydra/launcher": "launcher=ray and launcher=submitit choose where runs are executed",
    "hydra/sweeper": "-m runs all combinations of values, and no optimiser chooses among them: arms share one schedule",
    "hydra.mode": "-m makes a sweep",
    "hydra.searchpath": "--config-dir FOLDER adds a folder of settings",
}
"""Settings of Hydra, and what does the same here or why nothing does."""


class Unreadable(ConfigError):
    """Arguments that cannot be taken as they are.

    readable: the overrides that can; groups: those in which the others are.
    """

    def __init__(self, mistakes: list[str], readable: list[str], groups: set[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.readable, self.groups = readable, groups


def group_options(folder: Path | None = None) -> dict[str, list[str]]:
    """{group: its options}, {"roi": ["align", "pool", ...], ...}, with those of another folder of settings."""
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--config-dir: expected a folder, got {folder}: no such folder")
    files = [path for home in (CONF, folder) if home for path in home.glob("*/*.yaml")]
    names = sorted({(path.parent.name, path.stem) for path in files})
    return {group: [option for _, option in rows] for group, rows in itertools.groupby(names, key=lambda row: row[0])}


def overrides_of_runs(arguments: list[str], sweep: bool, groups: dict[str, list[str]]) -> list[list[str]]:
    """The overrides of each run that the arguments stand for: of one, or of a sweep's combinations of values.

    Raises Unreadable with one line for each mistake.
    """
    choices, mistakes, mistaken = [], [], set()
    for argument in arguments:
        try:
            choices.append(_choices(argument, sweep, groups))
        except ConfigError as error:
            mistakes.append(str(error))
            mistaken.add(key_of(argument).partition(".")[0])
    keys = Counter(key_of(values[0]) for values in choices)
    mistakes += [
        f"{key}: given {count} times; give it once" for key, count in keys.items() if count > 1 and key in groups
    ]
    if mistakes:
        rest = [values[0] for values in choices if key_of(values[0]).partition(".")[0] not in mistaken]
        raise Unreadable(mistakes, rest, mistaken)
    last = {key_of(values[0]): values for values in choices}  # of a setting given twice, as usual on command lines
    return [list(values) for values in itertools.product(*last.values())]


@contextmanager
def composer(groups: dict[str, list[str]], folder: Path | None = None) -> Iterator[Compose]:
    """The function from overrides to what Hydra composes of them, with another folder of settings before our own.

    Settings that the composed files do not have are added: whether they exist is for the dataclasses to say.
    """
    path = [f"hydra.searchpath=['file://{folder.absolute()}']"] if folder else []

    def compose(overrides: list[str]) -> DictConfig:
        added = [override if key_of(override) in groups else f"++{override.lstrip('+')}" for override in overrides]
        try:
            return hydra.compose("config", added + path)
        except (HydraException, OmegaConfBaseException) as error:
            reason = " ".join(f"{error}: {error.__cause__ or ''}".split()).replace("++", "").removesuffix(":")
            raise ConfigError(f"the settings do not compose: {reason}") from error

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield compose


def _choices(argument: str, sweep: bool, groups: dict[str, list[str]]) -> list[str]:
    """The overrides that an argument stands for, one for each value. Raises ConfigError."""
    override = _parsed(argument)
    key = override.key_or_group
    if key.partition("/")[0].partition(".")[0] == "hydra":
        raise ConfigError(f"{key}: Hydra's own settings are fixed here; {HYDRA.get(key, HELP)}")
    if override.is_delete():
        raise ConfigError(f"{argument}: expected SETTING=VALUE; a run needs every setting, so none can be removed")
    if override.package is not None or ("/" in key and key not in groups):
        raise ConfigError(f"{argument.partition('=')[0]}: no such setting; dots lead to settings within a group")
    group, _, field = key.partition(".")
    if group in groups and group != "study" and field in ("kind", "name"):
        raise ConfigError(
            f"{key}: the option of {group} decides it; {group}=OPTION, with OPTION one of {', '.join(groups[group])}"
        )
    if override.is_sweep_override() and not sweep:
        text = "" if key in groups else _as_text(argument)
        raise ConfigError(f"{key}: expected one value; for a run with each, {_command('-m', argument)}{text}")
    values = _values(override, groups.get(key, []))
    for value in values if key in groups else []:
        _check_option(key, value, groups[key])
    return [argument] if not override.is_sweep_override() else [f"{key}={value}" for value in values]


def _parsed(argument: str) -> Override:
    key, equals, value = argument.partition("=")
    if not key or not (equals or key.startswith("~")):
        raise ConfigError(f"{argument}: expected SETTING=VALUE, such as roi=pool; {HELP}")
    try:
        return OverridesParser.create().parse_overrides([argument])[0]
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of brackets
        raise ConfigError(f"{key}: expected a value that can be read, got {len(value):,} characters") from error
    except OverrideParseException as error:
        try:
            OverridesParser.create().parse_overrides([f"{key}=1"])
        except OverrideParseException:
            raise ConfigError(f"{key}: no such setting; {HELP}") from error
        text = _as_text(argument) or "; check its quotes and brackets"
        raise ConfigError(f"{key}: expected a value that can be read, got {value}{text}") from error


def _values(override: Override, options: list[str]) -> list[str]:
    """Each value of an override, as text."""
    value = override.value()
    if not override.is_sweep_override():
        return [value] if isinstance(value, str) else [override.get_value_element_as_str()]
    if isinstance(value, Glob):
        return value.filter(options)
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.key_or_group}: expected values to go through, such as 1,2,3, got an interval")
    return list(override.sweep_string_iterator())


def _check_option(group: str, value: str, options: list[str]) -> None:
    if value in options:
        return
    line = f"{group}: expected one of {', '.join(options)}, got {format_value(value)}"
    if value.startswith("["):
        several = [name.strip() for name in value[1:-1].split(",")]
        way = f"to compare them, {_command('-m', group + '=' + ','.join(several))}"
        raise ConfigError(f"{line}; {'give one of them' if group in EXECUTION_SETTINGS else way}")
    close = difflib.get_close_matches(value, options, n=1)
    raise ConfigError(f"{line}; did you mean {close[0]}?" if close else line)


def _command(*arguments: str) -> str:
    return f"python run.py {shlex.join(arguments)}"


def _as_text(argument: str) -> str:
    """How to give a value as plain text whose characters Hydra would take for syntax; "" if it is in quotes already."""
    key, _, value = argument.partition("=")
    if value.startswith("~/"):
        return f"; shells do not replace ~ after =, so write {key}=$HOME{value[1:]}"
    if set("'\"[{") & set(value[:1] + value[-1:]):
        return ""
    quoted = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
    return f"; as plain text it needs quotes within quotes: {quoted}"
