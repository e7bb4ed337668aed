"""Where a record comes from: code, versions, machine, time."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
from datetime import UTC, datetime
from typing import Any

from ablations.machine import hardware
from ablations.paths import ROOT
from ablations.records.code_version import code_version

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "hydra-core")


def provenance(started: datetime) -> dict[str, Any]:
    """The provenance of work that began at `started` and ends now, as plain data."""
    return {
        "git": git_state(),
        "code": code_version(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": hardware(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state() -> dict[str, Any]:
    """The commit, and whether the working tree differs from it; None outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def git_summary() -> str:
    """The state in words, with the reason if git tells none."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"commit {commit[:10]}" + (" with changes" if _git("status", "--porcelain") else "")
    except OSError:
        return "no git"
    except subprocess.CalledProcessError as error:
        if "not a git repository" in error.stderr:
            return "no git"
        if "dubious ownership" in error.stderr:
            return (
                "commit unknown: git refuses a folder that belongs to another user; to trust it, "
                f"git config --global --add safe.directory {shlex.quote(str(ROOT))}"
            )
        reason = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[0]
        return f"commit unknown: git says {reason}"


def _git(*arguments: str) -> str:
    """Raises OSError without git, and subprocess.CalledProcessError, with what it says in English, where it fails."""
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, errors="replace", check=True, env=english
    )
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
