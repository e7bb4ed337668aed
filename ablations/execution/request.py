"""What a command line asks for, validated but not begun."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from ablations.config.loading import resolve_precision
from ablations.config.study import Run, Study


@dataclass(frozen=True)
class Request:
    """What a command line asks for, or one of the many that a sweep stands for. study is None for a single run."""

    runs: list[Run]
    study: Study | None = None

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return self.runs[0].folder if self.study is None else self.runs[0].folder.parent.parent

    def resolve_precision(self) -> "Request":
        """The same for this machine: see loading.resolve_precision."""
        runs = [dataclasses.replace(run, config=resolve_precision(run.config)) for run in self.runs]
        return dataclasses.replace(self, runs=runs)


def refuse(error: Exception) -> int:
    """Prints what is wrong with a request, a line for each mistake; returns the exit code for it."""
    print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    return 2
