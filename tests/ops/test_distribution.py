"""`pip install ./ops`: the folder as a distribution of its own, with torch as its only dependency."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OPS = Path(__file__).parents[2] / "ops"

USE = """
import importlib.metadata
import sys

for name in ("torchvision", "matplotlib", "scipy", "pandas", "pydantic", "omegaconf", "ops"):
    sys.modules[name] = None  # as if it were not installed

import torch
from roi_ops.backends import Need, choose
from roi_ops.cpu import compiled
from roi_ops.multi_scale import MultiScaleRoIAlign, MultiScaleRoIPool
from roi_ops.ps_roi import ps_roi_pool
from roi_ops.registration import device_refusal
from roi_ops.roi_align import roi_align
from roi_ops.roi_pool import roi_pool

feature, boxes = torch.arange(64.0).view(1, 4, 4, 4).requires_grad_(), [torch.tensor([[0.0, 0.0, 2.0, 2.0]])]
for backend in ("auto", "pytorch", "reference"):
    assert roi_align(feature, boxes, 1, sampling_ratio=2, backend=backend)[0, 0].item() == 5
    roi_pool(feature, boxes, 2, backend=backend).sum().backward()
ps_roi_pool(feature, boxes, 2, 2)
for module in (MultiScaleRoIAlign(["0"], 2, 2), MultiScaleRoIPool(["0"], 2)):
    assert module({"0": feature}, boxes, [(4, 4)]).shape == (1, 4, 2, 2)
assert device_refusal("cpu") == "torchvision is not installed"
assert [line.split(";")[0] for line in importlib.metadata.requires("roi-ops") if "extra" not in line] == ["torch>=2.11"]
print(compiled.__file__, choose(Need("roi_align", torch.device("cpu"), torch.float32)))
"""

INSTALL = """
import torch
import torchvision
from roi_ops.registration import install

install()
print(torchvision.ops.roi_align(torch.ones(1, 1, 4, 4).bfloat16(), torch.zeros(1, 5).bfloat16(), 1).item())
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Path:
    """A folder with the distribution and nothing else."""
    folder = tmp_path_factory.mktemp("distribution")
    shutil.copytree(OPS, folder / "ops", ignore=shutil.ignore_patterns("__pycache__", ".build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-index", "--no-deps"]
    subprocess.run(
        [*pip, "wheel", *options, "--no-build-isolation", "--wheel-dir", folder / "dist", folder / "ops"], check=True
    )
    (wheel,) = (folder / "dist").iterdir()
    assert wheel.name.startswith("roi_ops-") and wheel.name.endswith("-py3-none-any.whl")
    subprocess.run([*pip, "install", *options, "--target", folder / "site", wheel], check=True)
    return folder / "site"


def run(target: Path, script: str) -> str:
    environment = {"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=target, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_serves_all_operators_with_torch_alone(target, compiler):
    file, backend = run(target, USE).split()
    assert Path(file).is_relative_to(target) and backend == "compiled"


@pytest.mark.slow
def test_the_wheel_goes_behind_torchvisions_operators(target, compiler):
    assert run(target, INSTALL).strip() == "1.0"


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_the_kernels(target):
    sources = {path.relative_to(OPS) for path in OPS.rglob("*.[pc]*") if path.suffix in (".py", ".c")}
    sources = {path for path in sources if path.parts[0] != ".build"}
    assert sources == {
        path.relative_to(target / "roi_ops") for path in (target / "roi_ops").rglob("*") if path.suffix in (".py", ".c")
    }
