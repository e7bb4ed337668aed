"""Commands whose output cannot be written end in a sentence, without help from the rest of the project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "from ops.command import run_command; run_command(lambda: [print(number) for number in range({count})])"


@pytest.fixture
def closed_pipe():
    """A pipe that nobody reads, as behind `| true`."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def ends_in_a_sentence(arguments, reason, redirect="", output=subprocess.PIPE):
    line = f'exec "$0" "$@" {redirect}'
    command = ["bash", "-c", line, sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and reason in done.stderr


@pytest.mark.parametrize("count", [1, 20000], ids=["a last flush", "more than a buffer holds"])
def test_a_lost_output_is_one_sentence_and_not_a_success(count, closed_pipe):
    script = ["-c", SCRIPT.format(count=count)]
    ends_in_a_sentence(script, "Broken pipe", output=closed_pipe)
    ends_in_a_sentence(script, "No space left on device", "> /dev/full")
    ends_in_a_sentence(script, "expected it open, got it closed", ">&-")


def test_an_exit_code_is_kept():
    script = "import sys; from ops.command import run_command; run_command(lambda: sys.exit(3))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 3


@pytest.mark.slow
def test_the_commands_of_the_package_end_so(closed_pipe):
    ends_in_a_sentence(["-m", "ops"], "Broken pipe", output=closed_pipe)
    ends_in_a_sentence(["-m", "ops.bench.report", "nothing"], "nothing/record.json")
