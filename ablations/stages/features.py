"""What networks take: images or, behind a fully frozen backbone (model.freeze=all), its maps.

Such a backbone's maps never change. So a stage computes those of every image, and of every training image's mirror
image, once; runs train their heads on them. A map is that of a single image, padded to multiples of PADDING, whatever
else is in a batch, and is rounded to float16. cache_features=false computes it in the same way whenever it is needed:
with the same number of threads the result is the same to the bit.

Letters: B images, C channels, h and w cells of the map.
"""

import dataclasses
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ablations.config.schema import Config
from ablations.errors import TrainingError
from ablations.records.code_version import code_version
from ablations.records.run_log import RunLog
from ablations.records.storage import write_atomically
from ablations.stages.store import CODE, Stages, load_stage
from ablations.training.loop import AUTOCAST
from ablations.training.stopping import check_stop
from data import digests
from data.dataset import Batch, InstanceSet
from data.loaders import PADDING, load_batch
from models.backbone import Backbone, load_pretrained
from models.build import build_frozen_backbone

SAMPLED = 16
"""Images of a split that the size of all maps is estimated from."""

Maps = Callable[[Batch], list[Tensor]]
"""A batch, as it was loaded, to each image's map, float16 [h, w, C] in main memory."""


def network_inputs(stages: Stages, split: str) -> Callable[[Batch], Batch]:
    """What makes a batch of a split's images, as it was loaded, the network's input, in the device's memory.

    A fully frozen backbone has its maps, float32 [B, C, h, w], in place of the images.
    """
    config, maps = stages.config, None
    if config.model.frozen:
        cached = CachedMaps(stages.features_folder, split) if config.cache_features else None
        maps = cached or frozen_backbone(stages.backbone_file, config, stages.device)
    return inputs_with(maps, config.stride, stages.device)


def inputs_with(maps: Maps | None, stride: int, device: torch.device) -> Callable[[Batch], Batch]:
    """The same with given maps; without any, images are the input."""
    if maps is None:
        return lambda batch: batch.to(device)
    return lambda batch: with_maps(batch, maps(batch), stride).to(device)


