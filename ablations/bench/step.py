"""The toy network's training step and inference beside torchvision's own Mask R-CNN, in one run, as ratios.

    make bench        or        python -m ablations.bench.step [--threads N] [--out FOLDER]

Same work on both sides: the same trunk with the same frozen stages and folded normalisation, the same layers in the
heads, the same anchors, numbers of anchors, proposals and RoIs, the same images and objects, float32, one joint RPN.
What differs is how it is done: torchvision works image by image on lists, resizes every image (here: to its own
size), pools masks' RoIs a second time and runs the shared convolutions on them again.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from ablations.records.provenance import provenance
from ablations.training.batches import uniform
from data.dataset import IMAGE_MEAN, IMAGE_STD, Batch, collate
from data.scene import CLASSES, ShapesSpec
from data.shapes import draw
from models.build import build_mask_rcnn, build_trunk
from models.config import MaskClassConfig, MaskHeadConfig, MaskLossConfig, RoIConfig, ToyConfig
from models.detector import GroundTruth
from models.heads import BoxHead, ConvHead, FCNMaskHead
from models.initialise import initialise, set_initial_std
from models.mask_rcnn import MaskRCNN
from models.masks import paste_masks

STRIDE = 16
IMAGES = 8
ROUNDS = 7


def ours(model: ToyConfig) -> MaskRCNN:
    network = build_mask_rcnn(
        model, RoIConfig(), MaskLossConfig(), MaskClassConfig(), MaskHeadConfig(), STRIDE, len(CLASSES), joint_rpn=True
    )
    initialise(network, 0)
    return network.to(memory_format=torch.channels_last)


class Hidden(nn.Module):
    """The shared convolutions and the hidden layer, as torchvision's `box_head` wants them."""

    def __init__(self, shared: nn.Module, box: BoxHead) -> None:
        super().__init__()
        self.shared, self.hidden = shared, box.hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.shared(x).flatten(1)).relu()


class Predictor(nn.Module):
    """Scores and deltas, background first, as torchvision's `box_predictor` wants them."""

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 * (num_classes + 1))
        set_initial_std(0.01, self.scores)
        set_initial_std(0.001, self.deltas)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.scores(x), self.deltas(x)


def torchvisions(model: ToyConfig) -> TorchvisionMaskRCNN:
    """torchvision's Mask R-CNN on the same trunk, heads, anchors and numbers."""
    trunk = build_trunk(model, STRIDE)
    classes = len(CLASSES)
    shared = ConvHead(model.roi_channels, model.shared_channels, model.shared_depth)
    box = BoxHead(shared.out_channels, model.pooled_size, model.box_hidden, classes)
    mask = FCNMaskHead(shared.out_channels, MaskHeadConfig().channels, MaskHeadConfig().depth, classes + 1)
    pool = lambda: MultiScaleRoIAlign(["0"], model.pooled_size, sampling_ratio=2)  # noqa: E731
    side = ShapesSpec().image_side
    network = TorchvisionMaskRCNN(
        trunk,
        num_classes=None,
        min_size=side,
        max_size=side,
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
        rpn_anchor_generator=AnchorGenerator((tuple(model.anchor_sizes),), (tuple(model.anchor_ratios),)),
        rpn_pre_nms_top_n_train=model.proposals_before,
        rpn_pre_nms_top_n_test=model.proposals_before,
        rpn_post_nms_top_n_train=model.proposals,
        rpn_post_nms_top_n_test=model.proposals,
        rpn_batch_size_per_image=model.anchors_per_image,
        box_roi_pool=pool(),
        box_head=Hidden(shared, box),
        box_predictor=Predictor(model.box_hidden, classes),
        box_batch_size_per_image=model.rois_per_image,
        box_positive_fraction=model.positive_fraction,
        box_detections_per_img=model.detections_per_image,
        mask_roi_pool=pool(),
        mask_head=shared,
        mask_predictor=mask,
    )
    set_initial_std(0.01, network.rpn.head.cls_logits, network.rpn.head.bbox_pred)
    initialise(network, 0)
    return network.to(memory_format=torch.channels_last)


