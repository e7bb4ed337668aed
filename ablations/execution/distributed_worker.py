"""What the ranks other than torchrun's first do: they follow the commands of rank 0. See training/distributed.py."""

import signal

from ablations.config.schema import Config
from ablations.execution.local import SIGNALS
from ablations.machine import one_thread
from ablations.stages.proposals import proposal_network, proposal_training, proposals_by_batch
from ablations.stages.store import stages_of
from ablations.tasks.build import build_task
from ablations.tasks.detection import build_model, detections_by_batch
from ablations.training import distributed
from ablations.training.distributed import Command
from ablations.training.loop import accumulate_gradients


def worker_loop() -> int:
    """Handles the commands of rank 0 until it ends the group; returns the exit code."""
    for number in SIGNALS:  # torchrun passes them to all ranks, and rank 0 needs the others to stop cleanly
        signal.signal(number, signal.SIG_IGN)
    for command in distributed.commands():
        handle(command)
    distributed.destroy_process_group()
    return 0


def handle(command: Command) -> None:
    """What one command asks for, with as many threads as rank 0 has: it makes stages with one."""
    if command.kind == "train_run":
        share_training(command)
    elif command.kind == "detect":
        share_detections(command.config)
    elif command.kind == "train_proposals":
        with one_thread():
            share_training(command)
    else:
        with one_thread():
            share_proposals(command.config, command.split)


def share_training(command: Command) -> None:
    """Adds this rank's gradients to those of rank 0, step by step, until rank 0 ends the training."""
    stages = stages_of(command.config)
    if command.kind == "train_proposals":
        spec = proposal_training(proposal_network(stages, stages.seed), stages, stages.seed)
    else:
        spec = build_task(stages).training
    rank, world_size = distributed.rank(), distributed.world_size()
    for step, scale in distributed.training_steps(spec.model):
        spec.model.zero_grad()
        losses = accumulate_gradients(spec, step, scale, rank, world_size)
        distributed.reduce_gradients(spec.model, losses)


def share_detections(config: Config) -> None:
    """Detects on this rank's share of the evaluated images, with the weights of rank 0, and sends it the results."""
    stages = stages_of(config)
    model = build_model(stages).eval()
    distributed.broadcast_tensors(distributed.trained_tensors(model))
    distributed.gather(detections_by_batch(model, stages))


def share_proposals(config: Config, split: str) -> None:
    """Proposes for this rank's share of a split's images, with the weights of rank 0, and sends it the boxes."""
    stages = stages_of(config)
    network = proposal_network(stages, stages.seed)
    distributed.broadcast_tensors(distributed.trained_tensors(network))
    distributed.gather(proposals_by_batch(network, stages, split))
