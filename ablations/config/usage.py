"""The text of `python run.py --help`: each group's options, and each setting with the comment of its file in conf/."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ablations.config.loading import to_plain, validate
from ablations.config.messages import format_value
from ablations.config.overrides import Compose, key_of
from ablations.config.schema import SCHEDULES
from ablations.config.unused_settings import reasons_unused
from ablations.errors import ConfigError
from ablations.paths import CONF
from ablations.records.schema import flatten

LINE = re.compile(r"(?P<indent> *)(?P<list>- )?(?P<key>\w+):(?P<value>.*?)(?: +# (?P<comment>.*))?$")
OPTION_WIDTH, SETTING_WIDTH = 16, 34
"""Columns at which comments begin."""


def usage(introduction: str, overrides: list[str], compose: Compose, groups: dict[str, list[str]]) -> str:
    """introduction: what comes first. overrides: options such as roi=pool, shown instead of the default ones."""
    choices = [override for override in overrides if key_of(override) in groups]
    composed = compose(choices)
    chosen = _defaults() | dict(override.lstrip("+").split("=", 1) for override in choices)
    about = _comments(CONF / "config.yaml")
    lines = [
        introduction.strip(),
        "",
        "Groups, each with its options (GROUP=OPTION; the default or chosen one has a *)",
    ]
    for group, options in groups.items():
        lines += ["", _commented(group, about.get(group, ""), OPTION_WIDTH)]
        lines += [
            _commented(f"{'*' if option == chosen.get(group) else ' '} {option}", _purpose(group, option), OPTION_WIDTH)
            for option in options
        ]
    comments = {name: text for name, text in about.items() if name not in groups}
    for group, option in chosen.items():
        comments |= _group_comments(group, option)
    for name, reason in _unused(composed).items():
        comments[name] = f"{comments[name]} ({reason})" if name in comments else reason
    plain = {name: value for name, value in to_plain(composed).items() if name != "study"}
    lines += [
        "",
        "Settings (SETTING=VALUE, such as budget.train.lr=0.001); python run.py --help roi=pool shows its own",
        "",
    ]
    return "\n".join(lines + _tree(plain, comments))


def _unused(composed: DictConfig) -> dict[str, str]:
    """{setting: why it has no effect with the chosen options}."""
    try:
        config = validate(composed)
    except ConfigError:  # options that do not go together
        return {}
    reasons = reasons_unused(config, flatten(to_plain(composed)), study=True)
    return {name: f"not used here: {reason}" for name, reason in reasons}


def _tree(settings: dict[str, Any], comments: dict[str, str], above: str = "", indent: str = "") -> list[str]:
    """The settings in YAML, each with its comment."""
    lines = []
    for name, value in settings.items():
        comment, nested = comments.get(above + name, ""), isinstance(value, dict)
        lines.append(
            _commented(f"{indent}{name}:{'' if nested else ' ' + format_value(value)}", comment, SETTING_WIDTH)
        )
        if nested:
            lines += _tree(value, comments, f"{above}{name}.", f"{indent}  ")
    return lines


def _commented(text: str, comment: str, width: int) -> str:
    return f"{text:<{width}}  # {comment}" if comment else text


def _purpose(group: str, option: str) -> str:
    """What follows the command in the first comment of an option's file."""
    path = CONF / group / f"{option}.yaml"
    heads = [line for line in _lines(path) if line.startswith("# ") and not line.startswith("# @")]
    return heads[0].removeprefix("# ").rpartition(" : ")[2] if heads else ""


def _group_comments(group: str, option: str) -> dict[str, str]:
    """The comments on the settings of a group's option, and of the files that it builds on."""
    comments: dict[str, str] = {}
    path = CONF / group / f"{option}.yaml"
    content = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
    assert isinstance(content, DictConfig)
    for base in content.get("defaults", []):
        if base == "/_budget@_here_":
            for name, text in _comments(CONF / "_schedule.yaml").items():
                comments |= {f"{group}.{schedule}.{name}": text for schedule in SCHEDULES}
            comments |= {f"{group}.{name}": text for name, text in _comments(CONF / "_budget.yaml").items()}
        elif isinstance(base, str) and base != "_self_":
            comments |= _group_comments(group, base)
    is_global = any(line.startswith("# @package _global_") for line in _lines(path))
    return comments | {name if is_global else f"{group}.{name}": text for name, text in _comments(path).items()}


def _comments(path: Path) -> dict[str, str]:
    """{dotted name: comment} of a YAML file's settings; an entry of its defaults list counts as a setting."""
    comments: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in _lines(path):
        match = LINE.match(line)
        if match is None:
            continue
        depth = len(match["indent"])
        above = [] if match["list"] else [(place, name) for place, name in above if place < depth]
        above.append((depth, match["key"]))
        if match["comment"]:
            comments[".".join(name for _, name in above)] = match["comment"]
    return comments


def _defaults() -> dict[str, str]:
    """{group: its default option}."""
    content = OmegaConf.load(CONF / "config.yaml")
    assert isinstance(content, DictConfig)
    return {
        str(group): str(option) for entry in content.defaults if entry != "_self_" for group, option in entry.items()
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
