"""Sentences with measured values in them, for the slides: they are filled from the records, and hold whatever came out.

{study/hypothesis}       a hypothesis's measured value
{study/arm/metric}       the mean of a metric over an arm's seeds
{size of PLACE}          the value without its sign
{sign of PLACE: A | B}   the words A where the value is 0 or more, else B
"""

import re

from reports.analysis import Analysis
from reports.stats.paired import Verdict
from reports.text.labels import NOTHING, number
from reports.text.markup import Marked, escape

PLACE = re.compile(r"{(?:(size|sign) of )?([\w./@-]+)(?:: ([^|}]*) \| ([^|}]*))?}")


def find_verdict(place: str, studies: dict[str, Analysis]) -> Verdict | None:
    """The verdict on a hypothesis, "study/name"; None where there are no records of it."""
    study, _, hypothesis = place.partition("/")
    verdicts = studies[study].verdicts if study in studies else []
    return next((verdict for verdict in verdicts if verdict.hypothesis.name == hypothesis), None)


def value(place: str, studies: dict[str, Analysis]) -> float | None:
    """What was measured at a place, "study/hypothesis" or "study/arm/metric"; None where nothing was."""
    if place.count("/") == 1:
        verdict = find_verdict(place, studies)
        return None if verdict is None else verdict.measured.mean
    study, arm, metric = place.split("/")
    return studies[study].study.mean(arm, metric) if study in studies else None


def fill(text: str, studies: dict[str, Analysis]) -> Marked:
    """`text` with the measured values put in; "" where none of them was measured."""
    values = {match[2]: value(match[2], studies) for match in PLACE.finditer(text)}
    if all(measured is None for measured in values.values()):
        return Marked("")

    def put(match: re.Match[str]) -> str:
        kind, measured = match[1], values[match[2]]
        if measured is None:
            return NOTHING
        if kind == "sign":
            return str(escape(match[3] if measured >= 0 else match[4]))
        return f"**{number(abs(measured) if kind == 'size' else measured)}**"

    return Marked(PLACE.sub(put, text))
