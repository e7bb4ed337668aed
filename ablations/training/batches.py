"""The images and random numbers of a training stage: functions of seed, step and part, not of what was drawn before."""

import torch
from torch import Tensor

from ablations.config.schema import ScheduleConfig
from data.dataset import Batch, InstanceSet
from data.loaders import TrainBatches, loader_threads
from models.initialise import derive_seed


class MicroBatches:
    """The micro batches of each training step. Together they are the step's batch, whatever `num_parts` is: image i of
    the batch is in part i % num_parts and has the same random numbers.

    image_seed decides the order and the mirroring of the images, seed the numbers that `uniform` draws.
    """

    def __init__(self, dataset: InstanceSet, schedule: ScheduleConfig, image_seed: int, seed: int) -> None:
        self.num_parts, self.seed = schedule.micro_batches, seed
        self.loaders = [
            TrainBatches(
                dataset,
                schedule.images_per_step,
                image_seed,
                num_threads=loader_threads(dataset),
                part=part,
                num_parts=self.num_parts,
            )
            for part in range(self.num_parts)
        ]

    def batch(self, step: int, part: int) -> Batch:
        return self.loaders[part].batch(step)

    def uniform(self, shape: tuple[int, ...], name: str, step: int, part: int) -> Tensor:
        """Uniform random numbers [images of the part, ...], float32 in 0..1."""
        return uniform((shape[0] * self.num_parts, *shape[1:]), self.seed, name, step)[part :: self.num_parts]


def uniform(shape: tuple[int, ...], seed: int, *names: object) -> Tensor:
    """Uniform random numbers in 0..1 that depend on the seed and the names only."""
    generator = torch.Generator().manual_seed(derive_seed(seed, *names))
    return torch.rand(shape, generator=generator)
