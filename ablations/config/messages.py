"""What is wrong with a setting, as one line: its name, what was expected, what came, and what to do."""

import difflib
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ablations.config.schema import EXECUTION_SETTINGS
from ablations.paths import CONF

HELP = "python run.py --help lists the settings"

SYNONYMS = {
    "batch_size": "images_per_step",
    "learning_rate": "lr",
    "epochs": "steps",
    "iterations": "steps",
    "max_iter": "steps",
}
"""Other programs' names of settings, and ours."""

KINDS = {
    "boolean": "true or false",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "object": "a group of settings",
    "null": "null",
}
LIMITS = {
    "minimum": "{:.12g} or more",
    "exclusiveMinimum": "more than {:.12g}",
    "maximum": "at most {:.12g}",
    "exclusiveMaximum": "less than {:.12g}",
    "multipleOf": "a multiple of {}",
    "minLength": "{} or more characters",
    "minProperties": "with {} or more entries",
}
"""A JSON schema's words in ours."""

Schema = dict[str, Any]
"""A JSON schema, or a part of one, as pydantic derives it from a dataclass: it knows each field's type and limits."""


def check(kind: Any, values: Any, name: str = "") -> tuple[Any, list[str]]:
    """An instance of `kind` (a dataclass, or the annotation of a field) from plain values, or else all mistakes.

    name: the setting that the values are of; "" for all of them. The types are those that were written: true is not 1.
    """
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_json(json.dumps(values, default=str), strict=True), []
    except ValidationError as error:
        schema = adapter.json_schema()
        return None, list(dict.fromkeys(_line(problem, schema, name, values) for problem in error.errors()))


def describe_mismatch(expected: str, got: object) -> str:
    """expected: what would be right; a reason may follow behind a colon."""
    what, colon, reason = expected.partition(": ")
    return f"expected {what}, got {format_value(got)}{colon}{reason}"


def format_value(value: object) -> str:
    """A value as it is written on the command line; of a group, all that it sets."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={format_value(entry)}" for key, entry in value.items()) or "{}"
    if isinstance(value, str):
        return value if value.strip() == value != "" else repr(value)
    return json.dumps(value, default=repr, ensure_ascii=False)


def no_such(name: str, known: Iterable[str], useful: Iterable[str] | None = None) -> str:
    """known: the settings that there are; useful: those of them to suggest (all)."""
    names = list(known)
    others = {} if any(_last(name) == _last(other) for other in names) else settings_elsewhere(_last(name))
    if others:
        options = " or ".join(f"{setting} with {' or '.join(options)}" for setting, options in others.items())
        return f"{name}: no such setting here; there is {options}"
    return f"{name}: no such setting; {suggestion(name, names if useful is None else useful) or HELP}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """ "did you mean ...?" with the names that end alike (lr: budget.train.lr), or nearly so; "" if none does."""
    last = {other: _last(other) for other in known}
    typed = _last(name)
    close = difflib.get_close_matches(SYNONYMS.get(typed, typed), last.values(), n=1, cutoff=0.65)
    # First what most people mean: the settings of budget.train.
    alike = sorted((other for other in last if last[other] in close), key=lambda other: "train" not in other)
    return f"did you mean {' or '.join(alike[:3])}?" if alike else ""


def settings_elsewhere(name: str) -> dict[str, list[str]]:
    """{setting: the options, "data=coco", whose files have it} of the settings of this name in any option's file."""
    settings: dict[str, list[str]] = {}
    for path in sorted(CONF.glob("*/*.yaml")):
        group = path.parent.name
        if group != "study" and name in _settings_in(path):
            settings.setdefault(f"{group}.{name}", []).append(f"{group}={path.stem}")
    return settings


def _settings_in(path: Path) -> set[str]:
    """The names of the settings in an option's file and in those of the options that it builds on."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return set()
    bases = [path.parent / f"{base}.yaml" for base in content.get("defaults", [])]
    return set(content).union(*(_settings_in(base) for base in bases if base.is_file()))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _line(problem: Any, schema: Schema, name: str, values: Any) -> str:
    place, part = _find(problem["loc"], schema, name)
    if problem["type"] == "missing":
        return f"{place}: missing; expected {_words(part, schema)}"
    if problem["type"] == "unexpected_keyword_argument":
        above, parent = _find(problem["loc"][:-1], schema, name)
        prefix = f"{above}." if above else ""
        return no_such(place, [prefix + field for field in parent.get("properties", {})])
    if problem["type"] == "json_invalid":
        return f"{place}: expected text in Unicode, got {values!r}"
    if problem["type"].startswith("union_tag"):
        key = part["discriminator"]["propertyName"]
        got = problem["input"].get(key) if isinstance(problem["input"], dict) else problem["input"]
        return f"{place}.{key}: {describe_mismatch('one of ' + ', '.join(part['discriminator']['mapping']), got)}"
    line = f"{place}: {describe_mismatch(_words(part, schema), problem['input'])}"
    is_swept = "[" not in place and place.partition(".")[0] not in EXECUTION_SETTINGS
    if isinstance(problem["input"], list) and problem["input"] and is_swept:
        each = f"{place}={','.join(map(format_value, problem['input']))}"
        return f"{line}; for a run with each, python run.py -m {shlex.quote(each)}"
    if isinstance(problem["input"], str):
        close = difflib.get_close_matches(problem["input"], [str(option) for option in _options(part)], n=1)
        return f"{line}; did you mean {close[0]}?" if close else line
    return line


def _find(path: tuple[int | str, ...], schema: Schema, name: str) -> tuple[str, Schema]:
    """The dotted name of a setting and its schema: pydantic's path also names the kinds that it chose in unions."""
    part = _resolved(schema, schema)
    for step in path:
        kinds = part.get("discriminator", {}).get("mapping", {})
        if step in kinds:
            part = _resolved({"$ref": kinds[step]}, schema)
            continue
        if "anyOf" in part:
            groups = [kind for kind in (_resolved(kind, schema) for kind in part["anyOf"]) if "properties" in kind]
            if not groups:
                continue
            part = groups[0]  # a group of settings, or null
        name = f"{name}[{step}]" if isinstance(step, int) else f"{name}.{step}" if name else step
        entries = part.get("items", {}) if isinstance(step, int) else part.get("additionalProperties", {})
        part = _resolved(part.get("properties", {}).get(step, entries), schema)
    return name, part


def _resolved(part: Any, schema: Schema) -> Schema:
    """The part itself, where it stands for a definition elsewhere or for the one alternative to null."""
    if not isinstance(part, dict):
        return {}
    while "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return part


def _options(part: Schema) -> list[Any]:
    return part.get("enum", [part["const"]] if "const" in part else [])


def _words(part: Schema, schema: Schema) -> str:
    """What a schema allows: "a whole number, 1 or more, or null"."""
    part = _resolved(part, schema)
    if "anyOf" in part:
        return ", or ".join(_words(kind, schema) for kind in part["anyOf"])
    if options := _options(part):
        return ("one of " if len(options) > 1 else "") + ", ".join(map(format_value, options))
    if part.get("type") == "array":
        least, most = part.get("minItems", 0), part.get("maxItems")
        count = f"{least} " if least == most else f"{least} or more " if least else ""
        entries = _words(part.get("items", {}), schema).removeprefix("a ")
        return f"a list of {count}{entries.replace('number', 'numbers', 1)}"
    kind = KINDS.get(str(part.get("type")), "something else")
    limits = " and ".join(text.format(part[limit]) for limit, text in LIMITS.items() if limit in part)
    return f"{kind}, {limits}" if limits else kind
