"""What is wrong with an entry of an annotation file, why it probably is, and what training does about it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from unicodedata import category

CONTROLS = {"Cc", "Zl", "Zp"}
"""Categories of Unicode: control characters, and separators of lines and paragraphs."""


class Fault(NamedTuple):
    """What is wrong, what is done about it, and what the likely reason is ("" where there is nothing to say)."""

    text: str
    rule: str
    reason: str = ""


@dataclass(frozen=True)
class Problem:
    """A fault of an entry: what the entry is ("image", "annotation", "category" or "file") and its id in the file."""

    entry: str
    id: Any
    text: str
    rule: str
    reason: str = ""

    @classmethod
    def of(cls, entry: str, key: Any, fault: Fault) -> "Problem":
        return cls(entry, key, *fault)

    def __str__(self) -> str:
        reason = f"; {self.reason}" if self.reason else ""
        return _in_a_line(f"{self.entry} {self.id}: {self.text}{reason} ({self.rule})")


def _in_a_line(text: str) -> str:
    """The text with control characters escaped, which names in files may hold: they break lines and steer terminals."""
    return "".join(repr(letter)[1:-1] if category(letter) in CONTROLS else letter for letter in text)


def counts(problems: Iterable[Problem]) -> Counter[str]:
    """To how many entries each rule was applied: "annotation skipped" -> 3."""
    return Counter(f"{problem.entry} {problem.rule}" for problem in problems)


def summary(problems: list[Problem]) -> str:
    """The counts and the most frequent reasons in a line; "" without any problem."""
    rules = ", ".join(f"{count} x {rule}" for rule, count in sorted(counts(problems).items()))
    reasons = Counter(problem.reason for problem in problems if problem.reason)
    return rules + "".join(f"; {count} x {reason}" for reason, count in reasons.most_common(3))
