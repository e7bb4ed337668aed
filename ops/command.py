"""How this package's commands end: where a file or their output cannot be written, in a sentence."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_command(main: Callable[[], object]) -> NoReturn:
    """End this process: with 0 after main(), or with 1 and a sentence if the operating system refuses something."""
    if sys.stdout is None:
        sys.exit("error: standard output: expected it open, got it closed; redirect it to /dev/null for silence")
    try:
        try:
            main()
        finally:  # argparse ends the process itself after --help
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try to write the rest once more when it exits
        sys.exit(f"error: {error}")
    sys.exit(0)
