"""Makes the stages that all arms of a study share: data, backbone, its maps, proposals. `store` says where they go.

On a CPU the last bits of sums depend on the number of threads. Studies and single runs, which have different numbers of
threads, share stages, so stages are made on one.
"""

from pathlib import Path

import torch
from safetensors.torch import save as serialised
from torch import Tensor

from ablations.errors import ConfigError
from ablations.machine import one_thread
from ablations.records.code_version import code_version
from ablations.records.run_log import RunLog
from ablations.records.schema import WEIGHTS
from ablations.records.storage import write_atomically
from ablations.stages.features import file_name, wanted, write_maps
from ablations.stages.pretraining import DenseNetwork, dense_losses
from ablations.stages.proposals import proposal_network, proposal_training, propose_all
from ablations.stages.store import Stages, make_once
from ablations.training.batches import MicroBatches
from ablations.training.checkpoint import CHECKPOINT, Checkpoint
from ablations.training.device import cpu_state_dict
from ablations.training.distributed import SharedTraining
from ablations.training.loop import TrainingSpec, fit
from models.backbone import fold_batch_norm
from models.config import ResNetConfig
from models.initialise import derive_seed, initialise
from models.weights import imagenet_state, shipped_state


@one_thread()
def make_data(stages: Stages, log: RunLog) -> None:
    """Draws the images, or checks that they can be read and that both splits have the same classes."""
    train, evaluated = stages.dataset("train"), stages.evaluated
    if train.classes != evaluated.classes:
        raise ConfigError(
            f"data: expected the same classes in both splits, got {train.classes} and {evaluated.classes}"
        )
    log(0, {"training_images": len(train), "evaluated_images": len(evaluated)})


@one_thread()
def make_backbone(stages: Stages, log: RunLog) -> None:
    """Pretrains the backbone, or takes the shipped one or ImageNet's; its batch normalisation is folded."""

    def make(folder: Path) -> None:
        config = stages.config
        settings, schedule = config.model, config.budget.backbone
        if isinstance(settings, ResNetConfig):
            save_tensors(folder / WEIGHTS, cpu_state_dict(imagenet_state(settings)))
            return
        if settings.weights == "shipped":
            for stride in settings.strides:
                save_tensors(folder / f"{stride}.safetensors", shipped_state(stride))
            return
        dataset = stages.dataset("pretrain")
        network = DenseNetwork(settings.channels, settings.blocks, settings.roi_channels, len(dataset.classes))
        initialise(network, stages.seed)
        network.to(stages.device).to(memory_format=torch.channels_last).train()
        batches = MicroBatches(dataset, schedule, derive_seed(stages.seed, "backbone"), stages.seed)

        def losses(step: int, micro_batch: int) -> dict[str, Tensor]:
            return dense_losses(network, batches.batch(step, micro_batch).to(stages.device))

        checkpoint = stage_checkpoint(folder, stages.backbone_key, stages, log)
        train_network(TrainingSpec(network, losses, schedule, config.precision), checkpoint, stages, log)
        for stride in settings.strides:
            backbone = fold_batch_norm(network.backbone(stride).eval())
            save_tensors(folder / f"{stride}.safetensors", cpu_state_dict(backbone.state_dict()))

    make_once(stages, stages.backbone_folder, [stages.backbone_file.name], make, log)


@one_thread()
def make_features(stages: Stages, log: RunLog) -> None:
    """Computes the maps of a fully frozen backbone."""
    files = [file_name(split, index, mirrored) for split, _, index, mirrored in wanted(stages)]
    make_once(stages, stages.features_folder, files, lambda folder: write_maps(stages, folder, log), log)


@one_thread()
def make_proposals(stages: Stages, log: RunLog) -> None:
    """Trains the proposal network, then caches its proposals for all images."""

    def make(folder: Path) -> None:
        network = proposal_network(stages, stages.seed)
        spec = proposal_training(network, stages, stages.seed)
        checkpoint = stage_checkpoint(folder, stages.rpn_key, stages, log)
        with SharedTraining("train_proposals", stages.config) as shared:
            train_network(spec, checkpoint, stages, log, shared)
        save_tensors(folder / WEIGHTS, cpu_state_dict(network.state_dict()))
        for split in ("train", stages.split):
            log.enter(f"proposals of {split} images")
            proposals = propose_all(network, stages, split)
            save_tensors(folder / f"{split}.safetensors", {"boxes": proposals.boxes, "scores": proposals.scores})

    files = [WEIGHTS, *(f"{split}.safetensors" for split in ("train", stages.split))]
    make_once(stages, stages.rpn_folder, files, make, log)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file. Unlike safetensors' own function it raises OSError, which says that a disk is full."""
    write_atomically(path, serialised(tensors))


def stage_checkpoint(folder: Path, key: str, stages: Stages, log: RunLog) -> Checkpoint:
    return Checkpoint(folder / CHECKPOINT, f"{key} {code_version()}", stages.config.checkpoint, log)


def train_network(
    spec: TrainingSpec, checkpoint: Checkpoint, stages: Stages, log: RunLog, shared: SharedTraining | None = None
) -> None:
    """Trains a stage's network."""
    torch.manual_seed(stages.seed)  # for layers that draw from torch's own generator, such as dropout
    log.start_training(spec.schedule.steps)
    fit(spec, log, stages.config.budget.log_every, checkpoint, shared)
