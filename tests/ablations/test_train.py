"""The training loop: its schedule, and stopping on losses that are not finite."""

import pytest
import torch
from torch import nn

from ablations.config import ScheduleConfig
from ablations.train import TrainingError, fit, learning_rate_factor


def test_the_learning_rate_rises_once_and_falls_to_nothing():
    factors = [learning_rate_factor(step, 100) for step in range(100)]
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak]) and factors[peak:] == sorted(factors[peak:], reverse=True)
    assert max(factors) == pytest.approx(1, abs=0.1) and factors[-1] < 0.01 and 5 <= peak <= 20


def test_fit_descends_and_reports_the_end():
    layer = nn.Linear(3, 1)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    seen = []
    done = fit(
        layer,
        lambda step: {"squared": ((layer(x) - y) ** 2).mean()},
        ScheduleConfig(steps=200, lr=0.1),
        lambda step, values: seen.append((step, values)),
        log_every=50,
        precision="float32",
    )
    assert [step for step, _ in seen] == [0, 50, 100, 150]
    assert {"squared", "lr"} == set(seen[0][1])
    assert done.losses["squared"] < 0.01 < seen[0][1]["squared"]


def test_pretrained_parts_learn_more_slowly():
    def change(slow):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        before = network[0].weight.detach().clone()
        schedule = ScheduleConfig(steps=1, lr=0.1, weight_decay=0, pretrained_lr=0.1)
        fit(network, lambda step: {"sum": network(torch.ones(1, 2)).sum()}, schedule, lambda *_: None, 1, "float32",
            slow=network[0] if slow else None)  # fmt: skip
        return (network[0].weight - before).abs().max().item()

    assert change(slow=True) == pytest.approx(0.1 * change(slow=False), rel=1e-3)


def test_a_loss_that_is_not_finite_stops_with_all_losses_named():
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)  # its sign decides the sign of the infinity
    losses = lambda step: {"good": layer.weight.sum(), "bad": layer.weight.sum() * (torch.inf if step == 3 else 1)}  # noqa: E731
    with pytest.raises(TrainingError, match=r"step 3.*good.*bad inf.*lr"):
        fit(layer, losses, ScheduleConfig(steps=10), lambda *_: None, 1, "float32")
