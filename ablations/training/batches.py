"""The images and random numbers of a training: functions of seed, step and micro batch, not of what came before."""

import torch
from torch import Tensor

from ablations.config.schema import ScheduleConfig
from data.dataset import Batch, InstanceSet
from data.loaders import TrainBatches, loader_threads
from models.initialise import derive_seed


class MicroBatches:
    """The micro batches of each training step. Together they are the step's batch, however many they are: image i of
    the batch is in number i modulo their number and has the same random numbers.

    image_seed decides the order and the mirroring of the images, seed the numbers that `uniform` draws.
    """

    def __init__(self, dataset: InstanceSet, schedule: ScheduleConfig, image_seed: int, seed: int) -> None:
        self.micro_batches, self.seed = schedule.micro_batches, seed
        self.loaders = [
            TrainBatches(
                dataset,
                schedule.images_per_step,
                image_seed,
                num_threads=loader_threads(dataset),
                micro_batch=micro_batch,
                micro_batches=self.micro_batches,
            )
            for micro_batch in range(self.micro_batches)
        ]

    def batch(self, step: int, micro_batch: int) -> Batch:
        return self.loaders[micro_batch].batch(step)

    def uniform(self, shape: tuple[int, ...], name: str, step: int, micro_batch: int) -> Tensor:
        """Uniform random numbers [images of the micro batch, ...], float32 in 0..1."""
        numbers = uniform((shape[0] * self.micro_batches, *shape[1:]), self.seed, name, step)
        return numbers[micro_batch :: self.micro_batches]


def uniform(shape: tuple[int, ...], seed: int, *names: object) -> Tensor:
    """Uniform random numbers in 0..1 that depend on the seed and the names only."""
    generator = torch.Generator().manual_seed(derive_seed(seed, *names))
    return torch.rand(shape, generator=generator)
