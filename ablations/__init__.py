"""What a user runs, on Linux or macOS: file locks and the accounting of memory are theirs."""

import sys

if sys.platform == "win32":
    sys.exit("error: expected Linux or macOS, got Windows; run this in WSL, the Windows Subsystem for Linux")
