"""Makes the stages that all arms of a study share: data, pretrained backbone, proposals. `store` says where they go."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ablations.errors import ConfigError
from ablations.records.code_version import code_version
from ablations.records.run_log import RunLog
from ablations.stages.pretraining import DenseNetwork, dense_losses
from ablations.stages.proposals import proposal_losses, proposal_network, propose_all
from ablations.stages.store import CHECKPOINT, Stages, make_once
from ablations.training import distributed
from ablations.training.batches import MicroBatches
from ablations.training.checkpoint import Checkpoint
from ablations.training.device import cpu_state_dict
from ablations.training.loop import fit
from models.backbone import fold_batch_norm, pretrained_parts, toy_trunk
from models.config import ResNetConfig
from models.initialise import initialise, stream
from models.weights import imagenet_state


def make_data(stages: Stages, log: RunLog) -> None:
    """Draws the images, or checks that they can be read and that both splits have the same classes."""
    train, val = stages.dataset("train"), stages.dataset("val")
    if train.classes != val.classes:
        raise ConfigError(f"data: expected the same classes in both splits, got {train.classes} and {val.classes}")
    log(0, {"training_images": len(train), "validation_images": len(val)})


def make_backbone(stages: Stages, log: RunLog) -> None:
    """Pretrains the trunk, or takes ImageNet's weights; what is kept has its batch normalisation folded."""

    def make(folder: Path) -> None:
        config, dataset = stages.config, stages.dataset("train")
        model = config.model
        if isinstance(model, ResNetConfig):
            save_file(cpu_state_dict(imagenet_state(model)), folder / "model.safetensors")
            return
        trunk = toy_trunk(model.channels, model.blocks, model.roi_channels, config.stride)
        network = DenseNetwork(trunk, len(dataset.classes))
        initialise(network, seed=0)
        network.to(stages.device).to(memory_format=torch.channels_last).train()
        schedule = config.budget.backbone
        batches = MicroBatches(dataset, schedule, stream(0, "backbone"), 0)
        losses_of = lambda step, part: dense_losses(network, batches.batch(step, part).to(stages.device))  # noqa: E731
        torch.manual_seed(0)
        checkpoint = Checkpoint(folder / CHECKPOINT, f"{stages.backbone_key} {code_version()}", config.checkpoint, log)
        log.start_training(schedule.steps)
        fit(network, losses_of, schedule, log, config.budget.log_every, config.precision, checkpoint=checkpoint)
        save_file(cpu_state_dict(fold_batch_norm(trunk.eval()).state_dict()), folder / "model.safetensors")

    make_once(stages, stages.backbone_folder, ["model.safetensors"], make)


def make_proposals(stages: Stages, log: RunLog) -> None:
    """Trains the proposal network, then caches its proposals for all images."""

    def make(folder: Path) -> None:
        config, network = stages.config, proposal_network(stages, seed=0)
        losses_of, log_every = proposal_losses(network, stages, seed=0), config.budget.log_every
        torch.manual_seed(0)
        checkpoint = Checkpoint(folder / CHECKPOINT, f"{stages.rpn_key} {code_version()}", config.checkpoint, log)
        log.start_training(config.budget.rpn.steps)
        with distributed.SharedTraining("train_proposals", config) as shared:
            fit(
                network,
                losses_of,
                config.budget.rpn,
                log,
                log_every,
                config.precision,
                slow=pretrained_parts(network),
                checkpoint=checkpoint,
                shared=shared,
            )
        save_file(cpu_state_dict(network.state_dict()), folder / "model.safetensors")
        for split in ("train", "val"):
            log.enter(f"proposals of {split} images")
            proposals = propose_all(network, stages, split)
            save_file({"boxes": proposals.boxes, "scores": proposals.scores}, folder / f"{split}.safetensors")

    make_once(stages, stages.rpn_folder, ["model.safetensors", "train.safetensors", "val.safetensors"], make)
