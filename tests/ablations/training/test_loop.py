"""The training loop: schedule, micro batches, precision, and losses that are not finite."""

import pytest
import torch
from torch import nn

from ablations.config.schema import CheckpointConfig, ScheduleConfig
from ablations.errors import TrainingError
from ablations.training.checkpoint import Checkpoint
from ablations.training.loop import TrainingSpec, fit
from ablations.training.optimizer import learning_rate_factor


def ignore(step, values):
    """A log that keeps nothing."""


def test_the_learning_rate_rises_once_and_falls_to_zero():
    factors = [learning_rate_factor(step, ScheduleConfig(steps=100)) for step in range(100)]
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak]) and factors[peak:] == sorted(factors[peak:], reverse=True)
    assert max(factors) == pytest.approx(1, abs=0.1) and factors[-1] < 0.01 and 5 <= peak <= 20


def test_with_steps_the_learning_rate_falls_to_a_tenth_at_each_milestone():
    schedule = ScheduleConfig(steps=160, warmup=0.05, decay="steps", milestones=[0.75])
    factors = [learning_rate_factor(step, schedule) for step in range(160)]
    assert factors[8:120] == [1.0] * 112 and factors[120:] == [pytest.approx(0.1)] * 40
    assert factors[:8] == sorted(factors[:8]) and factors[0] < 0.2


def test_the_linear_scaling_rule_keeps_the_total_number_of_images():
    paper = ScheduleConfig(steps=160_000, images_per_step=4, lr=0.02, scaled_from=16)
    scaled = paper.scaled()
    assert scaled.lr == pytest.approx(0.005) and scaled.steps == 640_000
    assert scaled.scaled() == scaled


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_micro_batches_train_like_the_whole_batch(optimizer):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def trained(micro_batches):
        torch.manual_seed(0)
        layer = nn.Linear(3, 1)
        schedule = ScheduleConfig(steps=5, lr=0.1, optimizer=optimizer, micro_batches=micro_batches)
        losses = lambda step, micro_batch: {"squared": (layer(x[micro_batch::micro_batches]) ** 2).mean()}  # noqa: E731
        done = fit(TrainingSpec(layer, losses, schedule), ignore, 1)
        return layer.weight.detach(), done.losses["squared"]

    (whole, loss), (added, same) = trained(1), trained(4)
    torch.testing.assert_close(whole, added)
    assert loss == pytest.approx(same)


def test_fit_reduces_the_loss_and_returns_its_mean_at_the_end():
    layer = nn.Linear(3, 1)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    seen = []
    losses = lambda step, micro_batch: {"squared": ((layer(x) - y) ** 2).mean()}  # noqa: E731
    spec = TrainingSpec(layer, losses, ScheduleConfig(steps=200, lr=0.1))
    done = fit(spec, lambda step, values: seen.append((step, values)), log_every=50)
    assert [step for step, _ in seen] == [0, 50, 100, 150]
    assert {"squared", "lr"} == set(seen[0][1])
    assert all(value == float(f"{value:.6g}") for _, values in seen for value in values.values())
    assert done.losses["squared"] < 0.01 < seen[0][1]["squared"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_float16_skips_steps_that_overflow_until_the_scale_fits(optimizer, tmp_path, log):
    """A gradient of 8 times the first scale, 65,536, is beyond float16's 65,504; from a scale of 4,096 on it fits."""

    def trained(precision):
        layer = nn.Linear(4, 1, bias=False)
        nn.init.ones_(layer.weight)
        weights = []

        def losses(step, micro_batch):
            weights.append(layer.weight.detach().clone())
            return {"sum": layer(torch.full((1, 4), 8.0)).float().sum()}

        checkpoint = Checkpoint(tmp_path / precision, "me", CheckpointConfig(), log)
        schedule = ScheduleConfig(steps=12, lr=0.01, optimizer=optimizer, weight_decay=0, warmup=0)
        fit(TrainingSpec(layer, losses, schedule, precision), ignore, 1, checkpoint)
        return weights, checkpoint.state.scaler

    (halved, scaler), (whole, nothing) = trained("float16"), trained("float32")
    assert nothing == {} and scaler["scale"] == 4096 and scaler["_growth_tracker"] == 12 - 4
    assert all(torch.equal(weight, halved[0]) for weight in halved[:5])
    steps = [(a - b).mean().item() for a, b in zip(halved[4:], halved[5:], strict=False)]
    assert all(0 < step < 0.1 for step in steps)
    if optimizer == "sgd":  # its first step has no momentum yet, even after skipped steps
        rate = [learning_rate_factor(step, ScheduleConfig(steps=12, warmup=0)) for step in (0, 4)]
        first = (whole[0] - whole[1]).mean().item()
        assert steps[0] / rate[1] == pytest.approx(first / rate[0], rel=1e-3)


def test_float16_reaches_the_loss_of_float32():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])

    def loss(precision):
        torch.manual_seed(0)
        layer = nn.Linear(3, 1)
        losses = lambda step, micro_batch: {"squared": ((layer(x).float() - y) ** 2).mean()}  # noqa: E731
        spec = TrainingSpec(layer, losses, ScheduleConfig(steps=60, lr=0.1), precision)
        return fit(spec, ignore, 10).losses["squared"]

    assert loss("float16") == pytest.approx(loss("float32"), abs=0.02)


def test_the_pretrained_part_learns_more_slowly():
    def change(slower):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        before = network[0].weight.detach().clone()
        schedule = ScheduleConfig(steps=1, lr=0.1, weight_decay=0, pretrained_lr=0.1)
        losses = lambda step, micro_batch: {"sum": network(torch.ones(1, 2)).sum()}  # noqa: E731
        fit(TrainingSpec(network, losses, schedule, pretrained=network[0] if slower else None), ignore, 1)
        return (network[0].weight - before).abs().max().item()

    assert change(slower=True) == pytest.approx(0.1 * change(slower=False), rel=1e-3)


def test_a_loss_that_is_not_finite_stops_training_and_all_losses_are_named():
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)  # its sign decides the sign of the infinity
    losses = lambda step, micro_batch: {  # noqa: E731
        "good": layer.weight.sum(),
        "bad": layer.weight.sum() * (torch.inf if step == 3 else 1),
    }
    with pytest.raises(TrainingError, match=r"step 3.*good.*bad inf.*lr"):
        fit(TrainingSpec(layer, losses, ScheduleConfig(steps=10)), ignore, 1)
