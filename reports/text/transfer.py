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
from reports.stats.floors import FloorCheck, floor_check
from reports.stats.paired import Estimate, Verdict
from reports.text.answers import find_verdict
from reports.text.floors import short
from reports.text.labels import NOTHING, interval, number, signed

FILE = Path(__file__).with_suffix(".toml")


@functools.cache
def contents() -> dict[str, Any]:
    """The sets of photographs and the questions, from transfer.toml."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def table(studies: dict[str, Analysis]) -> str:
    """The table as Markdown, with a column for each set of photographs that has records; "" where none has.

    studies: name -> analysis, such as `reports.web.pages.published` gives them.
    """
    sets = [entry for entry in contents()["set"] if entry["study"] in studies]
    if not sets:
        return ""
    heads = ["IoU of masks, objects of 96 px and more", "synthetic", *(entry["label"] for entry in sets)]
    lines = [_row(heads), _row([":--", "--:", *(":--" for _ in sets)])]
    for question in contents()["question"]:
        measured = [answer(studies, entry["study"], question["hypothesis"]) for entry in sets]
        lines.append(_row([question["words"], synthetic(studies, question), *measured]))
    return "\n".join(lines)


def synthetic(studies: dict[str, Analysis], question: dict[str, Any]) -> str:
    """The comparison on synthetic images, with its interval over seeds."""
    source = question["synthetic"]
    metrics = {
        verdict.hypothesis.metric
        for entry in contents()["set"]
        if (verdict := find_verdict(f"{entry['study']}/{question['hypothesis']}", studies)) is not None
    }
    if source["study"] not in studies or len(metrics) != 1:
        return NOTHING
    return _with_interval(contrast_of(studies[source["study"]].study, source["arms"], metrics.pop()))


def answer(studies: dict[str, Analysis], study: str, hypothesis: str) -> str:
    """What a set of photographs says: the difference, its intervals over seeds and over images, and what follows."""
    verdict = find_verdict(f"{study}/{hypothesis}", studies)
    if verdict is None or verdict.measured.mean is None:
        return NOTHING
    noise = studies[study].noise.get(hypothesis)
    images = "" if noise is None else f"; other images {interval(noise.low, noise.high)}"
    return f"{_with_interval(verdict.measured, images)}: **{word(verdict, noise)}**"


def word(verdict: Verdict, noise: ImageNoise | None) -> str:
    """What follows for a claim that a difference is positive."""
    if verdict.withheld:
        return "masks too close to the floor"
    if verdict.kind == "contradicted":
        return "the opposite"
    if verdict.kind != "reproduced":
        return "open"
    return "holds" if noise is not None and noise.low > verdict.hypothesis.threshold else "over seeds only"


def floors(studies: dict[str, Analysis]) -> str:
    """One sentence for each set: how far its reference arm is above masks that need no features."""
    sentences = []
    for entry in contents()["set"]:
        check = floor_check(studies[entry["study"]].study) if entry["study"] in studies else None
        if check is not None and check.reached is not None:
            sentences.append(_floor(entry["label"], check, studies[entry["study"]].study.label(check.arm)))
    return " ".join(sentences)


def _floor(label: str, check: FloorCheck, arm: str) -> str:
    verdict = "so the comparison counts" if check.passed else "so the study gives no verdicts"
    return (
        f"On {label}, masks of {arm} reach an IoU of {number(check.reached)}, "
        f"{short(check)} points above the better mask that needs no features ({check.margin:g} were asked for "
        f"beforehand), {verdict}."
    )


def _with_interval(measured: Estimate, more: str = "") -> str:
    if measured.mean is None:
        return NOTHING
    return f"{signed(measured.mean)} ({interval(measured.low, measured.high)}{more})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
