"""Does it transfer? Each question of the photo studies beside the same comparison on synthetic images.

transfer.toml lists the questions. Seeds and images are two sources of chance, and a claim holds where neither leaves
its sign open: hypotheses are judged over seeds, with a correction for their number, and the interval over images, which
is not corrected, has to lie on the claim's side as well.
"""

import functools
import tomllib
from pathlib import Path
from typing import Any

from reports.analysis import Analysis
from reports.stats.bootstrap import ImageNoise
from reports.stats.contrasts import contrast_of
from reports.stats.floors import floor_check
from reports.stats.paired import Estimate, Verdict
from reports.text.answers import find_verdict
from reports.text.floors import short
from reports.text.labels import NOTHING, interval, number, signed

FILE = Path(__file__).with_suffix(".toml")
HOLDS = "holds"


@functools.cache
def contents() -> dict[str, Any]:
    """The sets of photographs and the questions, from transfer.toml."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def sets(studies: dict[str, Analysis]) -> list[dict[str, Any]]:
    """The sets of photographs that have records."""
    return [entry for entry in contents()["set"] if entry["study"] in studies]


def table(studies: dict[str, Analysis]) -> str:
    """The table as Markdown, a column for each set of photographs that has records; "" where none has.

    studies: name -> analysis, such as `reports.web.pages.published` gives them.
    """
    columns = sets(studies)
    if not columns:
        return ""
    lines = [_row(["difference in mask IoU", "synthetic", *(entry["label"] for entry in columns)])]
    lines.append(f"|:--|--:|{'--:|' * len(columns)}")
    lines += [_row(_cells(studies, columns, question)) for question in contents()["question"]]
    return "\n".join(lines)


def _cells(studies: dict[str, Analysis], columns: list[dict[str, Any]], question: dict[str, Any]) -> list[str]:
    """The question; the difference on synthetic images; on each set of photographs."""
    verdicts = [find_verdict(f"{entry['study']}/{question['hypothesis']}", studies) for entry in columns]
    measure = next((verdict.hypothesis.metric for verdict in verdicts if verdict is not None), None)
    drawn = None if measure is None else synthetic(studies, question, measure)
    cells = [question["words"], NOTHING if drawn is None or drawn.mean is None else _with_interval(drawn)]
    for entry, verdict in zip(columns, verdicts, strict=True):
        if verdict is None or verdict.measured.mean is None:
            cells.append(NOTHING)
            continue
        noise = studies[entry["study"]].noise.get(question["hypothesis"])
        cells.append(f"{_with_interval(verdict.measured, noise)}: **{word(verdict, noise)}**")
    return cells


def synthetic(studies: dict[str, Analysis], question: dict[str, Any], metric: str) -> Estimate | None:
    """The same comparison on synthetic images; None without records of it."""
    source = question["synthetic"]
    if source["study"] not in studies:
        return None
    return contrast_of(studies[source["study"]].study, source["arms"], metric)


def share_left(studies: dict[str, Analysis], study: str) -> float | None:
    """What is left on photographs of the first question's difference: a share of that on synthetic images.

    0 where the claim does not hold; None without records.
    """
    question = contents()["question"][0]
    verdict = find_verdict(f"{study}/{question['hypothesis']}", studies)
    drawn = None if verdict is None else synthetic(studies, question, verdict.hypothesis.metric)
    if verdict is None or drawn is None or not drawn.mean or verdict.measured.mean is None:
        return None
    holds = word(verdict, studies[study].noise.get(question["hypothesis"])) == HOLDS
    return verdict.measured.mean / drawn.mean if holds else 0.0


def word(verdict: Verdict, noise: ImageNoise | None) -> str:
    """What follows for a claim that a difference is positive."""
    if verdict.withheld:
        return "no verdict"
    if verdict.kind == "contradicted":
        return "the opposite"
    if verdict.kind != "reproduced":
        return "open"
    return HOLDS if noise is not None and noise.low > verdict.hypothesis.threshold else "over seeds only"


def floors(studies: dict[str, Analysis]) -> str:
    """Sentences for each set: how far masks are above masks that need no features, at either stride."""
    return " ".join(_floor(studies[entry["study"]], entry["label"]) for entry in sets(studies))


def _floor(analysis: Analysis, label: str) -> str:
    check, study = floor_check(analysis.study), analysis.study
    if check is None or check.reached is None:
        return ""
    noise = analysis.floor_noise
    images = "" if noise is None else f"; other images would give {number(noise.low)} to {number(noise.high)}"
    told = (
        f"On {label}, masks under {study.label(check.arm)}, reach an IoU of {number(check.reached)}. That is "
        f"{short(check)} points above the better mask that needs no features, an ellipse in the box or the filled box; "
        f"{check.margin:g} were asked for beforehand{images}."
    )
    if not check.passed:
        return f"{told} So there are no verdicts."
    own = study.record.arms[check.arm].factors
    others = [
        arm
        for arm, description in study.record.arms.items()
        if arm in check.below and description.factors.get("roi") == own.get("roi")
    ]
    return told + "".join(
        f" Under {study.label(arm)}, it is {number(check.below[arm])} points: read rows of that stride with caution."
        for arm in others
    )


def _with_interval(measured: Estimate, noise: ImageNoise | None = None) -> str:
    images = "" if noise is None else f"; images {interval(noise.low, noise.high)}"
    return f"{signed(measured.mean)} ({interval(measured.low, measured.high)}{images})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
