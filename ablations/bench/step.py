"""The toy network's training step and inference, beside torchvision's Mask R-CNN in the same process.

    make bench        or        python -m ablations.bench.step [--threads N] [--out FOLDER]

Both sides do the same work: the same backbone with the same frozen stages and folded normalisation, the same layers in
the heads, the same anchors, numbers of anchors, proposals and RoIs, the same images and objects, float32, a joint RPN.
They differ in how they do it: torchvision works on lists, image by image, resizes every image (here to the size it
has), pools RoIs a second time for masks and runs the shared convolutions on them again.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from ablations.bench import common
from ablations.bench.common import as_list, compare, comparison_table, make_parser, run_benchmark, take_turns
from data.dataset import IMAGE_MEAN, IMAGE_STD, Batch, collate
from data.scene import CLASSES, ShapesSpec
from data.shapes import draw
from data.terminal import run_command
from models.build import build_backbone, build_mask_rcnn
from models.config import DetectorConfig, MaskHeadConfig, ToyConfig
from models.heads import BoxHead, ConvHead, FCNMaskHead
from models.initialise import initialise, set_initial_std
from models.mask_rcnn import MaskRCNN
from models.masks import paste_masks
from models.structures import GroundTruth

STRIDE = 16
IMAGES = 8
ROUNDS = 7
WARM_UP = 2


def our_network(settings: ToyConfig) -> MaskRCNN:
    network = build_mask_rcnn(DetectorConfig(settings, stride=STRIDE, joint_rpn=True), len(CLASSES))
    initialise(network, 0)
    return network.to(memory_format=torch.channels_last)


class Hidden(nn.Module):
    """The shared convolutions and the hidden layer, in the form of torchvision's `box_head`."""

    def __init__(self, shared: nn.Module, box: BoxHead) -> None:
        super().__init__()
        self.shared, self.hidden = shared, box.hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.shared(x).flatten(1)).relu()


class BoxPredictor(nn.Module):
    """Scores and deltas, background first, in the form of torchvision's `box_predictor`."""

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 * (num_classes + 1))
        set_initial_std(0.01, self.scores)
        set_initial_std(0.001, self.deltas)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.scores(x), self.deltas(x)


def torchvision_network(settings: ToyConfig) -> TorchvisionMaskRCNN:
    """torchvision's Mask R-CNN on the same backbone, heads, anchors and numbers."""
    backbone = build_backbone(settings, STRIDE)
    classes = len(CLASSES)
    shared = ConvHead(settings.roi_channels, settings.shared_channels, settings.shared_depth)
    box = BoxHead(shared.out_channels, settings.pooled_size, settings.box_hidden, classes)
    mask = FCNMaskHead(shared.out_channels, MaskHeadConfig().channels, MaskHeadConfig().depth, classes + 1)
    pool = lambda: MultiScaleRoIAlign(["0"], settings.pooled_size, sampling_ratio=2)  # noqa: E731
    side = ShapesSpec().image_side
    network = TorchvisionMaskRCNN(
        backbone,
        num_classes=None,
        min_size=side,
        max_size=side,
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
        rpn_anchor_generator=AnchorGenerator((tuple(settings.anchor_sizes),), (tuple(settings.anchor_ratios),)),
        rpn_pre_nms_top_n_train=settings.proposals_before,
        rpn_pre_nms_top_n_test=settings.proposals_before,
        rpn_post_nms_top_n_train=settings.proposals,
        rpn_post_nms_top_n_test=settings.proposals,
        rpn_batch_size_per_image=settings.anchors_per_image,
        box_roi_pool=pool(),
        box_head=Hidden(shared, box),
        box_predictor=BoxPredictor(settings.box_hidden, classes),
        box_batch_size_per_image=settings.rois_per_image,
        box_positive_fraction=settings.positive_fraction,
        box_detections_per_img=settings.detections_per_image,
        mask_roi_pool=pool(),
        mask_head=shared,
        mask_predictor=mask,
    )
    set_initial_std(0.01, network.rpn.head.cls_logits, network.rpn.head.bbox_pred)
    initialise(network, 0)
    return network.to(memory_format=torch.channels_last)


