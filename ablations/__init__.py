"""The experiments. They need Linux or macOS, for file locks and for the measurement of memory."""

import sys

if sys.platform == "win32":
    sys.exit("error: expected Linux or macOS, got Windows; run this in WSL, the Windows Subsystem for Linux")
