"""The verdicts and the command for the report that a study ends with."""

from pathlib import Path

import pytest

from ablations.execution.report import report_command, verdict_text
from ablations.paths import ROOT


def test_the_report_command_names_the_outputs_where_they_are_not_the_default(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert report_command(Path("outputs/roialign")).endswith("-m reports roialign")
    assert report_command(Path("outputs/smoke/roialign")).endswith("-m reports roialign --outputs outputs/smoke")


@pytest.mark.slow
def test_the_encoding_of_the_terminal_does_not_lose_the_verdicts(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    assert str(tmp_path / "w\u00e4hlen") in verdict_text(tmp_path / "w\u00e4hlen" / "roialign")
