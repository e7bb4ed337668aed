"""Where proposals come from: by default a network that all arms of a study share, an RPN on a backbone of its own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ablations.config.schema import Config
from ablations.errors import TrainingError
from ablations.records.schema import WEIGHTS
from ablations.stages.features import network_inputs
from ablations.stages.jitter import jittered
from ablations.stages.store import Stages, load_stage
from ablations.training import distributed
from ablations.training.batches import MicroBatches
from ablations.training.device import compile_parts
from ablations.training.loop import TrainingSpec
from ablations.training.stopping import check_stop
from data.dataset import Batch, flip_boxes, to_device
from data.loaders import eval_batches
from models.backbone import Backbone, Projection, load_pretrained, pretrained_parts
from models.build import build_backbone, build_rpn_head
from models.config import ModelConfig
from models.initialise import derive_seed, initialise
from models.resnet import PyramidBackbone
from models.rpn import RPNHead, RPNOutput, propose, rpn_losses
from models.structures import GroundTruth, Proposals


class ProposalNetwork(nn.Module):
    """A backbone and an RPN head of its own: proposals share no features with the detectors that are compared."""

    def __init__(self, backbone: Backbone | PyramidBackbone | Projection, head: RPNHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> RPNOutput:
        """images: [B, 3, H, W], normalised."""
        return self.head(self.backbone(images))


def proposal_network(stages: Stages, seed: int) -> ProposalNetwork:
    """The pretrained backbone and a new RPN head, ready to be trained."""
    network = _build(stages.config)
    initialise(network.head, seed)
    initialise(network.backbone, seed)
    load_pretrained(network, stages.backbone())
    return _prepared(network, stages.config, stages.device).train()


def trained_proposal_network(folder: Path, config: Config, device: torch.device) -> ProposalNetwork:
    """The network that made the shared proposals in a stage's folder, ready to propose for other images.

    Raises TrainingError for a network of an older version of this code, which had other layers, and for damage.
    """
    network, path = _build(config), folder / WEIGHTS
    state = load_stage(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{path}: expected the layers of the network as it is now, got {reason:.200}; "
            f"delete {path.parent} and give the command that made it again"
        ) from error
    return _prepared(network, config, device).eval()


def _build(config: Config) -> ProposalNetwork:
    """The network, with weights still to be drawn or loaded."""
    backbone = build_backbone(config.model, config.stride)
    return ProposalNetwork(backbone, build_rpn_head(config.model, backbone.out_channels, config.stride))


def _prepared(network: ProposalNetwork, config: Config, device: torch.device) -> ProposalNetwork:
    if config.compile:
        compile_parts(network)
    return network.to(device).to(memory_format=torch.channels_last)


def proposal_training(network: ProposalNetwork, stages: Stages, seed: int) -> TrainingSpec:
    """The network's training; images, mirroring and sampled anchors depend on the seed."""
    config = stages.config
    batches = MicroBatches(stages.samples("train"), config.budget.rpn, derive_seed(seed, "rpn"), seed)
    inputs = network_inputs(stages, "train")

    def losses(step: int, micro_batch: int) -> dict[str, Tensor]:
        batch = inputs(batches.batch(step, micro_batch))
        output = network(batch.images)
        truth = GroundTruth(batch.boxes, batch.labels, batch.masks, batch.crowds)
        random_keys = to_device(batches.uniform(output.scores.shape, "anchors", step, micro_batch), stages.device)
        return rpn_losses(output, truth, config.model.anchors_per_image, random_keys)

    return TrainingSpec(network, losses, config.budget.rpn, config.precision, pretrained_parts(network))


def propose_all(network: ProposalNetwork, stages: Stages, split: str) -> Proposals:
    """The proposals of all images of a split, in the order of its dataset; under torchrun all processes take part."""
    with distributed.collective():
        distributed.send_command(distributed.Command("propose", stages.config, split), network)
        batches = distributed.gather(proposals_by_batch(network, stages, split))
    return Proposals(torch.cat([boxes for boxes, _ in batches]), torch.cat([scores for _, scores in batches]))


def proposals_by_batch(network: ProposalNetwork, stages: Stages, split: str) -> list[tuple[Tensor, Tensor]]:
    """Boxes and scores for this process's share of the batches of a split's images, batch by batch."""
    network.eval()
    inputs, proposals = network_inputs(stages, split), []
    for batch in eval_batches(stages.samples(split), rank=distributed.rank(), world_size=distributed.world_size()):
        if distributed.world_size() == 1:
            check_stop()
        proposed = propose_batch(network, inputs(batch), stages.config.model)
        proposals.append((proposed.boxes.cpu(), proposed.scores.cpu()))
    return proposals


@torch.no_grad()
def propose_batch(network: ProposalNetwork, batch: Batch, settings: ModelConfig) -> Proposals:
    """What the network proposes for a batch's images; settings: how many, and how large at least."""
    return propose(network(batch.images), batch.sizes, settings)


def proposal_source(stages: Stages, split: str) -> Callable[[Batch], Proposals | None]:
    """What gives a batch of a split's images, as it was loaded, its proposals in the device's memory.

    It gives None where the detector proposes by itself (rpn=joint).
    """
    config, device = stages.config, stages.device
    if config.rpn == "joint":
        return lambda batch: None
    if config.rpn == "jitter":
        settings, least = config.jitter, config.model.rois_per_image
        return lambda batch: _on_device(jittered(batch, settings.share, settings.copies, least), device)
    return partial(proposals_of, stages.proposals(split), device=device)


def proposals_of(cached: Proposals, batch: Batch, device: torch.device) -> Proposals:
    """The cached proposals of a batch's images, mirrored where the images are, in the memory of `device`.

    The batch must be as it was loaded: reading its indices from a GPU would wait for that GPU.
    """
    boxes, scores = cached.boxes[batch.indices], cached.scores[batch.indices]
    mirrored = flip_boxes(boxes, batch.sizes[:, 1:].to(boxes.dtype))
    boxes = torch.where(batch.flipped[:, None, None], mirrored, boxes)
    return _on_device(Proposals(boxes, scores), device)


def _on_device(proposals: Proposals, device: torch.device) -> Proposals:
    """The same proposals in the memory of `device`."""
    return Proposals(to_device(proposals.boxes, device), to_device(proposals.scores, device))
