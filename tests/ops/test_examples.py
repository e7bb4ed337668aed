"""The examples in the operators' docstrings give what they say."""

import doctest
import importlib

import pytest
import torch


@pytest.mark.parametrize("name", ["roi_align", "roi_pool", "roi_warp", "ps_roi", "multi_scale"])
def test_examples_run(name):
    module = importlib.import_module(f"ops.{name}")
    done = doctest.testmod(module, extraglobs={"torch": torch})
    assert done.attempted >= 2 and not done.failed
