"""The targets of the dense task, on a scene that can be worked out by hand."""

import pytest
import torch

from ablations.stages.pretraining import FINE, SIDE_UNIT, DenseNetwork, _object_at, _outlines, _sides, dense_losses
from data.dataset import Sample, collate
from models.backbone import toy_trunk


def scene(flip=False):
    """64 px: object 1 (class 2) covers x 16..48, y 0..32; object 2 (class 1) covers x 48..64, y 0..32."""
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, :32, 16:48], masks[1, :32, 48:] = 1, 1
    boxes = torch.tensor([[16.0, 0, 48, 32], [48.0, 0, 64, 32]])
    sample = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), boxes, torch.tensor([2, 1]), masks, 1)
    return collate([sample], 3, [flip])


def test_a_cell_belongs_to_the_object_at_its_centre():
    centres = _object_at(scene(), 0, 16, (4, 4))
    assert centres[0].tolist() == [[0, 1, 1, 2], [0, 1, 1, 2], [0] * 4, [0] * 4]


def test_outlines_separate_objects_from_each_other_and_from_the_background():
    objects = _object_at(scene(), FINE // 2, FINE, (16, 16))
    outlines = _outlines(objects)[0]
    assert outlines[0].nonzero().flatten().tolist() == [3, 11]  # x = 16 and x = 48
    assert outlines[7, 4:].all() and not outlines[8:].any()


def test_sides_are_measured_from_the_centre_of_the_cell():
    batch = scene()
    distance, inside = _sides(batch, _object_at(batch, 0, 16, (4, 4)), 16)
    assert inside[0, 0].tolist() == [[False, True, True, True]] * 2 + [[False] * 4] * 2
    assert (distance[0, :, 1, 2] * SIDE_UNIT).tolist() == [16, 16, 16, 16]  # at (32, 16) in the box 16, 0, 48, 32


@pytest.mark.parametrize("stride", [16, 32])
def test_the_dense_task_trains_the_trunk(stride):
    trunk = toy_trunk([4, 8, 8, 8], [1, 1, 1], 8, stride)
    losses = dense_losses(DenseNetwork(trunk, 3), scene())
    sum(losses.values()).backward()
    assert set(losses) == {"dense_class", "dense_outline", "dense_sides"}
    assert all(p.grad is not None for p in trunk.parameters())
