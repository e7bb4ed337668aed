"""The synthetic set: overlapping silhouettes over a textured background, made in seconds, the same on every machine.

    python -m data.shapes OUT --num-train 2000 --num-val 300    # export as COCO JSON and PNG
    python -m data.shapes --sizes                               # measure the objects' sizes against COCO's

What an image contains is in scene.py; this file holds many of them, keeps them between runs and exports them.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError

from data import digests
from data.dataset import InstanceSet, Sample
from data.folders import complete
from data.masks import PackedMasks
from data.scene import CLASSES, STREAMS, draw_image
from data.specs import STRIDE, ShapesSpec
from data.terminal import run_command

# Percentiles of the side of COCO's boxes (square root of the area) at 800 px, in cells of stride 16.
COCO_PERCENTILES = {10: 1.6, 25: 2.8, 50: 6.0, 75: 13.1, 90: 25.4}

# What a set consists of at rest, one .npy file each in a cache folder.
_ARRAYS = ("pixels", "labels", "starts", "boxes", "offsets", "bits")

logger = logging.getLogger(__name__)


class SyntheticSet(InstanceSet):
    """A split of the synthetic set at rest.

    pixels: uint8 [N, S, S, 3]; labels: int64, all objects in a row; starts: int64 [N + 1], where each image's objects
    start; boxes, offsets, bits: as in PackedMasks
    """

    def __init__(self, spec: ShapesSpec, split: str, arrays: dict[str, np.ndarray]):
        self.name, self.classes, self.digest = f"shapes/{split}", list(CLASSES), spec.digest(split)
        self.max_objects, self.split = spec.max_objects, split
        self.pixels, self.labels, self.starts = (arrays[key] for key in ("pixels", "labels", "starts"))
        self.masks = PackedMasks(arrays["boxes"], arrays["offsets"], arrays["bits"])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, got index {index}")
        first, last = self.starts[index : index + 2].tolist()
        masks = self.masks.unpack(first, last, *self.pixels.shape[1:3])
        return Sample(
            image=torch.from_numpy(np.array(self.pixels[index])).permute(2, 0, 1),
            boxes=torch.from_numpy(self.masks.boxes[first:last].astype(np.float32)),
            labels=torch.from_numpy(np.array(self.labels[first:last])),
            masks=torch.from_numpy(masks),
            image_id=_image_id(self.split, index),
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All there is to keep, by name."""
        masks = self.masks
        values = (self.pixels, self.labels, self.starts, masks.boxes, masks.offsets, masks.bits)
        return dict(zip(_ARRAYS, values, strict=True))


class SyntheticStream(InstanceSet):
    """The images of "pretrain", each drawn when it is asked for: as many as a training takes, and none twice."""

    endless = True

    def __init__(self, spec: ShapesSpec) -> None:
        spec.validate()
        self.name, self.classes, self.digest = "shapes/pretrain", list(CLASSES), spec.digest("pretrain")
        self.max_objects, self.spec = spec.max_objects, spec

    def __getitem__(self, index: int) -> Sample:
        drawing, side = draw_image(self.spec, "pretrain", index), self.spec.image_side
        masks = np.zeros((len(drawing.labels), side, side), np.uint8)
        for mask, (x1, y1, x2, y2), crop in zip(masks, drawing.boxes, drawing.crops, strict=True):
            mask[y1:y2, x1:x2] = crop
        return Sample(
            image=torch.from_numpy(drawing.pixels).permute(2, 0, 1),
            boxes=torch.tensor(drawing.boxes, dtype=torch.float32),
            labels=torch.tensor(drawing.labels),
            masks=torch.from_numpy(masks),
            image_id=_image_id("pretrain", index),
        )


def _image_id(split: str, index: int) -> int:
    """From 1 in training, from 1,000,001 in validation and so on, so that no id means two images."""
    return 1 + index + 1_000_000 * STREAMS[split]


def draw(spec: ShapesSpec, split: str) -> SyntheticSet:
    """Draw a split into memory. Raises ValueError when a field is out of its range."""
    spec.validate()
    count, side = spec.count(split), spec.image_side
    pixels = np.empty((count, side, side, 3), np.uint8)
    labels: list[int] = []
    boxes: list[tuple[int, int, int, int]] = []
    crops: list[np.ndarray] = []
    starts = [0]
    for index in range(count):
        drawing = draw_image(spec, split, index)
        pixels[index] = drawing.pixels
        labels += drawing.labels
        boxes += drawing.boxes
        crops += drawing.crops
        starts.append(len(labels))
    masks = PackedMasks.pack(boxes, crops)
    values = (pixels, np.array(labels, np.int64), np.array(starts, np.int64), masks.boxes, masks.offsets, masks.bits)
    return SyntheticSet(spec, split, dict(zip(_ARRAYS, values, strict=True)))


