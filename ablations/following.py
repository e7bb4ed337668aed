"""What the processes beside torchrun's first do: they follow its orders. See team.py."""

import signal

from torch import nn

from ablations import team
from ablations.arm import WORKS, build, detections_by_batch
from ablations.config import Config
from ablations.device import one_thread
from ablations.stages import proposal_losses, proposal_network, proposals_by_batch, stages_of
from ablations.train import accumulate
from ablations.workers import SIGNALS


def follow() -> int:
    """Works for the leader until it is done; the exit code."""
    for number in SIGNALS:  # torchrun passes them to all, and the leader still needs its followers to stop cleanly
        signal.signal(number, signal.SIG_IGN)
    for order in team.orders():
        if order.what == "detections":
            _detect(order.config)
        elif order.what == "run":
            _train(order)
        else:
            with one_thread():  # as the leader makes stages
                _train(order) if order.what == "proposals" else _propose(order.config, order.split)
    team.leave()
    return 0


def _train(order: team.Order) -> None:
    config, stages = order.config, stages_of(order.config)
    if order.what == "proposals":
        network = proposal_network(stages, seed=0)
        module: nn.Module = network
        losses_of, schedule = proposal_losses(network, stages, seed=0), config.budget.rpn
    else:
        work = WORKS[config.task](config, stages)
        module, losses_of, schedule = work.model, work.losses, work.schedule
    for step, scale in team.steps(module):
        module.zero_grad()
        losses = accumulate(losses_of, step, schedule, config.precision, scale, team.rank(), team.size())
        team.collect(module, losses)


def _detect(config: Config) -> None:
    stages = stages_of(config)
    model = build(config, stages, len(stages.dataset("train").classes)).eval()
    team.spread(team.trained_tensors(model))
    team.gather(detections_by_batch(model, stages))


def _propose(config: Config, split: str) -> None:
    stages = stages_of(config)
    network = proposal_network(stages, seed=0)
    team.spread(team.trained_tensors(network))
    team.gather(proposals_by_batch(network, stages, split))