def matrix_rate() -> float:
    """Floating-point operations per second that this machine reaches on large float32 matrices; a multiply-add is 2."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    seconds = take_turns({"mm": lambda: a @ b}, ROUNDS, WARM_UP)
    return 2 * 1536**3 / min(seconds["mm"]["wall"])


def seconds_by_part(network: MaskRCNN, batch: Batch) -> dict[str, float]:
    """Median seconds of a training step: the parts of the forward pass, the backward pass and the optimiser."""
    truth = GroundTruth(batch.boxes, batch.labels, batch.masks, batch.crowds)
    spent: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            spent.setdefault(name, []).append(time.perf_counter() - start)
            return result

        return call

    optimizer = common.adamw(network)
    names = {"backbone": "backbone", "rpn": "RPN head", "shared_head": "shared head", "box_head": "box head"}
    for attribute, name in names.items():
        module = getattr(network, attribute)
        module.forward = timed(name, module.forward)
    network.roi_pooling = timed("RoI operator", network.roi_pooling)
    setattr(network, "mask_loss", timed("mask branch", network.mask_loss))  # noqa: B010
    setattr(network, "propose", timed("proposals", network.propose))  # noqa: B010
    for _ in range(ROUNDS):
        losses = timed("forward", network)(batch.images, batch.sizes, truth, None, common.draw)
        total = torch.stack(list(losses.values())).sum()
        timed("backward", total.backward)()
        timed("optimiser", optimizer.step)()
        optimizer.zero_grad()
    seconds = {name: statistics.median(values) for name, values in spent.items()}
    inside = sum(seconds[name] for name in [*names.values(), "RoI operator", "mask branch", "proposals"])
    seconds["matching, sampling, losses"] = seconds.pop("forward") - inside
    return seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = draw(ShapesSpec(num_train=IMAGES, num_val=1), "train")
    batch = collate([images[i] for i in range(IMAGES)], images.max_objects)
    ours, torchvision = our_network(ToyConfig()), torchvision_network(ToyConfig())
    steps = common.training_steps(ours, torchvision, batch)
    training = take_turns(steps, ROUNDS, WARM_UP)
    with FlopCounterMode(display=False) as counter:
        steps["ours"]()

    ours.eval(), torchvision.eval()
    side, (listed, _) = batch.images.shape[-1], as_list(batch)

    def detect() -> object:
        detections = ours(batch.images, batch.sizes)
        return [paste_masks(m, b, side, side) for m, b in zip(detections.masks, detections.boxes, strict=True)]

    with torch.inference_mode():
        inference = take_turns({"ours": detect, "torchvision": lambda: torchvision(listed)}, ROUNDS, WARM_UP)
    phases = {"training step": training, "inference": inference}
    record = compare({phase: {side: kinds["wall"] for side, kinds in sides.items()} for phase, sides in phases.items()})
    rate = matrix_rate()
    return record | {
        "parts": seconds_by_part(ours.train(), batch),
        "matrix_rate": rate,
        "fraction_of_matrix_rate": counter.get_total_flops() / record["seconds"]["training step"]["ours"] / rate,
        "threads": options.threads,
        "images": IMAGES,
        "stride": STRIDE,
    }


def table(record: dict[str, Any]) -> str:
    rows = [
        (phase, sides["ours"], sides["torchvision"], record["ratio"][phase])
        for phase, sides in record["seconds"].items()
    ]
    total = sum(record["parts"].values())
    parts = [f"  {name:28}{1e3 * s:7.1f} ms {s / total:6.1%}" for name, s in record["parts"].items()]
    return "\n".join(
        [
            comparison_table(rows),
            "\nour training step by part",
            *parts,
            f"\n{record['fraction_of_matrix_rate']:.0%} of the {record['matrix_rate'] / 1e9:.0f} GFLOP/s "
            f"that this machine reaches on large matrices with {record['threads']} thread(s)",
        ]
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides (1, as in runs of a study)")
    run_benchmark("step", parser, measure, table)


if __name__ == "__main__":
    run_command(main)
