"""Places in the project's own files: the line that decides something, found by its text."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Line:
    """A line of a file. path: from the project's folder; number: from 1 on."""

    path: str
    number: int

    @property
    def where(self) -> str:
        """ "path:number"."""
        return f"{self.path}:{self.number}"

    @property
    def text(self) -> str:
        return lines_of(self.path)[self.number - 1].strip()


@cache
def lines_of(path: str) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


def find_line(path: str, text: str) -> Line:
    """The line of a file that contains a text. Raises ValueError unless it is exactly one."""
    numbers = [number for number, line in enumerate(lines_of(path), 1) if text in line]
    if len(numbers) != 1:
        raise ValueError(f"{path}: expected one line with {text!r}, got {len(numbers)}; correct reports/claims.toml")
    return Line(path, numbers[0])
