"""Reports need records alone."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_reports_need_neither_torch_nor_hydra():
    code = "import sys, reports.__main__, reports.gallery; print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
