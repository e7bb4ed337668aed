"""What can be known of the Triton kernels on a machine without a GPU: their results and their machine code."""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]
HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def interpreter_works() -> bool:
    """Triton's interpreter up to 3.6 turns arrays of one element into numbers, which NumPy 2.4 no longer does."""
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    return triton > (3, 6) or numpy < (2, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="these files run on the GPU themselves")
def test_results_in_the_interpreter():
    if not interpreter_works():
        pytest.skip("this triton's interpreter needs numpy < 2.4")
    command = [sys.executable, "-m", "pytest", "-rs", "-x", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(
        [
            *command,
            "-o",
            "pythonpath=.",
            "-k",
            "triton",
            HERE / "test_kernels.py",
            ROOT / "tests/models/test_backends.py",
        ],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "SKIPPED" not in done.stdout


def test_machine_code(tmp_path):
    # In a process of its own: in this one triton may have been imported for another purpose.
    done = subprocess.run(
        [sys.executable, str(HERE / "compile_ahead.py"), "80", "90"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
