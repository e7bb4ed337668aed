"""What is printed at the end of a study: its verdicts, and what to try next."""

import re
import subprocess
import sys

import pytest

from ablations.execution.report import report_command, verdict_text
from ablations.records.storage import save
from reports.__main__ import main
from reports.analysis import analyse
from reports.claims import CLAIMS
from reports.ending import next_to_try, verdict_lines
from reports.load import read_study
from tests.damage import edit_record
from tests.reports.conftest import study_record, write_study


def test_each_verdict_has_a_line_that_any_terminal_can_show(outputs):
    analysis = analyse(read_study(outputs, "roialign"), resamples=0)
    lines = verdict_lines(analysis)
    assert len(lines) == len(analysis.verdicts)
    for line, verdict in zip(lines, analysis.verdicts, strict=True):
        assert line.split("  ")[1].strip() == verdict.kind
        assert f"{verdict.estimate.mean:+.1f} (" in line and line.isascii()


def test_without_runs_there_is_no_verdict(tmp_path):
    save(study_record(), tmp_path / "roialign" / "study.json")
    assert all("no verdict" in line for line in verdict_lines(analyse(read_study(tmp_path, "roialign"), resamples=0)))


def test_a_smoke_test_says_so_before_its_verdicts(tmp_path):
    path = write_study(tmp_path) / "study.json"
    edit_record(path, lambda record: record["config"].update(budget={"name": "smoke"}))
    first, *_ = verdict_lines(analyse(read_study(tmp_path, "roialign"), resamples=0))
    assert first.startswith("  caution: This is a smoke test")


def test_the_next_study_is_one_that_was_not_run(outputs, tmp_path):
    assert next_to_try(tmp_path).startswith("next: python run.py study=roialign : ")
    assert next_to_try(outputs).startswith("next: python run.py study=roiops : ")
    for name in sorted(set(re.findall(r'"(\w+)/', CLAIMS.read_text()))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").touch()
    assert "python -m reports.claims" in next_to_try(tmp_path)


@pytest.mark.slow
def test_the_report_command_prints_where_the_page_is_and_what_is_next(outputs, tmp_path, capsys):
    assert main(["roialign", "--outputs", str(outputs), "--out", str(tmp_path), "--resamples", "0"]) == 0
    told = capsys.readouterr().out
    assert f"open {tmp_path / 'roialign' / 'report.html'}" in told and "next: " in told


@pytest.mark.slow
def test_a_study_ends_with_the_verdicts_and_a_command_that_works_from_any_folder(outputs, tmp_path, monkeypatch):
    assert verdict_text(outputs / "roialign").startswith("verdicts of roialign:\n  reproduced")
    assert "expected the record of study" in verdict_text(tmp_path / "nothing")
    monkeypatch.chdir(tmp_path)
    command = report_command(outputs / "roialign")
    done = subprocess.run(f"{command} --verdicts", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "verdicts of roialign" in done.stdout, done.stderr


@pytest.mark.slow
def test_verdicts_need_no_figures():
    code = "import sys, reports.__main__; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
