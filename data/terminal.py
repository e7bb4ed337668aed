"""A command's standard output: what it cannot encode is escaped; where it is lost, the command ends in a sentence.

A name that a terminal cannot show, a closed pipe (`| head`) or a full disk behind the output says nothing about data or
runs, so none of them may surface as an error of theirs.
"""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn


class OutputLost(Exception):
    """Nothing more can be printed. The message says why."""


class Output(io.TextIOWrapper):
    """Standard output, line by line. Raises OutputLost where it cannot be written."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error.strerror or str(error)) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error.strerror or str(error)) from error


class Errors(Output):
    """Standard error, line by line. Where it cannot be written there is nobody to tell, and the work goes on."""

    def write(self, text: str) -> int:
        with suppress(OutputLost):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OutputLost):
            super().flush()


def prepare_output() -> None:
    """Replaces this process's standard output and standard error by those above; what is closed becomes /dev/null.

    /dev/null, or the next file that is opened would take its place and get what libraries print.
    """
    for name, number, kind in (("stdout", 1, Output), ("stderr", 2, Errors)):
        stream = getattr(sys, name)
        if stream is None:
            _redirect_to_null(number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        elif isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding
            setattr(sys, name, kind(stream.buffer, encoding, errors="backslashreplace", line_buffering=True))


def run_command(main: Callable[[], object]) -> NoReturn:
    """Ends this process with the exit code of main(), or with 1 and a sentence if what it prints cannot be written."""
    closed = sys.stdout is None
    code: Any
    prepare_output()
    if closed:
        sys.exit("error: standard output: expected it open, got it closed; redirect it to /dev/null for silence")
    try:
        try:
            code = main()
        except SystemExit as ended:  # as argparse ends commands
            code = ended.code
        sys.stdout.flush()
    except OutputLost as lost:
        code = 1
        _redirect_to_null(1)  # or Python would try again to write what is left, when it exits
        print(
            f"error: standard output cannot be written ({lost}); what is finished is kept: run the same command again",
            file=sys.stderr,
        )
    sys.exit(code)


def _redirect_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
