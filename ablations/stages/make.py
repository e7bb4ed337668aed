"""What all arms of a study share, made once: data, pretrained backbone, proposal network, proposals.

Each product lives in outputs/stages/<name>-<key>/, where the key is a hash of everything that it depends on, so that
a changed setting makes a new one and an unchanged one is found again. A folder appears under its name only when its
content is complete; until then it is .partial-<name>-<key>, with a checkpoint to go on from.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ablations.config.schema import Config, ScheduleConfig, digest
from ablations.errors import ConfigError
from ablations.records.code_version import code_version
from ablations.records.run_log import RunLog
from ablations.records.storage import clear_temporaries
from ablations.stages.pretraining import DenseNetwork, dense_losses
from ablations.training import distributed
from ablations.training.checkpoint import Checkpoint
from ablations.training.device import choose_device, compile_parts
from ablations.training.loop import fit
from ablations.training.stopping import check_stop
from data.build import build
from data.dataset import Batch, InstanceSet, flip_boxes, to_device
from data.folders import complete
from data.loaders import TrainBatches, eval_batches
from models.backbone import Trunk, fold_batch_norm, load_pretrained, pretrained_parts, toy_trunk
from models.build import build_rpn_head, build_trunk
from models.config import ModelConfig, ResNetConfig
from models.detector import Proposals
from models.initialise import initialise, stream
from models.resnet import PyramidTrunk
from models.rpn import RPNHead, propose, rpn_losses
from models.weights import imagenet_state, weights_digest

STAGE_VERSION = 1
"""Raised when the code of a stage changes what it produces."""

RPN_FIELDS = (
    "freeze", "anchor_sizes", "anchor_ratios", "anchors_per_image", "proposals_before", "proposals",
    "smallest_proposal", "pyramid", "whole_pixel_anchors",
)  # fmt: skip
"""Settings of the model that its proposals depend on, as far as it has them."""

EVAL_BATCH, EVAL_BATCH_OF_PHOTOGRAPHS = 20, 4
DECODERS = 4

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Stages:
    """Where a run's shared stages are, and the keys that name what they depend on."""

    root: Path
    config: Config

    def dataset(self, split: str) -> InstanceSet:
        return _dataset(self.config.data, split, self.root / "data")

    @property
    def data_key(self) -> str:
        spec = self.config.data
        return digest(
            [type(spec).__name__, dataclasses.asdict(spec), [spec.digest(split) for split in ("train", "val")]]
        )

    @property
    def backbone_key(self) -> str:
        config = self.config
        model = config.model
        if isinstance(model, ResNetConfig):
            return digest([STAGE_VERSION, model.depth, model.stride_in_1x1, weights_digest(model)])
        trunk = [model.channels, model.blocks, model.roi_channels, config.stride]
        schedule = dataclasses.asdict(config.budget.backbone)
        return digest([STAGE_VERSION, self.data_key, trunk, schedule, config.precision])

    @property
    def rpn_key(self) -> str:
        model, schedule = self.config.model, dataclasses.asdict(self.config.budget.rpn)
        fields = [name for name in RPN_FIELDS if hasattr(model, name)]
        trunk = [self.backbone_key, self.data_key, self.config.stride, self.config.precision]
        return digest([trunk, schedule, {name: getattr(model, name) for name in fields}])

    @property
    def device(self) -> torch.device:
        return choose_device(self.config.device)[0]

    @property
    def keys(self) -> dict[str, str]:
        """The stages that this run stands on."""
        keys = {"backbone": self.backbone_key}
        if self.shares_proposals:
            return keys | {"rpn": self.rpn_key}
        # A ResNet's weights are from elsewhere: without shared proposals nothing else would tell of the data.
        return keys | {"data": self.data_key} if isinstance(self.config.model, ResNetConfig) else keys

    @property
    def shares_proposals(self) -> bool:
        """Whether the run stands on the proposals of the shared network."""
        return self.config.task == "detection" and self.config.rpn == "separate"

    def work_folder(self, task: str) -> Path:
        """Where a stage's log and status are."""
        return self.root / "work" / task.replace(" ", "-")

    @property
    def backbone_folder(self) -> Path:
        return self.root / f"backbone-{self.backbone_key}"

    @property
    def rpn_folder(self) -> Path:
        return self.root / f"rpn-{self.rpn_key}"

    def backbone(self) -> dict[str, Tensor]:
        """The pretrained trunk's state, with batch normalisation folded."""
        return load_file(self.backbone_folder / "model.safetensors")

    def proposals(self, split: str) -> Proposals:
        """The cached proposals of all images of a split, in the order of its dataset."""
        tensors = load_file(self.rpn_folder / f"{split}.safetensors")
        return Proposals(tensors["boxes"], tensors["scores"])


