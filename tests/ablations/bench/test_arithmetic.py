"""The share of a training step that is convolutions and matrix products."""

import argparse

import pytest
import torch
from torch import nn

from ablations.bench import arithmetic


def test_the_arithmetic_of_a_step_is_repeated_on_its_own_tensors():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    x = torch.randn(1, 3, 8, 8)
    with arithmetic.ArithmeticCalls() as calls:
        network(x).sum().backward()
    # The image needs no gradient; the layer's inputs and its weights do.
    assert len(calls.calls) == 2 + 3
    first = network[0](x)
    with torch.no_grad():
        network[0].weight.zero_()  # what is repeated has copies
    torch.testing.assert_close(calls.calls[0](), first)


def test_shares_add_up_to_the_whole_step():
    weight = torch.randn(64, 64)
    shares = arithmetic.shares_by_part(lambda: (weight @ weight).clone(), rounds=20)
    assert list(shares) == [*arithmetic.PARTS, "Python"] and sum(shares.values()) == pytest.approx(1)
    assert shares["convolutions, matrix products"] > shares["RoI operators"] == 0
    assert shares["casts and copies"] > 0


@pytest.mark.slow
def test_the_step_is_that_of_a_run():
    settings = ["model=toy", "budget.train.images_per_step=2", "precision=bfloat16"]
    record = arithmetic.measure(argparse.Namespace(threads=1, rounds=1, settings=settings))
    assert arithmetic.table(record).startswith(f"{' '.join(settings)}, bfloat16, ")
    assert record["precision"] == "bfloat16" and record["gflop"] > 1
    assert record["ratio"] == record["seconds"]["alone"] / record["seconds"]["step"] > 0
    assert record["parts"]["RoI operators"] > 0
