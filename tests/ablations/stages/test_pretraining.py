"""The targets of the dense task, on a scene that can be worked out by hand."""

import pytest
import torch

from ablations.stages.pretraining import (
    FINE,
    SIDE_UNIT,
    DenseNetwork,
    dense_losses,
    object_at,
    outline_targets,
    side_targets,
)
from data.build import build
from data.dataset import Sample, collate
from data.loaders import TrainBatches
from data.specs import ShapesSpec
from models.backbone import toy_backbone


def scene(flip=False):
    """64 px: object 1 (class 2) covers x 16..48, y 0..32; object 2 (class 1) covers x 48..64, y 0..32."""
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, :32, 16:48], masks[1, :32, 48:] = 1, 1
    boxes = torch.tensor([[16.0, 0, 48, 32], [48.0, 0, 64, 32]])
    sample = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), boxes, torch.tensor([2, 1]), masks, 1)
    return collate([sample], 3, [flip])


def test_a_cell_belongs_to_the_object_at_its_centre():
    centres = object_at(scene(), 0, 16, (4, 4))
    assert centres[0].tolist() == [[0, 1, 1, 2], [0, 1, 1, 2], [0] * 4, [0] * 4]


def test_outlines_separate_objects_from_each_other_and_from_the_background():
    objects = object_at(scene(), FINE // 2, FINE, (16, 16))
    outlines = outline_targets(objects)[0]
    assert outlines[0].nonzero().flatten().tolist() == [3, 11]  # x = 16 and x = 48
    assert outlines[7, 4:].all() and not outlines[8:].any()


def test_sides_are_measured_from_the_centre_of_the_cell():
    batch = scene()
    distance, inside = side_targets(batch, object_at(batch, 0, 16, (4, 4)), 16)
    assert inside[0, 0].tolist() == [[False, True, True, True]] * 2 + [[False] * 4] * 2
    assert (distance[0, :, 1, 2] * SIDE_UNIT).tolist() == [16, 16, 16, 16]  # at (32, 16) in the box 16, 0, 48, 32


@pytest.mark.parametrize("stride", [16, 32])
def test_the_dense_task_trains_the_backbones_of_both_strides(stride):
    network = DenseNetwork([4, 8, 8, 8], [1, 1, 1], 8, 3)
    losses = dense_losses(network, scene())
    sum(loss for name, loss in losses.items() if name.endswith(f"_{stride}")).backward()
    assert set(losses) == {f"{name}_{s}" for name in ("class", "outline", "sides") for s in (16, 32)}
    assert all(p.grad is not None for p in network.backbone(stride).parameters())


@pytest.mark.parametrize("stride", [16, 32])
def test_a_backbone_of_the_dense_network_has_the_layers_of_a_detectors(stride):
    network, backbone = DenseNetwork([4, 8, 8, 8], [1, 1, 1], 8, 3), toy_backbone([4, 8, 8, 8], [1, 1, 1], 8, stride)
    backbone.load_pretrained(network.backbone(stride).state_dict())
    images = scene().images
    assert torch.equal(backbone.eval()(images), network.backbone(stride).eval()(images))


def test_drawn_images_for_pretraining_never_repeat_and_are_no_studys():
    stream = build(ShapesSpec(num_train=4, num_val=4), "pretrain")
    batches = TrainBatches(stream, 4, seed=0)
    assert batches.indices(0) + batches.indices(1) == list(range(8))
    images = [stream[index].image for index in range(8)]
    others = [sample.image for split in ("train", "val", "test") for sample in build(stream.spec, split)]
    everything = torch.stack(images + others).flatten(1)
    assert len(everything.unique(dim=0)) == 8 + 12