def with_maps(batch: Batch, maps: list[Tensor], stride: int) -> Batch:
    """The batch with maps in place of its images, padded by zeros where the images are padded."""
    height, width = (side // stride for side in batch.images.shape[-2:])
    padded = torch.empty(len(maps), height, width, maps[0].shape[-1])
    for cells, feature in zip(padded, maps, strict=True):
        h, w = feature.shape[:2]
        cells[:h, :w] = feature
        cells[h:].zero_()
        cells[:h, w:].zero_()
    return dataclasses.replace(batch, images=padded.permute(0, 3, 1, 2))


class FrozenBackbone:
    """Computes the maps. precision: "float32", or what the layers that autocast knows are computed in."""

    def __init__(self, backbone: Backbone, precision: str, device: torch.device) -> None:
        self.backbone = backbone.to(device).to(memory_format=torch.channels_last)
        self.precision, self.device = precision, device

    def __call__(self, batch: Batch) -> list[Tensor]:
        heights, widths = (-(-batch.sizes // PADDING) * PADDING).T.tolist()
        return [
            self.map_of(image[:, :height, :width])
            for image, height, width in zip(batch.images, heights, widths, strict=True)
        ]

    @torch.no_grad()
    def map_of(self, image: Tensor) -> Tensor:
        """An image [3, H, W], whose sides are multiples of PADDING -> float16 [h, w, C]. Raises TrainingError."""
        image = image[None].to(self.device).contiguous(memory_format=torch.channels_last)
        dtype = AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None, cache_enabled=False):
            features = self.backbone(image)[0].permute(1, 2, 0).half().cpu().contiguous()
        if not features.isfinite().all():
            raise TrainingError("model.freeze=all: expected maps in the range of float16, got one beyond; freeze less")
        return features


class CachedMaps:
    """Reads the maps of a split's images from the stage's folder; each file is checked when it is first used."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self._digests = digests.read(folder)
        self._checked: set[str] = set()

    def __call__(self, batch: Batch) -> list[Tensor]:
        pairs = zip(batch.indices.tolist(), batch.flipped.tolist(), strict=True)
        return [self.read(file_name(self.split, index, mirrored)) for index, mirrored in pairs]

    def read(self, name: str) -> Tensor:
        """The map in a file, which is mapped, not read: processes share one copy. Raises TrainingError."""
        path = self.folder / name
        try:
            if self._digests and name not in self._checked:
                digests.check(path, self._digests.get(name, ""))
                self._checked.add(name)
            return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        except (digests.DamagedFile, OSError, ValueError) as error:
            raise TrainingError(f"{self.folder}: {error}; run the same command again to rebuild it") from error


def frozen_backbone(file: Path, config: Config, device: torch.device) -> FrozenBackbone:
    """The pretrained backbone in a stage's file, ready to compute maps. Raises TrainingError if it is damaged."""
    backbone = build_frozen_backbone(config.model, config.stride)
    load_pretrained(backbone, load_stage(file))
    return FrozenBackbone(backbone, config.precision, device)


def file_name(split: str, index: int, mirrored: bool) -> str:
    """The name of the file with the map of a split's image."""
    return f"{split}-{index}{'-mirrored' if mirrored else ''}.npy"


def wanted(stages: Stages) -> Iterator[tuple[str, InstanceSet, int, bool]]:
    """Each map: its split, the images of that, the image's position in them, and whether it is mirrored."""
    for split in ("train", stages.split):
        dataset = stages.dataset(split)
        for index in range(len(dataset)):
            for mirrored in (False, True) if split == "train" else (False,):
                yield split, dataset, index, mirrored


def write_maps(stages: Stages, folder: Path, log: RunLog) -> None:
    """Computes all maps that are not in the folder yet, by this version of the code. Raises TrainingError."""
    code = folder / CODE
    if not code.is_file() or code.read_text(encoding="utf-8").strip() != code_version():
        for stale in folder.glob("*.npy"):
            stale.unlink()
        write_atomically(code, f"{code_version()}\n")
    maps = frozen_backbone(stages.backbone_file, stages.config, stages.device)
    say_size(stages, maps.backbone.out_channels, folder, log)
    for split, dataset, index, mirrored in wanted(stages):
        path = folder / file_name(split, index, mirrored)
        if path.exists():
            continue
        check_stop()
        log.enter(f"map of {split} image {1 + index} of {len(dataset)}")
        content = io.BytesIO()
        np.save(content, maps(load_batch(dataset, [index], [mirrored]))[0].numpy(), allow_pickle=False)
        write_atomically(path, content.getvalue())


def say_size(stages: Stages, channels: int, folder: Path, log: RunLog) -> None:
    """Says how large the maps will be, about. Raises TrainingError where the disk has no room for them."""
    size, counts = 0.0, {}
    for split, times in (("train", 2), (stages.split, 1)):
        dataset = stages.dataset(split)
        counts[split] = len(dataset)
        sampled = range(0, len(dataset), -(-len(dataset) // SAMPLED))
        cells = [np.prod([-(-side // PADDING) for side in dataset[index].image.shape[-2:]]) for index in sampled]
        size += times * len(dataset) * float(np.mean(cells)) * (PADDING / stages.config.stride) ** 2 * channels * 2
    there = sum(path.stat().st_size for path in folder.glob("*.npy"))
    images = f"{counts['train']} training images, each mirrored too, and of {counts[stages.split]} evaluated ones"
    log.write(f"maps of {images}: about {size / 1e9:.2g} GB in {folder.parent}", echo=True)
    free = shutil.disk_usage(folder).free
    if free < size - there:
        raise TrainingError(
            f"{folder.parent}: expected {(size - there) / 1e9:.2g} GB of free space for the maps of {images}, found "
            f"{free / 1e9:.2g} GB; make room, give outputs=FOLDER on a larger disk, take fewer images "
            "(budget.train_images), or pass cache_features=false, which computes maps at every step"
        )
