"""What a command prints when a study is done: its verdicts, and what to try next. Plain ASCII: for any terminal."""

import tomllib
from pathlib import Path

from reports.analysis import Analysis
from reports.load import find_studies
from reports.stats.paired import Verdict
from reports.text import commands
from reports.text.wording import cautions


def verdict_lines(analysis: Analysis) -> list[str]:
    """Why they may not be trusted, if there is a reason; and for each hypothesis a line: the verdict, the difference
    with the interval that decides, and the claim."""
    rows = [(verdict.kind, _measured(verdict), _claim(verdict)) for verdict in analysis.verdicts]
    first, second = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    lines = [f"  {kind:{first}}  {measured:{second}}  {claim}" for kind, measured, claim in rows]
    return [f"  caution: {_ascii(text)}" for text in cautions(analysis)] + lines


def _measured(verdict: Verdict) -> str:
    measured = verdict.measured
    interval = measured.interval(verdict.level)
    if measured.mean is None:
        return "no complete seed"
    if interval is None:
        return f"{measured.mean:+.1f} (one seed)"
    return f"{measured.mean:+.1f} ({interval[0]:+.1f} to {interval[1]:+.1f})"


def _claim(verdict: Verdict) -> str:
    hypothesis = verdict.hypothesis
    threshold = f" (threshold {hypothesis.threshold:g})" if hypothesis.threshold else ""
    return _ascii(hypothesis.claim.rstrip(".") + threshold)


def _ascii(text: str) -> str:
    """One line of ASCII."""
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii")


def next_to_try(outputs: Path) -> str:
    """The first study without records, beginning with those of slide 5; then what shows them all."""
    from reports.claims import CLAIMS  # takes matplotlib, which verdicts do not need

    claims = tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]
    claims.sort(key=lambda claim: (claim["slide"] < 5, claim["slide"]))
    roles = ("decides", "against", "beside")
    asked = [name for role in roles for claim in claims for name in claim.get(role, [])]
    names = dict.fromkeys(name.partition("/")[0] for name in asked)
    done = find_studies(outputs)
    for name in names:
        if name not in done:
            command, about = commands.start_of(name)
            return f"next: {command}{f' : {about}' if about else ''}"
    return "next: `python -m reports.claims` compares all studies with the slides"
