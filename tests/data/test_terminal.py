"""Commands whose output cannot be encoded or written: escaped, or one sentence and an exit code that is not 0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import logging, sys
from data.terminal import run_command

def main():
    for _ in range(3):
        print("a folder named \\u00fc \\udcff", end=sys.argv[1])
    print("told", file=sys.stderr)
    return 3

run_command(main)
"""


def command(*arguments, script=SCRIPT, redirect="", **environment):
    """What a shell makes of the script's output: (exit code, standard output, standard error)."""
    line = " ".join(["exec", '"$0"', "-c", '"$1"', '"$2"', redirect])
    return subprocess.run(
        ["bash", "-c", line, sys.executable, script, *(arguments or ("\n",))],
        cwd=ROOT,
        capture_output=True,
        encoding="latin-1",
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {},
    ],
)
def test_what_cannot_be_encoded_is_escaped(environment):
    done = command(**environment)
    assert done.returncode == 3 and done.stdout.count("\\udcff") == 3 and done.stderr == "told\n"


@pytest.mark.parametrize("end", ["\n", " "], ids=["lines", "nothing but the last flush"])
@pytest.mark.parametrize(
    ("redirect", "reason"),
    [
        (">/dev/full", "No space left on device"),
        (">&-", "expected it open, got it closed"),
    ],
)
def test_a_lost_output_is_one_sentence_and_not_a_success(end, redirect, reason):
    done = command(end, redirect=redirect)
    assert done.returncode == 1 and reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_reader_that_has_read_enough():
    """As `| head -1`, with more lines than a pipe holds."""
    script = SCRIPT.replace("range(3)", "range(20000)")
    line = '"$0" -c "$1" "$2" | head -1; echo ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", line, sys.executable, script, "\n"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1"
    assert done.stderr.count("\n") == 1 and "cannot be written (Broken pipe)" in done.stderr


def test_a_lost_standard_error_does_not_stop_the_work():
    done = command(redirect="2>/dev/full")
    assert done.returncode == 3 and done.stdout.count("\n") == 3
    done = command(redirect="2>&-")
    assert done.returncode == 3 and done.stdout.count("\n") == 3


def entrances():
    """Every module and script of the project that does something when it is run."""
    folders = ("ablations", "data", "models", "ops", "reports", "tools")
    files = [ROOT / "run.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return [path for path in files if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8")]


def test_every_entrance_ends_in_this_way():
    paths = entrances()
    assert len(paths) > 20
    for path in paths:
        last = path.read_text(encoding="utf-8").splitlines()[-1]
        assert last.startswith("    run_command("), path.relative_to(ROOT)
