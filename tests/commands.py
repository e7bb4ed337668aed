"""Commands as a user gives them, without a process for each."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout


def command(
    main: Callable[[list[str]], object], arguments: list[str], encoding: str = "ascii"
) -> tuple[object, str, str]:
    """(exit code, standard output, standard error) of main(arguments) on a terminal with this encoding.

    What it raises besides SystemExit would be a traceback to the user, and is one to the test.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace") for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code
            if isinstance(code, str):  # as sys.exit prints it
                print(code, file=streams[1])
                code = 1
    written = []
    for stream in streams:
        stream.flush()
        written.append(stream.buffer.getvalue().decode(encoding))
    return code, *written
