"""Batches by step number. A step's batch depends on (set, seed, step) alone, so resuming needs only the step."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from data.dataset import Batch, InstanceSet, collate

# Keys that keep the two streams of random numbers apart.
_ORDER, _FLIP = 0, 1


class TrainBatches:
    """Training batches, each epoch in its own random order, each image mirrored with probability 1/2.

    dataset:         an InstanceSet with at least one image
    images_per_step: B; a batch may span two epochs, so every batch is full
    seed:            fixes order and flips
    flip:            False switches mirroring off
    """

    def __init__(self, dataset: InstanceSet, images_per_step: int, seed: int, flip: bool = True):
        if len(dataset) == 0:
            raise ValueError(f"expected at least one training image, got an empty set: {dataset.name}")
        if images_per_step < 1:
            raise ValueError(f"images_per_step: expected 1 or more, got {images_per_step}")
        self.dataset, self.images_per_step, self.seed, self.flip = dataset, images_per_step, seed, flip
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.dataset))

    def indices(self, step: int) -> list[int]:
        """Positions in the set of the images of this step, in the order of the batch."""
        places = range(step * self.images_per_step, (step + 1) * self.images_per_step)
        return [int(self._order(place // len(self.dataset))[place % len(self.dataset)]) for place in places]

    def flips(self, step: int) -> list[bool]:
        """Which images of this step are mirrored."""
        if not self.flip:
            return [False] * self.images_per_step
        rng = np.random.default_rng([_FLIP, self.seed, step])
        return (rng.random(self.images_per_step) < 0.5).tolist()

    def batch(self, step: int) -> Batch:
        """The batch of this step, 0 being the first, padded to the most objects that the set has in an image."""
        indices = self.indices(step)
        samples = [self.dataset[index] for index in indices]
        return collate(samples, self.dataset.max_objects, self.flips(step), indices)


def eval_batches(dataset: InstanceSet, images_per_batch: int) -> Iterator[Batch]:
    """All images once, in order, unmirrored; the last batch may be smaller."""
    for start in range(0, len(dataset), images_per_batch):
        indices = range(start, min(start + images_per_batch, len(dataset)))
        yield collate([dataset[index] for index in indices], dataset.max_objects, indices=indices)
