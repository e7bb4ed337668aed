"""The optimiser of a training and its learning rate."""

import math

import torch
from torch import nn

from ablations.config.schema import ScheduleConfig

MOMENTUM = 0.9


def build_optimizer(model: nn.Module, schedule: ScheduleConfig, pretrained: nn.Module | None) -> torch.optim.Optimizer:
    """Two groups of parameters: new ones, with the peak rate `lr`, and those of `pretrained`, with `pretrained_lr`
    times that. A group's peak rate is its "initial_lr", as torch's schedulers call it."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    slower = set() if pretrained is None else set(pretrained.parameters())
    rates = schedule.lr, schedule.lr * schedule.pretrained_lr
    groups = [
        {"params": [p for p in parameters if p not in slower], "lr": rates[0], "initial_lr": rates[0]},
        {"params": [p for p in parameters if p in slower], "lr": rates[1], "initial_lr": rates[1]},
    ]
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=schedule.weight_decay, fused=True)
    sgd = torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=schedule.weight_decay, fused=True)
    for parameter in parameters:
        # Its first step would allocate these unfilled, and leave them so where float16 skips that step.
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, schedule: ScheduleConfig) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * learning_rate_factor(step, schedule)


def learning_rate_factor(step: int, schedule: ScheduleConfig) -> float:
    """The share of the peak learning rate at a step: a linear warm-up, then a cosine or steps of a factor of ten."""
    steps = schedule.steps
    warmup = max(schedule.warmup * steps, 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.decay == "steps":
        return 0.1 ** sum(step >= mark * steps for mark in schedule.milestones)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
