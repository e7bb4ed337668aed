"""Writes a study's report in a separate process: `reports` reads records, and must not import what made them."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ablations.paths import ROOT


class ReportError(RuntimeError):
    """A report that could not be written."""


def write_report(study: Path, folder: Path) -> None:
    """Writes the report of the study in folder `study` to `folder`. Raises ReportError."""
    command = [sys.executable, "-m", "reports", study.name, "--outputs", str(study.parent.absolute()), "--out"]
    with tempfile.TemporaryDirectory() as out:
        done = _run([*command, out])
        if done.returncode:
            raise ReportError(f"the report could not be written: {done.stderr.strip()}")
        shutil.copytree(Path(out) / study.name, folder, dirs_exist_ok=True)


def verdict_text(study: Path) -> str:
    """What the records of the study in folder `study` say of each hypothesis, a line for each, or why that failed."""
    command = [sys.executable, "-m", "reports", study.name, "--outputs", str(study.parent.absolute()), "--verdicts"]
    done = _run(command)
    return (done.stderr if done.returncode else done.stdout).rstrip()


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m reports`, which is to speak UTF-8 whatever the encoding of the terminal is."""
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:backslashreplace"}
    return subprocess.run([*command], cwd=ROOT, capture_output=True, encoding="utf-8", env=environment)


def report_command(study: Path) -> str:
    """The command that writes the report of the study in folder `study`, for the folder that the user is in."""
    command = ["python" if shutil.which("python") == sys.executable else sys.executable, "-m", "reports", study.name]
    if Path.cwd() == ROOT:
        is_default = study.parent.absolute() == ROOT / "outputs"
        return shlex.join(command + ([] if is_default else ["--outputs", str(study.parent)]))
    return f"cd {shlex.quote(str(ROOT))} && {shlex.join([*command, '--outputs', str(study.parent.absolute())])}"