def stages_of(config: Config) -> Stages:
    return Stages(Path(config.outputs) / "stages", config)


@functools.lru_cache(maxsize=2)
def _dataset(spec: Any, split: str, folder: Path) -> InstanceSet:
    """Both splits are kept: a worker that opened them anew for each run would map their pixels many times over."""
    return build(spec, split, cache_dir=folder)


def make_once(stages: Stages, folder: Path, files: list[str], make: Callable[[Path], None]) -> None:
    """Calls make(partial folder) and moves the result to `folder`, unless these files are there already.

    They count as there if they can be read and the code that decides them is still the same.
    """

    def good(folder: Path) -> bool:
        try:
            for name in files:
                with safe_open(folder / name, "pt"):
                    pass
            made_by = (folder / "code.txt").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, SafetensorError):
            return False
        return stages.config.code == "keep" or made_by == code_version()

    def make_signed(partial: Path) -> None:
        make(partial)
        (partial / CHECKPOINT).unlink(missing_ok=True)
        clear_temporaries(partial)
        (partial / "code.txt").write_text(f"{code_version()}\n", encoding="utf-8")

    complete(folder, make_signed, good)


def make_data(stages: Stages, log: RunLog) -> None:
    """Draws the images, or checks that they can be read and that both splits have the same classes."""
    train, val = stages.dataset("train"), stages.dataset("val")
    if train.classes != val.classes:
        raise ConfigError(f"data: expected the same classes in both splits, got {train.classes} and {val.classes}")
    log(0, {"training_images": len(train), "validation_images": len(val)})


def make_backbone(stages: Stages, log: RunLog) -> None:
    """Pretrains the trunk, or takes ImageNet's weights; what is kept has no batch normalisation any more."""

    def make(folder: Path) -> None:
        config, dataset = stages.config, stages.dataset("train")
        model = config.model
        if isinstance(model, ResNetConfig):
            save_file(plain_state(imagenet_state(model)), folder / "model.safetensors")
            return
        trunk = toy_trunk(model.channels, model.blocks, model.roi_channels, config.stride)
        network = DenseNetwork(trunk, len(dataset.classes))
        initialise(network, seed=0)
        network.to(stages.device).to(memory_format=torch.channels_last).train()
        schedule = config.budget.backbone
        draws = Draws(dataset, schedule, stream(0, "backbone"), 0)
        losses_of = lambda step, part: dense_losses(network, draws.batch(step, part).to(stages.device))  # noqa: E731
        torch.manual_seed(0)
        checkpoint = Checkpoint(folder / CHECKPOINT, f"{stages.backbone_key} {code_version()}", config.checkpoint, log)
        log.start_training(schedule.steps)
        fit(network, losses_of, schedule, log, config.budget.log_every, config.precision, checkpoint=checkpoint)
        save_file(plain_state(fold_batch_norm(trunk.eval()).state_dict()), folder / "model.safetensors")

    make_once(stages, stages.backbone_folder, ["model.safetensors"], make)


