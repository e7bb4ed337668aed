"""Batches: padded right, mirrored together, and the same for a step whatever came before it."""

import dataclasses

import numpy as np
import pytest
import torch

from data.dataset import CROWD, IMAGE_MEAN, IMAGE_STD, Batch, InstanceSet, Sample, collate, flip_boxes
from data.loaders import TrainBatches, eval_batches
from data.shapes import ShapesSpec, draw


@pytest.fixture(scope="module")
def drawn():
    return draw(ShapesSpec(num_train=10), "train")


class Blanks(InstanceSet):
    """Empty pictures of given sizes, with one object each that covers the left half."""

    name, classes, digest, max_objects, same_size = "blanks", ["half"], "0", 1, False

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = self.sizes[index]
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[:, :, : width // 2] = 1
        box = torch.tensor([[0.0, 0.0, width // 2, height]])
        return Sample(torch.full((3, height, width), 7, dtype=torch.uint8), box, torch.ones(1).long(), mask, index)

    @property
    def wide(self):
        return np.array([width > height for height, width in self.sizes])


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(Batch))


def test_a_batch_depends_on_its_step_alone(drawn):
    straight = TrainBatches(drawn, 4, seed=3)
    batches = [straight.batch(step) for step in range(7)]
    assert same(TrainBatches(drawn, 4, seed=3).batch(6), batches[6])
    backwards = TrainBatches(drawn, 4, seed=3)
    assert all(same(backwards.batch(step), batches[step]) for step in reversed(range(7)))
    ahead = TrainBatches(drawn, 4, seed=3, num_threads=2)
    assert all(same(ahead.batch(step), batches[step]) for step in (0, 1, 2, 6, 2, 3))
    assert not torch.equal(TrainBatches(drawn, 4, seed=4).batch(0).indices, batches[0].indices)


def test_each_epoch_shows_each_image_once_in_another_order(drawn):
    loader = TrainBatches(drawn, 4, seed=0)
    shown = [index for step in range(5) for index in loader.indices(step)]
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert shown[:10] != shown[10:]


def test_a_step_may_be_larger_than_the_set(drawn):
    shown = np.bincount(TrainBatches(drawn, 25, seed=0).indices(0), minlength=10)
    assert shown.sum() == 25 and set(shown.tolist()) == {2, 3}


def test_the_parts_of_a_step_do_not_overlap(drawn):
    whole = TrainBatches(drawn, 4, seed=0).batch(1)
    halves = [TrainBatches(drawn, 4, seed=0, micro_batch=k, micro_batches=2).batch(1) for k in range(2)]
    assert torch.equal(torch.stack([half.indices for half in halves], 1).flatten(), whole.indices)
    assert torch.equal(halves[1].images, whole.images[1::2]) and torch.equal(halves[0].flipped, whole.flipped[::2])
    with pytest.raises(ValueError, match="multiple of 3"):
        TrainBatches(drawn, 4, seed=0, micro_batches=3)


def test_mirroring_moves_pixels_boxes_and_masks_together(drawn):
    samples = [drawn[index] for index in range(4)]
    plain, mirrored = collate(samples), collate(samples, flipped=[True] * 4)
    assert torch.equal(plain.images.flip(3), mirrored.images)
    assert torch.equal(plain.masks.flip(3), mirrored.masks)
    assert torch.equal(plain.labels, mirrored.labels)
    assert mirrored.flipped.all() and not plain.flipped.any()
    for batch in (plain, mirrored):
        for b, g in (batch.labels > 0).nonzero().tolist():
            rows, columns = batch.masks[b, g].nonzero(as_tuple=True)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert batch.boxes[b, g].tolist() == [float(value) for value in expected]
    assert torch.equal(flip_boxes(flip_boxes(plain.boxes, 256), 256), plain.boxes)


def test_images_are_normalised_and_channels_last(drawn):
    batch = collate([drawn[0], drawn[1]])
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    mean, std = torch.tensor(IMAGE_MEAN)[:, None, None], torch.tensor(IMAGE_STD)[:, None, None]
    expected = (drawn[1].image / 255 - mean) / std
    assert torch.allclose(batch.images[1], expected, atol=1e-5)


def test_padding_is_zero_and_sizes_say_what_is_image():
    batch = collate([Blanks([(6, 9)])[0], Blanks([(8, 4)])[0]], num_ground_truths=3, flipped=[True, False])
    assert batch.images.shape == (2, 3, 8, 9) and batch.masks.shape == (2, 3, 8, 9)
    assert batch.sizes.tolist() == [[6, 9], [8, 4]] == batch.original_sizes.tolist()
    assert batch.images[0, :, 6:].abs().sum() == 0 and batch.images[1, :, :, 4:].abs().sum() == 0
    assert batch.boxes[0, 0].tolist() == [5, 0, 9, 6], "mirrored within its own width, not the padded one"
    assert batch.labels.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert batch.masks[0, 0, :6, 5:].all() and batch.masks[0].sum() == 24


def test_crowd_regions_stand_apart_from_the_objects_and_are_mirrored_too():
    """The first sample has an object and two crowd regions, the second two objects."""
    image, masks = torch.zeros(3, 10, 20, dtype=torch.uint8), torch.zeros(3, 10, 20, dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 5, 5], [2, 2, 8, 8], [10, 0, 20, 10]])
    crowded = Sample(image, boxes, torch.tensor([4, CROWD, CROWD]), masks, 1)
    plain = Sample(image, boxes[:2], torch.tensor([1, 2]), masks[:2], 2)
    batch = collate([crowded, plain], flipped=[True, False])
    assert batch.labels.tolist() == [[4, 0], [1, 2]] and batch.masks.shape == (2, 2, 10, 20)
    assert batch.boxes[0].tolist() == [[15, 0, 20, 5], [0, 0, 0, 0]]
    assert batch.crowds[0].tolist() == [[12, 2, 18, 8], [0, 0, 10, 10]] and batch.crowds[1].isnan().all()
    assert collate([plain]).crowds.shape == (1, 0, 4)
    with pytest.raises(AssertionError, match="crowds come last"):
        collate([Sample(image, boxes[:2], torch.tensor([CROWD, 4]), masks[:2], 3)])


def test_more_objects_than_room_are_refused(drawn):
    with pytest.raises(ValueError, match=r"at most 1 objects in an image, got \d; raise num_ground_truths"):
        collate([drawn[0]], num_ground_truths=1)
    with pytest.raises(ValueError, match="raise the size"):
        collate([drawn[0]], size=(256, 128))


def test_fixed_shapes_for_the_drawn_set(drawn):
    for batch in (TrainBatches(drawn, 2, seed=0).batch(0), next(eval_batches(drawn, 2))):
        assert batch.images.shape == (2, 3, 256, 256) and batch.masks.shape == (2, drawn.max_objects, 256, 256)


def test_evaluation_shows_all_images_in_order(drawn):
    batches = list(eval_batches(drawn, 4))
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(10))
    assert [len(batch.images) for batch in batches] == [4, 4, 2]
    assert all(same(a, b) for a, b in zip(batches, eval_batches(drawn, 4, num_threads=2), strict=True))
    shared = [torch.cat([b.indices for b in eval_batches(drawn, 4, rank=rank, world_size=2)]) for rank in range(2)]
    assert sorted(torch.cat(shared).tolist()) == list(range(10))


def test_landscape_and_portrait_images_rarely_share_a_batch():
    sizes = [(40, 60), (60, 40)] * 25
    loader = TrainBatches(Blanks(sizes), 4, seed=0)
    mixed, shown = 0, []
    for step in range(50):
        indices = loader.indices(step)
        shown += indices
        mixed += len({index % 2 for index in indices}) > 1
    assert np.bincount(shown).tolist() == [4] * 50, "four epochs show each image four times"
    assert mixed <= 8, "at most where they meet and where epochs meet"
    batch = loader.batch(1)
    assert batch.images.shape[2] % 32 == 0 and batch.images.shape[3] % 32 == 0


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least one training image"):
        TrainBatches(Blanks([]), 4, seed=0)
