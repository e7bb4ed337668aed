"""The implementations that a CPU has, for tests that every one of them must pass."""

import pytest
import torch

from ops.cpu import compiled


def no_compiler(monkeypatch) -> None:
    """Have PyTorch's operators serve, as on a machine that has no C compiler."""
    monkeypatch.setattr(compiled, "build", lambda dtype: "not in this test")


@pytest.fixture
def compiler() -> None:
    """For tests of the C kernels themselves."""
    if (reason := compiled.refusal(torch.float32)) is not None:
        pytest.skip(reason)


@pytest.fixture(params=["reference", "cpu", "cpu without a compiler"])
def backend(request, monkeypatch) -> str:
    """Each implementation; the last two go by the same name."""
    name, _, without = request.param.partition(" ")
    if without:
        no_compiler(monkeypatch)
    return name


@pytest.fixture(params=["with a compiler", "without a compiler"])
def cpu(request, monkeypatch) -> None:
    """The default on a CPU, with the C kernels and without."""
    if request.param.startswith("without"):
        no_compiler(monkeypatch)
