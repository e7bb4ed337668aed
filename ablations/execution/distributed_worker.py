"""What the processes beside torchrun's first do: they follow its orders. See training.distributed."""

import signal

from torch import nn

from ablations.config.schema import Config
from ablations.execution.local import SIGNALS
from ablations.machine import one_thread
from ablations.stages.make import proposal_losses, proposal_network, proposals_by_batch, stages_of
from ablations.tasks.detection import WORKS, build, detections_by_batch
from ablations.training import distributed
from ablations.training.loop import accumulate


def follow() -> int:
    """Works for the leader until it is done; the exit code."""
    for number in SIGNALS:  # torchrun passes them to all, and the leader still needs its followers to stop cleanly
        signal.signal(number, signal.SIG_IGN)
    for order in distributed.orders():
        if order.what == "detections":
            _detect(order.config)
        elif order.what == "run":
            _train(order)
        else:
            with one_thread():  # as the leader makes stages
                _train(order) if order.what == "proposals" else _propose(order.config, order.split)
    distributed.leave()
    return 0


def _train(order: distributed.Order) -> None:
    config, stages = order.config, stages_of(order.config)
    if order.what == "proposals":
        network = proposal_network(stages, seed=0)
        module: nn.Module = network
        losses_of, schedule = proposal_losses(network, stages, seed=0), config.budget.rpn
    else:
        work = WORKS[config.task](config, stages)
        module, losses_of, schedule = work.model, work.losses, work.schedule
    for step, scale in distributed.steps(module):
        module.zero_grad()
        losses = accumulate(losses_of, step, schedule, config.precision, scale, distributed.rank(), distributed.size())
        distributed.collect(module, losses)


def _detect(config: Config) -> None:
    stages = stages_of(config)
    model = build(config, stages, len(stages.dataset("train").classes)).eval()
    distributed.spread(distributed.trained_tensors(model))
    distributed.gather(detections_by_batch(model, stages))


def _propose(config: Config, split: str) -> None:
    stages = stages_of(config)
    network = proposal_network(stages, seed=0)
    distributed.spread(distributed.trained_tensors(network))
    distributed.gather(proposals_by_batch(network, stages, split))
