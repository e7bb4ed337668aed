"""A step's micro batches are its batch in parts, with the same random numbers for each image."""

import pytest
import torch

from ablations.config.schema import ScheduleConfig
from ablations.training.batches import MicroBatches, uniform
from data.loaders import eval_batches
from data.scene import ShapesSpec
from data.shapes import draw


@pytest.fixture(scope="module")
def images():
    return draw(ShapesSpec(num_train=12, num_val=1), "train")


def micro_batches(images, number, seed=3):
    schedule = ScheduleConfig(steps=2, images_per_step=8, micro_batches=number)
    return MicroBatches(images, schedule, image_seed=5, seed=seed)


@pytest.mark.parametrize("number", [2, 4])
def test_micro_batches_together_are_the_batch(images, number):
    whole, parts = micro_batches(images, 1), micro_batches(images, number)
    batch, numbers = whole.batch(1, 0), whole.uniform((8, 5), "rois", 1, 0)
    for micro_batch in range(number):
        own = parts.batch(1, micro_batch)
        assert torch.equal(own.image_ids, batch.image_ids[micro_batch::number])
        assert torch.equal(own.images, batch.images[micro_batch::number])
        assert torch.equal(parts.uniform((8 // number, 5), "rois", 1, micro_batch), numbers[micro_batch::number])


def test_random_numbers_depend_on_seed_name_and_step(images):
    numbers = micro_batches(images, 1).uniform((8, 5), "rois", 0, 0)
    assert torch.equal(numbers, uniform((8, 5), 3, "rois", 0))
    for seed, name, step in ((4, "rois", 0), (3, "anchors", 0), (3, "rois", 1)):
        assert not torch.equal(numbers, micro_batches(images, 1, seed).uniform((8, 5), name, step, 0))


def test_ranks_take_turns_in_evaluation(images, monkeypatch):
    monkeypatch.setattr("data.loaders.EVAL_BATCH_SIZE", 5)
    shares = [[batch.indices.tolist() for batch in eval_batches(images, rank=rank, world_size=2)] for rank in (0, 1)]
    assert shares == [[[0, 1, 2, 3, 4], [10, 11]], [[5, 6, 7, 8, 9]]]
