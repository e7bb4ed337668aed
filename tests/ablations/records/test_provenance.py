"""What a record says of the code that made it."""

import os

import pytest

from ablations.records import provenance
from ablations.records.provenance import git_state, git_summary


@pytest.fixture
def git(tmp_path, monkeypatch):
    """git(script): the command `git` does this from now on."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def replace(script):
        (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "git").chmod(0o755)

    return replace


def test_a_commit_with_and_without_changes(git):
    git('[ "$1" = status ] || echo 0123456789abcdef')
    assert git_summary() == "commit 0123456789" and git_state() == {"commit": "0123456789abcdef", "dirty": False}
    git('[ "$1" = status ] && echo " M run.py" || echo 0123456789abcdef')
    assert git_summary() == "commit 0123456789 with changes" and git_state()["dirty"] is True


def test_git_that_refuses_a_folder_of_another_user_is_not_called_no_git(git):
    git("echo \"fatal: detected dubious ownership in repository at '/x'\" >&2; exit 128")
    assert "belongs to another user" in git_summary() and f"safe.directory {provenance.ROOT}" in git_summary()
    assert git_state() == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('echo "fatal: not a git repository (or any of the parent directories): .git" >&2; exit 128', "no git"),
        ('echo "fatal: bad object HEAD" >&2; exit 128', "commit unknown: git says fatal: bad object HEAD"),
        ("exit 3", "commit unknown: git says exit code 3"),
    ],
)
def test_other_reasons(git, script, expected):
    git(script)
    assert git_summary() == expected


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_summary() == "no git" and git_state() == {"commit": None, "dirty": None}
