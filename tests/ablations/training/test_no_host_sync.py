"""A training step never waits for the GPU: it reads no value and no shape that the GPU has not computed yet.

On a GPU torch itself raises an error at a synchronisation. Without one the losses are computed from fake tensors, which
have a shape and a device but no values and so refuse the same operations (they have no gradients). The exception is
suppression, which only a joint RPN needs in training: how many boxes it keeps is not known beforehand.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ablations.config.schema import ScheduleConfig
from ablations.training.loop import TrainingSpec, fit
from ablations.training.loss_history import LossHistory
from models import detector, rpn
from models.build import build_mask_rcnn
from models.config import DetectorConfig, MaskHeadConfig, MaskLossConfig, ResNetConfig, RoIConfig, ToyConfig
from models.mask_rcnn import MaskRCNN
from models.structures import GroundTruth, Proposals
from ops import backends
from ops.backends import HAS_TRITON

SIDE, OBJECTS, CROWDS = 128, 3, 1
TOY = ToyConfig(
    channels=[4, 8, 8, 16], blocks=[1, 1, 1], roi_channels=8, shared_channels=8, shared_depth=1, box_hidden=16
)
PYRAMID = ResNetConfig(pyramid=True, box_depth=2, mask_pooled_size=14, mask_depth=1, proposals=64, proposals_before=64)
CASES = {
    "align": (TOY, RoIConfig("align"), "sigmoid", 16, False),
    "align max": (TOY, RoIConfig("align", reduce="max"), "sigmoid", 16, False),
    "pool": (TOY, RoIConfig("pool", reduce="max"), "softmax", 16, False),
    "pyramid": (PYRAMID, RoIConfig("align"), "sigmoid", 4, False),
    "joint": (TOY, RoIConfig("align"), "sigmoid", 16, True),
    "joint pyramid": (PYRAMID, RoIConfig("align"), "sigmoid", 4, True),
}
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def network_of(case: str) -> MaskRCNN:
    model, roi, loss, stride, joint = CASES[case]
    head = MaskHeadConfig("fcn", depth=0, channels=8)
    masks = {"mask_loss": MaskLossConfig(loss), "mask_head": head}
    return build_mask_rcnn(DetectorConfig(model, roi=roi, **masks, stride=stride, joint_rpn=joint), 5).train()


def losses_of(network: MaskRCNN) -> Callable[[], torch.Tensor]:
    """The sum of the losses of a training step on a GPU, or on what passes for one."""
    image = torch.randn(2, 3, SIDE, SIDE, device="cuda").to(memory_format=torch.channels_last)
    sizes = torch.full((2, 2), SIDE, device="cuda")
    low = SIDE / 2 * torch.rand(2, 64, 2, device="cuda")
    boxes = torch.cat([low, low + SIDE / 2 * torch.rand(2, 64, 2, device="cuda") + 1], dim=2)
    masks = torch.ones(2, OBJECTS, SIDE, SIDE, dtype=torch.uint8, device="cuda")
    labels = torch.ones(2, OBJECTS, dtype=torch.int64, device="cuda")
    truth = GroundTruth(boxes[:, :OBJECTS], labels, masks, boxes[:, -CROWDS:])
    proposals = None if network.rpn is not None else Proposals(boxes, torch.ones(2, 64, device="cuda"))
    draw = lambda name, shape: torch.rand(shape, device="cuda")  # noqa: E731

    def losses() -> torch.Tensor:
        return torch.stack(list(network(image, sizes, truth, proposals, draw).values())).sum()

    return losses


class NoCopies(TorchDispatchMode):
    """Refuses copies from main memory to a GPU: unless somebody prepares them, they wait."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            sources = {value.device.type for value in args if isinstance(value, torch.Tensor) and value.dim()}
            assert not (out.is_cuda and "cpu" in sources), f"{function} from main memory"
        return out


@pytest.fixture
def passes_for_a_gpu(monkeypatch):
    """Tensors without values, and Triton's operators without their kernels."""
    from ops.triton_kernels import launch

    def bilinear(tables, boxes, image, level, scales, spec):
        return launch.new_pooled(tables[0], len(boxes), spec)

    def pool(table, image, top, bottom, left, right):
        out = table.new_empty(len(top), top.shape[1], left.shape[1], table.shape[3])
        return out, torch.empty_like(out, dtype=torch.int32)

    monkeypatch.setattr(launch, "bilinear_forward_of", bilinear)
    monkeypatch.setattr(
        launch, "bilinear_backward_of", lambda grad, winners, shapes, *_: [grad.new_empty(each) for each in shapes]
    )
    monkeypatch.setattr(launch, "pool_forward_of", pool)
    monkeypatch.setattr(launch, "pool_backward_of", lambda grad, argmax, shape, *_: grad.new_empty(shape))
    monkeypatch.setattr(backends, "triton_refusal", lambda need: None)
    return FakeTensorMode(allow_non_fake_inputs=True)  # the network is built before


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_a_step_reads_no_value_from_the_gpu(case, passes_for_a_gpu, monkeypatch):
    def suppress(boxes, scores, classes, threshold, num_kept):
        return tuple(each.new_empty(len(each), num_kept, *each.shape[2:]) for each in (boxes, scores, classes))

    monkeypatch.setattr(rpn, "suppress", suppress)
    with torch.device("meta"):
        network = network_of(case)
    with passes_for_a_gpu:
        losses = losses_of(network.to_empty(device="cuda"))
        with NoCopies():
            assert losses().device.type == "cuda"


@needs_triton
def test_a_synchronisation_is_detected(passes_for_a_gpu, monkeypatch):
    with torch.device("meta"):
        joint, align, crop_masks = network_of("joint"), network_of("align"), detector.crop_masks
    with passes_for_a_gpu:
        losses = losses_of(joint.to_empty(device="cuda"))
        with pytest.raises(DynamicOutputShapeException):
            losses()
        losses = losses_of(align.to_empty(device="cuda"))
        monkeypatch.setattr(detector, "crop_masks", lambda *a: crop_masks(*a) * float(a[2].max()))
        with pytest.raises(DataDependentOutputException):
            losses()
        monkeypatch.setattr(detector, "crop_masks", lambda *a: crop_masks(*a) * a[2].new_tensor([1.0]))
        with NoCopies(), pytest.raises(AssertionError, match="from main memory"):
            losses()


@contextmanager
def waiting(mode: str):
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@on_a_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_a_training_on_a_gpu_synchronises_only_where_it_logs(case, precision, monkeypatch):
    suppress = rpn.suppress

    def may_wait(*arguments):
        with waiting("default"):
            return suppress(*arguments)

    monkeypatch.setattr(rpn, "suppress", may_wait)
    network, read = network_of(case).to("cuda"), LossHistory.read

    def may_read(self):
        with waiting("default"):
            return read(self)

    monkeypatch.setattr(LossHistory, "read", may_read)
    losses = losses_of(network)

    def strictly(step, micro_batch):
        # The first step compiles kernels and takes memory; from then on every wait is an error, the optimiser's too.
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        return {"all": losses()}

    with waiting("default"):
        done = fit(TrainingSpec(network, strictly, ScheduleConfig(steps=4), precision), lambda *_: None, 100)
    assert math.isfinite(done.losses["all"])
