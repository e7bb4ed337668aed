"""Shared by all tests: the configuration as a user's command line gives it."""

import io
from pathlib import Path

import hydra
import pytest
import torch

from ablations.records.run_log import Job

CONF = Path(__file__).parent.parent / "conf"


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and results do not depend on how many there are."""
    torch.set_num_threads(1)


@pytest.fixture
def job(tmp_path):
    """A run or a stage in progress; what it logs is in job.file."""
    job = Job(tmp_path / "job", "test")
    job.file = io.StringIO()
    return job


@pytest.fixture
def compose():
    """compose(overrides) -> what Hydra makes of them."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda overrides: hydra.compose("config", overrides)