def as_list(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The batch in torchvision's form: images of 0..1 and dictionaries of what they contain."""
    std, mean = torch.tensor(IMAGE_STD)[:, None, None], torch.tensor(IMAGE_MEAN)[:, None, None]
    sizes = batch.sizes.tolist()
    images = [(image[:, :h, :w] * std + mean).contiguous() for image, (h, w) in zip(batch.images, sizes, strict=True)]
    real = [labels > 0 for labels in batch.labels]
    targets = [
        {"boxes": batch.boxes[i][keep], "labels": batch.labels[i][keep], "masks": batch.masks[i][keep][:, :h, :w]}
        for i, (keep, (h, w)) in enumerate(zip(real, sizes, strict=True))
    ]
    return images, targets


def training_step(network: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(losses().values())).sum().backward()
        optimizer.step()

    return step


def side_by_side(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each work, taken in turns so that what disturbs the machine disturbs all."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def matrix_rate() -> float:
    """Multiply-adds, times two, per second that this machine reaches on large float32 matrices."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    best = min(side_by_side({"mm": lambda: a @ b})["mm"])
    return 2 * 1536**3 / best


def parts(network: MaskRCNN, batch: Batch, truth: GroundTruth) -> dict[str, float]:
    """Seconds of the forward pass by part, the backward pass and the optimiser, of one typical step (medians)."""
    spent: dict[str, list[float]] = {}

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments, **options):
            start = time.perf_counter()
            result = function(*arguments, **options)
            spent.setdefault(name, []).append(time.perf_counter() - start)
            return result

        return call

    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, fused=True)
    names = {"backbone": "trunk", "rpn": "RPN head", "shared_head": "shared head", "box_head": "box head"}
    for attribute, name in names.items():
        module = getattr(network, attribute)
        module.forward = timed(name, module.forward)
    network.roi_pooling = timed("RoI operator", network.roi_pooling)
    setattr(network, "mask_loss", timed("mask branch", network.mask_loss))  # noqa: B010
    setattr(network, "_propose", timed("proposals", network._propose))  # noqa: B010
    for _ in range(ROUNDS):
        losses = timed("forward", network.losses)(batch.images, batch.sizes, truth, None, _draw)
        total = torch.stack(list(losses.values())).sum()
        timed("backward", total.backward)()
        timed("optimiser", optimizer.step)()
        optimizer.zero_grad()
    seconds = {name: statistics.median(values) for name, values in spent.items()}
    inside = sum(seconds[name] for name in [*names.values(), "RoI operator", "mask branch", "proposals"])
    seconds["matching, sampling, losses"] = seconds.pop("forward") - inside
    return seconds


def _draw(name: str, shape: tuple[int, ...]) -> Tensor:
    return uniform(shape, 0, name)


def measure(model: ToyConfig) -> dict[str, object]:
    images = draw(ShapesSpec(num_train=IMAGES, num_val=1), "train")
    batch = collate([images[i] for i in range(IMAGES)], images.max_objects)
    truth = GroundTruth(batch.boxes, batch.labels, batch.masks, batch.crowds)
    listed, targets = as_list(batch)
    mine, theirs = ours(model), torchvisions(model)

    def my_losses() -> dict[str, Tensor]:
        return mine.losses(batch.images, batch.sizes, truth, None, _draw)

    step = training_step(mine, my_losses)
    their_step = training_step(theirs, lambda: theirs(listed, targets))
    training = side_by_side({"ours": step, "torchvision": their_step})
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()

    mine.eval(), theirs.eval()
    side = batch.images.shape[-1]

    def detect() -> object:
        found = mine.detect(batch.images, batch.sizes, None)
        assert found.masks is not None
        return [paste_masks(m, b, side, side) for m, b in zip(found.masks, found.boxes, strict=True)]

    with torch.inference_mode():
        inference = side_by_side({"ours": detect, "torchvision": lambda: theirs(listed)})
    rate = matrix_rate()
    medians = {name: {who: statistics.median(values) for who, values in seconds.items()}
               for name, seconds in (("training step", training), ("inference", inference))}  # fmt: skip
    return {
        "seconds": medians,
        "all_seconds": {"training step": training, "inference": inference},
        "ratio": {name: who["torchvision"] / who["ours"] for name, who in medians.items()},
        "parts": parts(mine.train(), batch, truth),
        "matrix_rate": rate,
        "fraction_of_matrix_rate": flops / medians["training step"]["ours"] / rate,
    }


def table(record: dict) -> str:
    lines = [f"{'':16}{'ours':>10}{'torchvision':>14}{'ratio':>8}"]
    for name, who in record["seconds"].items():
        ratio = record["ratio"][name]
        lines.append(f"{name:16}{1e3 * who['ours']:8.0f} ms{1e3 * who['torchvision']:11.0f} ms{ratio:7.1f}x")
    total = sum(record["parts"].values())
    lines.append("\nour training step by part")
    lines += [f"  {name:28}{1e3 * s:7.1f} ms {s / total:6.1%}" for name, s in record["parts"].items()]
    lines.append(
        f"\n{record['fraction_of_matrix_rate']:.0%} of the {record['matrix_rate'] / 1e9:.0f} GFLOP/s "
        f"that this machine reaches on large matrices with {record['threads']} thread(s)"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides (default 1: as runs of a study)")
    parser.add_argument("--out", type=Path, default=Path("reports/out/bench"), help="where step.json goes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    started = datetime.now(UTC)
    record = measure(ToyConfig()) | {"threads": arguments.threads, "images": IMAGES, "stride": STRIDE}
    record["provenance"] = provenance(started)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "step.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    print(f"\nrecord: {arguments.out / 'step.json'}")


if __name__ == "__main__":
    main()
