"""Has a study's report written in another process: `reports` reads records, and must not import what made them."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


class ReportError(RuntimeError):
    """A report that could not be written."""


def write_report(study: Path, folder: Path) -> None:
    """Writes the report of the study in folder `study` to `folder`. Raises ReportError."""
    command = [sys.executable, "-m", "reports", study.name, "--outputs", str(study.parent.absolute()), "--out"]
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([*command, out], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise ReportError(f"the report could not be written: {done.stderr.strip()}")
        shutil.copytree(Path(out) / study.name, folder, dirs_exist_ok=True)
