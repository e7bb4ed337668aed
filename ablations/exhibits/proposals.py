"""The anchors at one cell, and the proposal network's scores and proposals on the sample images.

Boxes are xyxy in pixels of the original image, as in the sample images and the ground truth.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ablations.config.study import Run
from ablations.records.schema import WEIGHTS, StudyRecord
from ablations.records.storage import result_file
from ablations.stages.proposals import proposal_network
from ablations.stages.store import stages_of
from data.dataset import Batch
from data.loaders import eval_batches

SHOWN = 10
"""Number of proposals kept for each image, best first."""


def make(study: StudyRecord, runs: list[Run], folder: Path) -> dict[str, Any]:
    """What `anchors_and_proposals` gives for the first seed of each arm."""
    seed = min(run.config.seed for run in runs)
    arms = {run.arm: anchors_and_proposals(run, study.sample_image_ids) for run in runs if run.config.seed == seed}
    return {"seed": seed, "arms": arms}


@torch.no_grad()
def anchors_and_proposals(run: Run, image_ids: list[int]) -> dict[str, Any]:
    """The anchors around the centre of a cell, and for each image its objectness [h, w] and best proposals.

    Cell i is centred on pixel stride x i of the network's image. scale: size of a pixel of that image in original
    pixels, across and down.
    """
    stages = stages_of(run.config)
    network = proposal_network(stages, run.config.seed)
    network.load_state_dict(load_file(result_file(run.folder, WEIGHTS)))
    network.eval()
    proposals = load_file(result_file(run.folder, "proposals.safetensors"))
    images = []
    for batch in eval_batches(stages.evaluated, 1):
        if int(batch.image_ids) not in image_ids:
            continue
        index = int(batch.indices)
        boxes = proposals["boxes"][index, :SHOWN] * _scale(batch)
        kept = proposals["scores"][index, :SHOWN] > 0
        features = network.backbone(batch.images.to(stages.device))
        assert isinstance(features, Tensor), "expected a backbone with one map, not a pyramid"
        scores = network.head(features)[0].sigmoid().view(*features.shape[-2:], -1).amax(-1)  # the best anchor's
        images.append(
            {
                "image_id": int(batch.image_ids),
                "scale": _scale(batch)[:2].tolist(),
                "objectness": _rounded(scores, 4),
                "proposals": _rounded(boxes[kept], 1),
                "scores": [round(score, 4) for score in proposals["scores"][index, :SHOWN][kept].tolist()],
            }
        )
    return {"stride": run.config.stride, "cell_anchors": _rounded(network.head.cell_anchors[0], 2), "images": images}


def _scale(batch: Batch) -> Tensor:
    """[4], for x, y, x, y: the size of a pixel of the network's image in original pixels."""
    return (batch.original_sizes / batch.sizes)[0].flip(0).repeat(2)


def _rounded(values: Tensor, digits: int) -> list[list[float]]:
    return [[round(value, digits) for value in row] for row in values.tolist()]
