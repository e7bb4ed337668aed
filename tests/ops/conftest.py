"""The backends that a CPU has, for tests that every one of them must pass."""

import pytest
import torch

from ops.cpu import compiled


@pytest.fixture
def compiler() -> None:
    """For tests of the C kernels themselves."""
    if (reason := compiled.build_error(torch.float32)) is not None:
        pytest.skip(reason)


def _unless_it_cannot_be_built(name: str) -> str:
    if name == "compiled" and (reason := compiled.build_error(torch.float32)) is not None:
        pytest.skip(reason)
    return name


@pytest.fixture(params=["reference", "compiled", "pytorch"])
def backend(request) -> str:
    """Each backend of our own that a CPU has."""
    return _unless_it_cannot_be_built(request.param)


@pytest.fixture(params=["compiled", "pytorch"])
def fast_backend(request) -> str:
    """Of these the fast ones."""
    return _unless_it_cannot_be_built(request.param)