def cache(spec: ShapesSpec, split: str, folder: str | Path) -> SyntheticSet:
    """The split out of `folder`, drawn and put there first if it is not there yet.

    Pixels are mapped, not read: processes that train side by side share one copy in memory. The folder of a set
    appears under its final name only once it is complete, so a killed run leaves nothing that looks like a set. A
    damaged one is drawn again, with a warning.
    """
    spec.validate()
    home = Path(folder) / f"shapes-{split}-{spec.digest(split)}"

    problem = ""

    def good(home: Path) -> bool:
        nonlocal problem
        problem = _problem(home) if home.exists() else ""
        return home.exists() and not problem

    def make(partial: Path) -> None:
        if problem:
            logger.warning("%s: %s; it is drawn again, and the old one is kept in 'replaced' beside it", home, problem)
        for key, values in draw(spec, split).arrays.items():
            np.save(partial / f"{key}.npy", values, allow_pickle=False)
        digests.write(partial)

    complete(home, make, good)
    try:
        return SyntheticSet(spec, split, _read(home))
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{home}: expected a complete synthetic set, got {error}; delete that folder") from error


def _problem(home: Path) -> str:
    """Why a kept set cannot be used; "" if it can."""
    if not (home / digests.FILE).is_file():
        return "it has no digests to check it by, as in older versions"
    return digests.damage(home)


def _read(home: Path) -> dict[str, np.ndarray]:
    """The arrays of a kept set. Raises what np.load raises."""
    return {
        key: np.load(home / f"{key}.npy", mmap_mode="r" if key == "pixels" else None, allow_pickle=False)
        for key in _ARRAYS
    }


def export(spec: ShapesSpec, folder: str | Path) -> None:
    """Write the splits as COCO: folder/annotations/instances_{split}.json and folder/{split}/{id:012d}.png."""
    root = Path(folder)
    for split in ("train", "val", "test"):
        dataset = draw(spec, split)
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / split).mkdir(exist_ok=True)
        for image, pixels in zip(dataset.coco["images"], dataset.pixels, strict=True):
            Image.fromarray(pixels).save(root / split / image["file_name"])
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(dataset.coco))


def size_table(dataset: SyntheticSet) -> dict[int, float]:
    """Percentiles of the visible boxes' sides (square root of the area) in cells of stride 16."""
    x1, y1, x2, y2 = dataset.masks.boxes.astype(np.float64).T
    cells = np.sqrt((x2 - x1) * (y2 - y1)) / STRIDE
    return {p: float(np.percentile(cells, p)) for p in COCO_PERCENTILES}


def _print_sizes(dataset: SyntheticSet) -> None:
    print(f"{dataset.name}: {len(dataset)} images, {len(dataset.labels)} objects")
    print("side of the visible box in cells of stride 16, by percentile; COCO at 800 px beside it")
    for percentile, cells in size_table(dataset).items():
        print(f"{percentile:4d} %  {cells:5.1f}  {COCO_PERCENTILES[percentile]:5.1f}")


def main(arguments: list[str] | None = None) -> None:
    """The command line: see the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m data.shapes", description="Draw the set of silhouettes.")
    parser.add_argument("out", nargs="?", help="folder to export to, as COCO JSON and PNG")
    parser.add_argument("--sizes", action="store_true", help="measure the sizes of the training split's objects")
    defaults = ShapesSpec()
    for name in ("num_train", "num_val", "seed", "image_side", "min_objects", "max_objects"):
        default = getattr(defaults, name)
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default, help=f"default {default}")
    parsed = parser.parse_args(arguments)
    fields = {name: value for name, value in vars(parsed).items() if name not in ("out", "sizes")}
    if parsed.out is None and not parsed.sizes:
        parser.error("expected a folder to write to, or --sizes")
    try:
        spec = ShapesSpec(**fields)
        spec.validate()
        if parsed.out is not None:
            export(spec, parsed.out)
        if parsed.sizes:
            _print_sizes(draw(spec, "train"))
    except ValidationError as error:
        wrong = [f"data.shapes: {p['loc'][0]}: {p['msg'].lower()}, got {p['input']!r}" for p in error.errors()]
        sys.exit("\n".join(wrong))
    except (ValueError, OSError) as error:
        sys.exit(f"data.shapes: {error}")


if __name__ == "__main__":
    run_command(main)
