"""The benchmark of a GPU, on a CPU: what is timed, and that one failure costs no other measurement."""

import argparse
from types import SimpleNamespace

import pytest
import torch

from ablations.bench import gpu
from data.dataset import Batch


def test_a_call_is_followed_by_a_wait_on_a_gpu_alone(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(str(device)))
    gpu.waited_for(lambda: done.append("call"), torch.device("cpu"))()
    assert done == ["call"]
    gpu.waited_for(lambda: done.append("call"), torch.device("cuda"))()
    assert done == ["call", "call", "cuda"]


@pytest.fixture
def two_networks(monkeypatch):
    """Networks of one layer in the place of both; a step of the second one, and of its peer, may fail."""
    empty = {name: torch.zeros(1) for name in Batch.__dataclass_fields__}

    def made(*_):
        return torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), Batch(**empty)

    monkeypatch.setattr(gpu, "toy", made)
    monkeypatch.setattr(gpu, "pyramid", made)
    state = SimpleNamespace(phase=0, failing=None)

    def steps(*_):
        state.phase += 1

        def fail():
            raise RuntimeError("out of memory\nin a long story")

        return {"ours": fail if state.phase == state.failing else int, "torchvision": int}

    monkeypatch.setattr(gpu, "training_steps", steps)
    return state


OPTIONS = argparse.Namespace(device="cpu", images=1, side=64, rounds=3, warm_up=2, compile=False)


def test_both_networks_are_measured(two_networks):
    record = gpu.measure(OPTIONS)
    assert list(record["ratio"]) == ["toy", "resnet"] and record["failures"] == {}
    assert len(record["all_seconds"]["toy"]["ours"]) == OPTIONS.rounds


def test_a_failure_is_recorded_with_its_first_line_and_the_other_is_measured(two_networks):
    two_networks.failing = 1
    record = gpu.measure(OPTIONS)
    assert record["failures"] == {"toy": "RuntimeError: out of memory"} and list(record["ratio"]) == ["resnet"]
    lines = gpu.table(record).splitlines()
    assert lines[1].startswith("resnet ") and lines[-1] == "toy: RuntimeError: out of memory"


def test_compiled_steps_are_phases_of_their_own(two_networks, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    record = gpu.measure(argparse.Namespace(**vars(OPTIONS) | {"compile": True}))
    assert list(record["ratio"]) == ["toy", "toy, compiled", "resnet", "resnet, compiled"] and len(compiled) == 2
