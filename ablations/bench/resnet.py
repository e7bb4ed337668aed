"""ResNet-50 with a feature pyramid beside torchvision's own: the same weights, a training step and inference.

    python -m ablations.bench.resnet [--side 400] [--images 2] [--threads N] [--rounds N] [--out FOLDER]

Same work on both sides: 1,000 proposals, 512 RoIs an image, the same images and objects, the same frozen stages and
normalisation, AdamW. Both take turns in one process. Beside the time that passes, which other programs on the machine
disturb, the processor time that each took is given.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from ablations.bench.step import as_list, training_step
from ablations.records.provenance import provenance
from ablations.training.batches import uniform
from data.dataset import IMAGE_MEAN, IMAGE_STD, Batch, Sample, collate
from models.detector import GroundTruth
from models.torchvision_weights import detect_as_torchvision, from_torchvision

CLASSES = 80
OBJECTS = 6
RESIDUAL = 0.2
"""What a block adds to its input at first: random weights without normalisation would grow from block to block."""

SHARPNESS = 30
"""By how much class scores are spread, so that inference has detections to draw masks of."""


def torchvisions(side: int) -> TorchvisionMaskRCNN:
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
    """Noise with coloured discs: `count` images of this side, each with a few objects."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    places = torch.arange(side)
    for index in range(count):
        image = torch.randint(0, 80, (3, side, side), generator=generator, dtype=torch.uint8)
        centres = torch.rand(OBJECTS, 2, generator=generator) * side
        radii = side * (0.05 + 0.15 * torch.rand(OBJECTS, generator=generator))
        x, y = (centres[:, i, None, None] - places.view(shape) for i, shape in ((0, (1, 1, -1)), (1, (1, -1, 1))))
        masks = (x**2 + y**2 < radii[:, None, None] ** 2).to(torch.uint8)
        for mask in masks:
            image[:, mask.bool()] = torch.randint(80, 255, (3, 1), generator=generator, dtype=torch.uint8)
        boxes = torch.cat([centres - radii[:, None], centres + radii[:, None]], dim=1).clamp(0, side)
        labels = torch.randint(1, CLASSES + 1, (OBJECTS,), generator=generator)
        samples.append(Sample(image, boxes, labels, masks, index + 1))
    padded = -(-side // 32) * 32
    return collate(samples, size=(padded, padded))


def take_turns(works: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """For each work the seconds that passed and those that processors spent, round by round, after one to warm up."""
    spent: dict[str, dict[str, list[float]]] = {name: {"wall": [], "processor": []} for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            wall, processor = time.perf_counter(), time.process_time()
            work()
            spent[name]["wall"].append(time.perf_counter() - wall)
            spent[name]["processor"].append(time.process_time() - processor)
    return spent


def measure(side: int, count: int, rounds: int) -> dict[str, object]:
    theirs = torchvisions(side)
    mine = from_torchvision(theirs.state_dict())
    batch = photographs(count, side)
    truth = GroundTruth(batch.boxes, batch.labels, batch.masks, batch.crowds)
    listed, targets = as_list(batch)

    def my_losses() -> dict[str, Tensor]:
        return mine.losses(batch.images, batch.sizes, truth, None, lambda name, shape: uniform(shape, 0, name))

    trained = [sum(p.numel() for p in network.parameters() if p.requires_grad) for network in (mine, theirs)]
    inference = {
        "ours": lambda: detect_as_torchvision(mine, listed, theirs.transform),
        "torchvision": lambda: theirs(listed),
    }
    mine.eval(), theirs.eval()
    with torch.inference_mode():
        detections = {name: [len(image["boxes"]) for image in work()] for name, work in inference.items()}
        found = take_turns(inference, rounds)
    mine.train(), theirs.train()
    steps = {
        "ours": training_step(mine, my_losses),
        "torchvision": training_step(theirs, lambda: theirs(listed, targets)),
    }
    seconds = {"training step": take_turns(steps, rounds), "inference": found}
    medians = {
        work: {who: {kind: statistics.median(values) for kind, values in kinds.items()} for who, kinds in sides.items()}
        for work, sides in seconds.items()
    }
    ratios = {
        work: {kind: sides["torchvision"][kind] / sides["ours"][kind] for kind in ("wall", "processor")}
        for work, sides in medians.items()
    }
    return {
        "seconds": medians,
        "all_seconds": seconds,
        "ratio": ratios,
        "trained_parameters": trained,
        "detections": detections,
    }


def table(record: dict) -> str:
    lines = [f"{'seconds':28}{'ours':>10}{'torchvision':>14}{'ratio':>8}"]
    for work, sides in record["seconds"].items():
        for kind, title in (("wall", "passed"), ("processor", "of processors")):
            ours, theirs = sides["ours"][kind], sides["torchvision"][kind]
            lines.append(f"{work + ', ' + title:28}{ours:10.2f}{theirs:14.2f}{record['ratio'][work][kind]:7.2f}x")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=400, help="of the images, in pixels (400)")
    parser.add_argument("--images", type=int, default=2, help="a step (2)")
    parser.add_argument("--threads", type=int, default=1, help="of both sides (1)")
    parser.add_argument("--rounds", type=int, default=5, help="after one to warm up (5)")
    parser.add_argument("--out", type=Path, default=Path("reports/out/bench"), help="where resnet.json goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    started = datetime.now(UTC)
    record = measure(options.side, options.images, options.rounds)
    record |= {"side": options.side, "images": options.images, "threads": options.threads}
    record["provenance"] = provenance(started)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "resnet.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    print(f"\nrecord: {options.out / 'resnet.json'}")


if __name__ == "__main__":
    main()
