"""What the runs were: how the arms' recorded configurations differ, and what code and machines made them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ablations.records.schema import flatten
from ablations.records.storage import UNPACKED
from reports.load import StudyResults
from reports.text.labels import and_list
from reports.text.markup import Marked, code, escape, table

PER_SEED = {"seed"}
PER_RUN = {"started", "finished"}


@dataclass(frozen=True)
class ConfigDifference:
    """Settings whose recorded value is not the same in all runs: setting -> arm -> value as text.

    declared:   those that belong to the study's factors.
    undeclared: the others; there should be none.
    same:       how many settings are equal in all runs.
    """

    declared: dict[str, dict[str, str]]
    undeclared: dict[str, dict[str, str]]
    same: int


def config_difference(study: StudyResults) -> ConfigDifference:
    """Compares the configurations that the runs recorded, apart from the seed.

    A setting belongs to a factor when the factor's name is a part of its dotted name ("roi.op" to "roi").
    """
    flat = {key: flatten(run.config) for key, run in study.runs.items()}
    settings = sorted({name for config in flat.values() for name in config} - PER_SEED)
    declared: dict[str, dict[str, str]] = {}
    undeclared: dict[str, dict[str, str]] = {}
    same = 0
    for name in settings:
        by_arm = {
            arm: _values(config.get(name, "not set") for (other, _), config in flat.items() if other == arm)
            for arm in study.record.arms
            if any(other == arm for other, _ in flat)
        }
        if len(_values(config.get(name, "not set") for config in flat.values())) == 1:
            same += 1
            continue
        factors = [factor for factor in study.record.factors if f".{factor}." in f".{name}."]
        steady = all(len(values) == 1 for values in by_arm.values())
        target = declared if factors and steady else undeclared
        target[name] = {arm: " / ".join(values) for arm, values in by_arm.items()}
    return ConfigDifference(declared, undeclared, same)


def difference_table(study: StudyResults, rows: dict[str, dict[str, str]]) -> Marked:
    """A row for each setting, a column for each arm."""
    arms = list(dict.fromkeys(arm for values in rows.values() for arm in values))
    return table(
        ["setting", *(study.label(arm) for arm in arms)],
        [[code(name), *(values[arm] for arm in arms)] for name, values in rows.items()],
    )


def warnings(study: StudyResults) -> list[Marked]:
    """What a reader must know before trusting the comparison; empty when all is as it should be."""
    sentences: list[str] = []
    budget = study.record.config.get("budget")
    if isinstance(budget, dict) and budget.get("name") == "smoke":
        sentences.append("This is a smoke test: it shows that the pipeline works, and its numbers mean nothing.")
    undeclared = config_difference(study).undeclared
    if undeclared:
        names = and_list([code(name) for name in undeclared])
        sentences.append(
            f"The runs differ in more than the declared factors: {names}. Their difference cannot be put "
            f"down to {and_list([code(name) for name in study.record.factors])} alone."
        )
    digests = _values(run.data.get("digest", "none") for run in study.runs.values())
    if len(digests) > 1:
        sentences.append(f"The runs did not use the same data: there are {len(digests)} different digests.")
    commits = _values(flatten(run.provenance).get("git.commit") for run in study.runs.values())
    if len(commits) > 1:
        names = and_list([escape(commit) for commit in commits])
        sentences.append(f"The runs used code of {len(commits)} different commits: {names}.")
    if any(flatten(run.provenance).get("git.dirty") for run in study.runs.values()):
        sentences.append("Some runs used code with uncommitted changes: the commit alone does not describe them.")
    for name, problem in sorted(study.refused.items()):
        sentences.append(f"The file {code(name)} cannot be used: {escape(problem)}. The report leaves it out.")
    return [Marked(text) for text in sentences]


def provenance_table(study: StudyResults) -> Marked:
    """Facts of the runs' provenance: one value where all runs agree, all of them where not."""
    facts: dict[str, list[Any]] = {}
    for run in study.runs.values():
        flat = {f"data.{key}": value for key, value in flatten(run.data).items()} | flatten(run.provenance)
        for name, value in flat.items():
            facts.setdefault(name, []).append(", ".join(map(str, value)) if isinstance(value, list) else value)
    rows = []
    for name, values in facts.items():
        distinct = _values(values)
        if name in PER_RUN:
            rows.append([name, f"{min(distinct)} to {max(distinct)}" if len(distinct) > 1 else distinct[0]])
        else:
            rows.append([name, "; ".join(distinct) if len(distinct) <= 4 else f"{len(distinct)} different values"])
    return table(["fact", "value"], rows, left=2)


def stage_table(study: StudyResults) -> Marked:
    """Shared stages by key, with the arms that depend on each."""
    users: dict[tuple[str, str], dict[str, list[int]]] = {}
    for (arm, seed), run in study.runs.items():
        for stage, key in run.stages.items():
            users.setdefault((stage, key), {}).setdefault(arm, []).append(seed)
    rows = []
    for (stage, key), arms in users.items():
        seeds = sorted({seed for used in arms.values() for seed in used})
        rows.append(
            [stage, code(key), "; ".join(study.label(arm) for arm in arms), ", ".join(str(seed) for seed in seeds)]
        )
    return table(["stage", "key", "arms", "seeds"], rows, left=4)


def reused(study: StudyResults) -> list[Marked]:
    """A sentence for each arm whose runs another study had made already: the same settings, the same files."""
    origins: dict[tuple[str, str], list[int]] = {}
    for (arm, seed), run in study.runs.items():
        if run.taken_from:
            origins.setdefault((arm, run.taken_from), []).append(seed)
    return [
        Marked(
            f"{escape(study.label(arm))}: reused from {code(origin)}, which has the same settings "
            f"(seeds {and_list([str(seed) for seed in sorted(seeds)])})."
        )
        for (arm, origin), seeds in origins.items()
    ]


def unchecked(study: StudyResults) -> list[Marked]:
    """A sentence on the runs whose values come from an archive, and one on those without a digest."""
    unpacked = sum((study.run_folder(*key) / UNPACKED).exists() for key in study.runs)
    without = sum(not run.digest for run in study.runs.values())
    sentences = {
        "were unpacked from an archive; their values are unverified: they come from whoever packed it": unpacked,
        "have a record without a digest, as older versions wrote it: damage to its values would go unnoticed": without,
    }
    return [Marked(f"{count} of {len(study.runs)} runs {text}.") for text, count in sentences.items() if count]


def shared_by_seeds(study: StudyResults) -> list[str]:
    """The stages that all seeds of an arm share: what the spread over seeds does not contain."""
    keys: dict[str, dict[str, set[str]]] = {}
    for (arm, _), run in study.runs.items():
        for stage, key in run.stages.items():
            keys.setdefault(stage, {}).setdefault(arm, set()).add(key)
    return [stage for stage, arms in keys.items() if all(len(arm_keys) == 1 for arm_keys in arms.values())]


def _values(values: Iterable[Any]) -> tuple[str, ...]:
    """The distinct values as text, in order of appearance."""
    return tuple(dict.fromkeys(str(value) for value in values))
