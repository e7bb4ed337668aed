"""What can be known of the Triton kernels on a machine without a GPU: their results and their machine code."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="test_triton.py runs on the GPU itself")
def test_results_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-rs", "-x", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(
        [*command, "-o", "pythonpath=.", str(HERE / "test_triton.py")],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "SKIPPED" not in done.stdout


@pytest.mark.parametrize("arch", [80, 90])
def test_machine_code(arch, tmp_path):
    # In a process of its own: in this one triton may have been imported for another purpose.
    done = subprocess.run(
        [sys.executable, str(HERE / "compile_ahead.py"), str(arch)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