class ProposalNetwork(nn.Module):
    """A trunk and an RPN head of its own: for the ablations, proposals share no features with the detector."""

    def __init__(self, trunk: Trunk | PyramidTrunk, head: RPNHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        return self.head(self.trunk(images))


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
        save_file(plain_state(network.state_dict()), folder / "model.safetensors")
        for split in ("train", "val"):
            log.enter(f"proposals of {split} images")
            found = propose_all(network, stages, split)
            save_file({"boxes": found.boxes, "scores": found.scores}, folder / f"{split}.safetensors")

    splits = ("train", "val")
    make_once(stages, stages.rpn_folder, ["model.safetensors", *(f"{split}.safetensors" for split in splits)], make)


def proposal_network(stages: Stages, seed: int) -> ProposalNetwork:
    """The pretrained trunk and a new RPN head, ready to be trained."""
    config = stages.config
    trunk = build_trunk(config.model, config.stride)
    network = ProposalNetwork(trunk, build_rpn_head(config.model, trunk.out_channels, config.stride))
    initialise(network.head, seed)
    initialise(trunk, seed)
    load_pretrained(network, stages.backbone())
    if config.compile:
        compile_parts(network)
    return network.to(stages.device).to(memory_format=torch.channels_last).train()


def proposal_losses(network: ProposalNetwork, stages: Stages, seed: int) -> Callable[[int, int], dict[str, Tensor]]:
    """The function from a step to its losses; images, mirroring and sampled anchors depend on the seed."""
    config = stages.config
    draws = Draws(stages.dataset("train"), config.budget.rpn, stream(seed, "rpn"), seed)

    def losses_of(step: int, part: int) -> dict[str, Tensor]:
        batch = draws.batch(step, part).to(stages.device)
        scores, deltas, anchors = network(batch.images)
        keys = to_device(draws.uniform(scores.shape, "anchors", step, part), stages.device)
        count = config.model.anchors_per_image
        return rpn_losses(scores, deltas, anchors, batch.boxes, batch.labels, batch.crowds, count, keys)

    return losses_of


def propose_all(network: ProposalNetwork, stages: Stages, split: str) -> Proposals:
    """The proposals of all images of a split, in the order of its dataset; the processes that work together share
    them out."""
    with distributed.collective():
        distributed.send_command(distributed.Command("propose", stages.config, split), network)
        found = distributed.gather(proposals_by_batch(network, stages, split))
    boxes, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Proposals(boxes, scores)


def proposals_by_batch(network: ProposalNetwork, stages: Stages, split: str) -> list[tuple[Tensor, Tensor]]:
    """Boxes and scores on this process's share of the batches of a split's images, batch by batch."""
    dataset, found = stages.dataset(split), []
    network.eval()
    for batch in eval_batches(
        dataset, eval_batch(dataset), decoders(dataset), distributed.rank(), distributed.world_size()
    ):
        if distributed.world_size() == 1:
            check_stop()
        boxes, scores = propose_batch(network, batch.to(stages.device), stages.config.model)
        found.append((boxes.cpu(), scores.cpu()))
    return found


@torch.no_grad()
def propose_batch(network: ProposalNetwork, batch: Batch, model: ModelConfig) -> tuple[Tensor, Tensor]:
    scores, deltas, anchors = network(batch.images)
    settings = model.proposals_before, model.proposals, model.smallest_proposal
    return propose(scores, deltas, anchors, batch.sizes, *settings)


def proposals_of(cached: Proposals, batch: Batch, device: torch.device) -> Proposals:
    """The cached proposals of a batch's images, mirrored where the images are, in the memory of `device`.

    The batch as it was loaded: to ask a GPU which images it holds would be to wait for it.
    """
    boxes, scores = cached.boxes[batch.indices], cached.scores[batch.indices]
    mirrored = flip_boxes(boxes, batch.sizes[:, 1:].to(boxes.dtype))
    boxes = torch.where(batch.flipped[:, None, None], mirrored, boxes)
    return Proposals(to_device(boxes, device), to_device(scores, device))


def eval_batch(dataset: InstanceSet) -> int:
    """Images that go through a network at once in evaluation: of photographs, which are larger, few."""
    return EVAL_BATCH if dataset.same_size else EVAL_BATCH_OF_PHOTOGRAPHS


def decoders(dataset: InstanceSet) -> int:
    """Threads that prepare batches ahead: drawn images lie ready in memory, photographs have to be decoded."""
    return 0 if dataset.same_size else DECODERS


class Draws:
    """A stage's images and random numbers: functions of seed, step and part, not of what was drawn before.

    A step's micro batches together are the batch that they are parts of, with the same numbers for each image.
    """

    def __init__(self, dataset: InstanceSet, schedule: ScheduleConfig, image_seed: int, seed: int) -> None:
        count, self.parts, self.seed = schedule.images_per_step, schedule.micro_batches, seed
        workers = decoders(dataset)
        self.batches = [
            TrainBatches(dataset, count, image_seed, workers=workers, part=part, num_parts=self.parts)
            for part in range(self.parts)
        ]

    def batch(self, step: int, part: int) -> Batch:
        return self.batches[part].batch(step)

    def uniform(self, shape: tuple[int, ...], name: str, step: int, part: int) -> Tensor:
        """Uniform random numbers [images of the part, ...]."""
        return uniform((shape[0] * self.parts, *shape[1:]), self.seed, name, step)[part :: self.parts]


def uniform(shape: tuple[int, ...], seed: int, *names: object) -> Tensor:
    """Uniform random numbers that depend on the seed and the names only."""
    generator = torch.Generator().manual_seed(stream(seed, *names))
    return torch.rand(shape, generator=generator)


def plain_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state that safetensors can write: in main memory and densely laid out."""
    return {name: value.cpu().contiguous() for name, value in state.items()}
