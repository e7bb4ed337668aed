"""ResNet-50 with a feature pyramid, beside torchvision's: a training step and inference with the same weights.

    python -m ablations.bench.resnet [--side 400] [--images 2] [--threads N] [--rounds N] [--out FOLDER]

Both sides do the same work: 1,000 proposals and 512 RoIs per image, the same images and objects, the same frozen stages
and normalisation, AdamW. They take turns in one process. Beside the wall time, which other programs on the machine
disturb, the record has the processor time of each.
"""

import argparse
from typing import Any

import torch
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from ablations.bench.common import (
    as_list,
    compare,
    comparison_table,
    make_parser,
    run_benchmark,
    take_turns,
    training_steps,
)
from data.dataset import IMAGE_MEAN, IMAGE_STD, Batch, Sample, collate
from data.terminal import run_command
from models.torchvision_weights import detect_as_torchvision, from_torchvision

CLASSES = 80
OBJECTS = 6
RESIDUAL = 0.2
"""Initial weight of what a block adds to its input: without it, activations of random weights grow block by block."""

SHARPNESS = 30
"""Factor on the weights of class scores, so that inference has detections, and so masks to predict."""


def torchvision_network(side: int) -> TorchvisionMaskRCNN:
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    for name, module in backbone.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith("bn3"):
            module.weight.fill_(RESIDUAL)
    counts = {f"rpn_{when}_nms_top_n_{phase}": 1000 for when in ("pre", "post") for phase in ("train", "test")}
    network = TorchvisionMaskRCNN(
        backbone,
        CLASSES + 1,
        min_size=side,
        max_size=side,
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
        **counts,
    )
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight *= SHARPNESS
    return network.to(memory_format=torch.channels_last)


def photographs(count: int, side: int) -> Batch:
    """`count` images [3, side, side] of noise with coloured discs as objects."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    positions = torch.arange(side)
    for index in range(count):
        image = torch.randint(0, 80, (3, side, side), generator=generator, dtype=torch.uint8)
        centres = torch.rand(OBJECTS, 2, generator=generator) * side
        radii = side * (0.05 + 0.15 * torch.rand(OBJECTS, generator=generator))
        x, y = (centres[:, i, None, None] - positions.view(shape) for i, shape in ((0, (1, 1, -1)), (1, (1, -1, 1))))
        masks = (x**2 + y**2 < radii[:, None, None] ** 2).to(torch.uint8)
        for mask in masks:
            image[:, mask.bool()] = torch.randint(80, 255, (3, 1), generator=generator, dtype=torch.uint8)
        boxes = torch.cat([centres - radii[:, None], centres + radii[:, None]], dim=1).clamp(0, side)
        labels = torch.randint(1, CLASSES + 1, (OBJECTS,), generator=generator)
        samples.append(Sample(image, boxes, labels, masks, index + 1))
    padded = -(-side // 32) * 32
    return collate(samples, size=(padded, padded))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torchvision = torchvision_network(options.side)
    ours = from_torchvision(torchvision.state_dict())
    batch = photographs(options.images, options.side)
    images, _ = as_list(batch)
    inference = {
        "ours": lambda: detect_as_torchvision(ours, images, torchvision.transform),
        "torchvision": lambda: torchvision(images),
    }
    ours.eval(), torchvision.eval()
    with torch.inference_mode():
        detections = {side: [len(image["boxes"]) for image in detect()] for side, detect in inference.items()}
        inference_seconds = take_turns(inference, options.rounds, warm_up=1)
    ours.train(), torchvision.train()
    training_seconds = take_turns(training_steps(ours, torchvision, batch), options.rounds, warm_up=1)
    trained = [sum(p.numel() for p in network.parameters() if p.requires_grad) for network in (ours, torchvision)]
    return compare({"training step": training_seconds, "inference": inference_seconds}) | {
        "trained_parameters": trained,
        "detections": detections,
        "side": options.side,
        "images": options.images,
        "threads": options.threads,
    }


def table(record: dict[str, Any]) -> str:
    rows = []
    for phase, sides in record["seconds"].items():
        for kind in ("wall", "processor"):
            ours, torchvision = sides["ours"][kind], sides["torchvision"][kind]
            rows.append((f"{phase}, {kind} time", ours, torchvision, record["ratio"][phase][kind]))
    return comparison_table(rows)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--side", type=int, default=400, help="side of the images in pixels (400)")
    parser.add_argument("--images", type=int, default=2, help="images per step (2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides (1)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one to warm up (5)")
    run_benchmark("resnet", parser, measure, table)


if __name__ == "__main__":
    run_command(main)
