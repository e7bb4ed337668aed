"""Batches by step number. A step's batch depends on (set, seed, step) alone, so resuming needs only the step."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from data.dataset import Batch, InstanceSet, collate

# Keys that keep the streams of random numbers apart.
_ORDER, _FLIP, _CHUNKS = 0, 1, 2

EVAL_BATCH_SIZE, EVAL_BATCH_SIZE_OF_PHOTOGRAPHS = 20, 4
"""Images that go through a network at once in evaluation."""

LOADER_THREADS = 4
"""Threads that decode photographs."""

PADDING = 32
"""Pixels: where images differ in size, they are padded to multiples of this, the coarsest stride."""


class TrainBatches:
    """Training batches, each epoch in its own random order, each image mirrored with probability 1/2. The images of an
    endless set are taken as they come.

    dataset:         an InstanceSet with at least one image
    images_per_step: B, over all micro batches; a batch may span two epochs, so every batch is full
    seed:            fixes order and flips
    num_threads:     prepare the following steps' batches ahead; 0 prepares each when it is asked for
    micro_batch, micro_batches: give this one of so many micro batches of each step: every micro_batches-th image
    """

    def __init__(
        self,
        dataset: InstanceSet,
        images_per_step: int,
        seed: int,
        num_threads: int = 0,
        micro_batch: int = 0,
        micro_batches: int = 1,
    ):
        if not dataset.endless and len(dataset) == 0:
            raise ValueError(f"expected at least one training image, got an empty set: {dataset.name}")
        if images_per_step < 1 or images_per_step % micro_batches:
            raise ValueError(f"images_per_step: expected a multiple of {micro_batches}, got {images_per_step}")
        self.dataset, self.images_per_step, self.seed = dataset, images_per_step, seed
        self.micro_batch, self.micro_batches = micro_batch, micro_batches
        self._order = lru_cache(maxsize=2)(self._draw_order)
        self._num_threads, self._pool = num_threads, ThreadPoolExecutor(num_threads) if num_threads else None
        self._ahead: dict[int, Future[Batch]] = {}

    def _draw_order(self, epoch: int) -> np.ndarray:
        """A permutation of the set. Where shapes differ, wide and high images mostly come in different batches."""
        order = np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.dataset))
        wide = self.dataset.wide
        if wide is None:
            return order
        order = np.concatenate((order[wide[order]], order[~wide[order]]))
        # The batch that began in the epoch before is completed first; full batches are then shuffled.
        first = -epoch * len(order) % self.images_per_step
        count = max(0, len(order) - first) // self.images_per_step
        last = first + count * self.images_per_step
        chunks = order[first:last].reshape(count, self.images_per_step)
        shuffled = np.random.default_rng([_CHUNKS, self.seed, epoch]).permutation(chunks)
        return np.concatenate((order[:first], shuffled.ravel(), order[last:]))

    def indices(self, step: int) -> list[int]:
        """Positions in the set of all images of this step, in the order of the batch."""
        positions = range(step * self.images_per_step, (step + 1) * self.images_per_step)
        if self.dataset.endless:
            return list(positions)
        return [int(self._order(position // len(self.dataset))[position % len(self.dataset)]) for position in positions]

    def flips(self, step: int) -> list[bool]:
        """Which images of this step are mirrored."""
        rng = np.random.default_rng([_FLIP, self.seed, step])
        return (rng.random(self.images_per_step) < 0.5).tolist()

    def batch(self, step: int) -> Batch:
        """The images of a step, 0 being the first, or of this micro batch of it."""
        if self._pool is None:
            return self._load(step)
        # Steps nobody asked for in order (after a jump) are forgotten; asking in order finds its batch ready.
        wanted = range(step, step + 1 + self._num_threads)
        for other in [key for key in self._ahead if key not in wanted]:
            self._ahead.pop(other).cancel()
        for ahead in wanted:
            if ahead not in self._ahead:
                self._ahead[ahead] = self._pool.submit(self._load, ahead)
        return self._ahead.pop(step).result()

    def _load(self, step: int) -> Batch:
        indices = slice(self.micro_batch, None, self.micro_batches)
        return load_batch(self.dataset, self.indices(step)[indices], self.flips(step)[indices])


def eval_batches(
    dataset: InstanceSet,
    images_per_batch: int | None = None,
    num_threads: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """All images once, in order, unmirrored; the last batch may be smaller.

    images_per_batch: by default fewer of photographs, which are larger
    num_threads:      prepare batches ahead; by default as `loader_threads` says
    rank, world_size: this process takes every world_size-th batch, from `rank` on
    """
    if images_per_batch is None:
        images_per_batch = EVAL_BATCH_SIZE if dataset.same_size else EVAL_BATCH_SIZE_OF_PHOTOGRAPHS
    if num_threads is None:
        num_threads = loader_threads(dataset)
    starts = range(rank * images_per_batch, len(dataset), images_per_batch * world_size)
    groups = [range(start, min(start + images_per_batch, len(dataset))) for start in starts]
    if not num_threads:
        for indices in groups:
            yield load_batch(dataset, indices)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        ahead: list[Future[Batch]] = []
        for indices in groups:
            ahead.append(pool.submit(load_batch, dataset, indices))
            if len(ahead) > num_threads:
                yield ahead.pop(0).result()
        for batch in ahead:
            yield batch.result()


def loader_threads(dataset: InstanceSet) -> int:
    """Threads that prepare batches ahead: photographs have to be decoded, an endless set's images have to be drawn, and
    those of other synthetic sets are in memory already."""
    if dataset.endless:
        return 1
    return 0 if dataset.same_size else LOADER_THREADS


def load_batch(dataset: InstanceSet, indices: Sequence[int], flips: list[bool] | None = None) -> Batch:
    """The images at these positions of a set as one batch; flips: which of them to mirror, by default none.

    Fixed shapes where all images have one size; else as small as the images allow, in multiples of PADDING.
    """
    samples = [dataset[index] for index in indices]
    if dataset.same_size:
        return collate(samples, dataset.max_objects, flips, indices)
    height, width = (-(-max(sample.image.shape[axis] for sample in samples) // PADDING) * PADDING for axis in (1, 2))
    return collate(samples, None, flips, indices, size=(height, width), with_images=dataset.reads_images)
