"""Which backend serves what, and what is said where one cannot."""

import pytest
import torch

from ops import __main__, backends
from ops.backends import Need, choose, refusal
from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from tests.ops.cases import assert_near, backend_of, random_boxes, random_map

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def modern_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(backends, "HAS_TRITON", True)


def test_a_cpu_never_gets_the_interpreter_by_itself(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(backends, "HAS_TRITON", True)
    need = Need("roi_align", CPU, torch.float32)
    assert choose(need) in ("compiled", "pytorch")
    assert choose(need, "triton") == "triton"


def test_a_gpu_gets_triton_where_triton_can(modern_gpu):
    assert choose(Need("roi_align", CUDA, torch.bfloat16), "auto") == "triton"
    assert choose(Need("roi_pool", CUDA, torch.float32, "max"), "auto") == "triton"
    assert choose(Need("roi_align", CUDA, torch.float64), "auto") == "pytorch"
    assert choose(Need("roi_align", CUDA, torch.float32, box_gradient=True), "auto") == "pytorch"
    assert choose(Need("roi_align", CUDA, torch.float32, "max"), "auto") == "triton"
    assert choose(Need("roi_align", CUDA, torch.float64, "max"), "auto") == "pytorch"
    assert choose(Need("roi_pool", CUDA, torch.float64, "max"), "auto") == "torchvision"
    assert choose(Need("roi_pool", CUDA, torch.float64, "max", deterministic=True), "auto") == "reference"


def test_fallbacks(modern_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert "7.5 is below 8.0" in refusal("triton", Need("roi_align", CUDA, torch.float32))
    assert choose(Need("roi_align", CUDA, torch.float32), "auto") == "pytorch"
    monkeypatch.setattr(backends, "HAS_TRITON", False)
    assert refusal("triton", Need("roi_align", CUDA, torch.float32)) == "triton is not installed"
    assert choose(Need("roi_pool", MPS, torch.float32, "max"), "auto") == "reference"


@pytest.mark.usefixtures("compiler")
def test_a_cpu_gets_the_kernels_where_they_can_serve():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert choose(Need("roi_align", CPU, dtype)) == "compiled"
        assert choose(Need("roi_align", CPU, dtype, box_gradient=True)) == "pytorch"
    assert choose(Need("roi_pool", CPU, torch.float32, "max", largest_bin=lambda: 1 << 16)) == "compiled"
    assert choose(Need("roi_pool", CPU, torch.float32, "max", largest_bin=lambda: (1 << 16) + 1)) == "pytorch"


def test_a_cpu_without_a_compiler_gets_operators(monkeypatch):
    monkeypatch.setattr(backends.compiled, "build_error", lambda dtype: "there is no C compiler")
    for operator in ("roi_align", "roi_warp", "roi_pool", "ps_roi_pool"):
        assert choose(Need(operator, CPU, torch.float32)) == "pytorch"
    with pytest.raises(ValueError, match='"compiled" cannot serve roi_pool here: there is no C compiler'):
        roi_pool(random_map((1, 2, 8, 8)), random_boxes(2, 8)[None], 2, backend="compiled")


@pytest.mark.parametrize("operator", [roi_align, roi_pool])
@pytest.mark.parametrize("asked", ["auto", "reference", "compiled", "pytorch", "torchvision"])
def test_the_backend_chosen_is_the_one_that_computes(operator, asked, request):
    if asked == "compiled":
        request.getfixturevalue("compiler")
    feature = random_map((1, 2, 8, 8)).requires_grad_()
    out = operator(feature, random_boxes(2, 8)[None], 2, 1.0, backend=asked)
    assert backend_of(out) == choose(Need(operator.__name__, CPU, torch.float32), asked)


def test_a_backend_that_cannot_says_why():
    feature, boxes = random_map((1, 2, 8, 8)), random_boxes(2, 8)[None].requires_grad_()
    with pytest.raises(ValueError, match='"torchvision" cannot serve roi_align here: it has no gradient for boxes'):
        roi_align(feature, boxes, 2, backend="torchvision")
    with pytest.raises(ValueError, match='"triton" cannot serve roi_pool here'):
        roi_pool(feature, boxes.detach(), 2, backend="triton")


def test_torchvision_serves_on_request():
    feature, boxes = random_map((1, 2, 8, 8)), random_boxes(3, 8)[None]
    assert_near(roi_align(feature, boxes, 2, backend="torchvision"), roi_align(feature, boxes, 2))
    assert torch.equal(roi_pool(feature, boxes, 2, backend="torchvision"), roi_pool(feature, boxes, 2))


def test_the_table_is_printed(capsys):
    __main__.main()
    out = capsys.readouterr().out
    assert "roi_pool" in out and "declined" in out
