"""The kinds of data: synthetic images of shapes, a folder in COCO format, or collages made of one.

Each field is a key of conf/data/*.yaml. Limits of one field stand beside it and hold for every instance; `rules` has
those between fields, as rows of a name, whether the rule holds, and what is expected.
"""

import dataclasses
import glob
import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

GENERATOR = 2
"""Raised whenever the same specification gives other pixels."""

STRIDE = 16
"""Image pixels in a cell, the unit of the objects' sizes."""

FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=FORBID)
class ShapesSpec:
    """What to draw. Every field that makes the task harder or easier is here.

    num_train, num_val: images to train on, and images of "val" and of "test"; image i does not depend on their number
    seed:          the splits are disjoint streams of the same seed
    image_side:    images are square, in pixels; a multiple of 32, the coarsest stride
    min_objects, max_objects: objects in an image; one that finds no place is left out, but never below the minimum
    size_cells:    the objects' sides (square root of the box's area) in cells of 16 px at equally spaced quantiles
                   from 0 to 1, with linear interpolation between, before anything hides them. The default makes the
                   visible boxes' percentiles COCO's.
    rotation:      greatest angle either way, in degrees
    stretch:       greatest factor of width against height, either way
    same_class:    share of the objects that take the class of the object behind them in place of a random one
    min_visible:   no object is hidden beyond this part of its silhouette; 1 forbids overlap
    contrast:      least distance of an object's colour from the background's and its companions', in RGB levels
                   (Euclidean), as far as 16 random candidates allow
    texture:       greatest swing of a texture around its colour, in levels of each channel
    noise:         greatest deviation of a pixel by the camera's noise, in levels
    """

    kind: Literal["shapes"] = "shapes"
    num_train: Annotated[int, Field(ge=1)] = 2000
    num_val: Annotated[int, Field(ge=1)] = 300
    seed: Annotated[int, Field(ge=0)] = 0
    image_side: Annotated[int, Field(ge=64, le=2048, multiple_of=32)] = 256
    min_objects: Annotated[int, Field(ge=1)] = 2
    max_objects: Annotated[int, Field(le=100)] = 4
    size_cells: Annotated[tuple[Annotated[float, Field(ge=0.5)], ...], Field(min_length=2)] = (
        1.05, 1.6, 2.35, 3.5, 4.95, 6.4, 7.85, 9.3, 10.6, 11.7, 12.6,
    )  # fmt: skip
    rotation: Annotated[float, Field(ge=0, le=180)] = 20.0
    stretch: Annotated[float, Field(ge=1, le=3)] = 1.25
    same_class: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_visible: Annotated[float, Field(ge=0.1, le=1)] = 0.7
    contrast: Annotated[int, Field(ge=0, le=200)] = 120
    texture: Annotated[int, Field(ge=0, le=120)] = 12
    noise: Annotated[int, Field(ge=0, le=60)] = 2

    def rules(self) -> list[tuple[str, bool, str]]:
        """Rows of a field's name, whether it fits the other fields, and what would."""
        cells = self.image_side / STRIDE
        return [
            ("max_objects", self.min_objects <= self.max_objects, f"min_objects = {self.min_objects} or more"),
            ("size_cells", list(self.size_cells) == sorted(self.size_cells), "quantiles in ascending order"),
            ("size_cells", max(self.size_cells) <= cells, f"sides that fit into the image, {cells:g} cells at most"),
        ]

    def validate(self) -> None:
        """Raises ValueError naming the first field that does not fit the others."""
        _require(self)

    def digest(self, split: str) -> str:
        """Names the content of a split: 16 hex digits."""
        fields = dataclasses.asdict(self) | {"num_train": 0, "num_val": 0, "count": self.count(split)}
        del fields["kind"]
        text = json.dumps([GENERATOR, split, fields], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def count(self, split: str) -> int:
        """The number of images of a split; 0 of "pretrain", which has no end."""
        return {"train": self.num_train, "val": self.num_val, "test": self.num_val, "pretrain": 0}[split]


COCO_SPLITS = {"train": "train", "val": "val", "test": "val", "pretrain": "train"}
"""Where the splits of a COCO-format folder come from: its validation set is the test set too."""


@dataclass(frozen=True, config=FORBID)
class FolderSpec:
    """Where a COCO-format set is, and how large its images are made: what kinds of data made of one share.

    root:         its folder
    train_json, val_json: annotation files in it or anywhere; a pattern with * must fit exactly one
    train_images, val_images: folders of images in it or anywhere; by default instances_NAME.json goes with NAME
    image_size:   the images' shorter side is resized to this, in pixels (the paper: 800) ...
    max_size:     ... unless the longer side would then exceed this
    max_objects:  the most objects to train on in an image; of more, the largest are kept
    keep_empty:   train on images without objects too
    num_train, num_val: use so many images of a split, evenly spread over its ids; None for all
    """

    kind: str = ""
    root: str = ""
    train_json: str = "annotations/instances_train*.json"
    val_json: str = "annotations/instances_val*.json"
    train_images: str = ""
    val_images: str = ""
    image_size: Annotated[int, Field(ge=32, le=4096)] = 800
    max_size: int = 1333
    max_objects: Annotated[int, Field(ge=1)] = 100
    keep_empty: bool = False
    num_train: Annotated[int | None, Field(ge=1)] = None
    num_val: Annotated[int | None, Field(ge=1)] = None

    def rules(self) -> list[tuple[str, bool, str]]:
        """Rows of a field's name, whether it fits the other fields, and what would."""
        return [("max_size", self.max_size >= self.image_size, f"image_size = {self.image_size} or more")]

    def validate(self) -> None:
        """Raises ValueError naming the first field that cannot work; looks into the folder, but opens no file."""
        _require(self)
        self.check_files()

    def check_files(self) -> None:
        """Raises ValueError naming the first field whose file or folder is not there."""
        if not self.root:
            raise ValueError("data.root: expected the folder of a COCO-format set, got nothing; pass data.root=FOLDER")
        if not os.path.isdir(self.root):
            what = "not a folder" if os.path.exists(self.root) else "no such folder"
            raise ValueError(f"data.root: expected a folder in COCO format, got {self.root}: {what}")
        for split in ("train", "val"):
            self.paths(split)

    def paths(self, split: str) -> tuple[Path, Path]:
        """The annotation file and the image folder of a split. Raises ValueError when they are not there."""
        root, pattern = Path(self.root), getattr(self, f"{split}_json")
        matching = _files_like(root, pattern)
        if len(matching) != 1:
            at_hand = [str(path.relative_to(root)) for way in ("*.json", "*/*.json") for path in sorted(root.glob(way))]
            raise ValueError(
                f"data.{split}_json: expected one annotation file {root / pattern}, "
                f"found {'a folder' if os.path.isdir(root / pattern) else len(matching)}; "
                f"JSON files in {root}: {', '.join(at_hand[:10]) or 'none'}; pass data.{split}_json=FILE"
            )
        folder = root / (getattr(self, f"{split}_images") or matching[0].stem.removeprefix("instances_"))
        if not os.path.isdir(folder):
            raise ValueError(
                f"data.{split}_images: expected the folder of the images of {matching[0]}, got {folder}: "
                f"{'not a folder' if os.path.exists(folder) else 'no such folder'}; pass data.{split}_images=FOLDER"
            )
        return matching[0], folder

    def digest(self, split: str) -> str:
        """The digest of the split's annotation file, which changes when the file does."""
        path, _ = self.paths(COCO_SPLITS[split])
        state = path.stat()
        return _file_digest(path, state.st_size, state.st_mtime_ns)


@dataclass(frozen=True, config=FORBID)
class CocoSpec(FolderSpec):
    """A COCO-format set as it is."""

    kind: Literal["coco"] = "coco"


@dataclass(frozen=True, config=FORBID)
class CollageSpec(FolderSpec):
    """Training images made of a COCO-format set: objects cut out of some of its photographs, pasted on others.

    num_train:   the number of collages; image i does not depend on it
    seed:        of the collages
    min_pasted, max_pasted: objects pasted on a photograph
    scale:       least and greatest factor by which a cut-out's size changes, where it fits
    smallest:    least side of an object to cut out (square root of its box's area), in pixels of its resized photograph
    min_visible: an object that is covered beyond this part of its pixels is neither an object nor background any more
    licences:    use only photographs with these licences, by the numbers of the annotation file; None for all but those
                 whose licences forbid adaptations, as the file's table of licences names them (NoDerivs)
    """

    kind: Literal["collage"] = "collage"
    seed: Annotated[int, Field(ge=0)] = 0
    min_pasted: Annotated[int, Field(ge=0)] = 1
    max_pasted: Annotated[int, Field(ge=1, le=100)] = 4
    scale: tuple[Annotated[float, Field(ge=0.1)], Annotated[float, Field(le=10)]] = (0.5, 1.25)
    smallest: Annotated[float, Field(ge=4)] = 32.0
    min_visible: Annotated[float, Field(gt=0, le=1)] = 0.3
    licences: tuple[int, ...] | None = None

    def rules(self) -> list[tuple[str, bool, str]]:
        """Rows of a field's name, whether it fits the other fields, and what would."""
        return [
            *super().rules(),
            ("max_pasted", self.min_pasted <= self.max_pasted, f"min_pasted = {self.min_pasted} or more"),
            ("scale", self.scale[0] <= self.scale[1], "two factors, the smaller one first"),
        ]

    def photographs(self) -> CocoSpec:
        """The set itself, with all of its training photographs."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(FolderSpec)}
        return CocoSpec(**shared | {"kind": "coco", "num_train": None})


def _files_like(root: Path, pattern: str) -> list[Path]:
    """The ordinary files that a path from `root`, or an absolute one, names or fits as a pattern."""
    if os.path.isfile(root / pattern):  # brackets and the like are part of a name if there is such a file
        return [root / pattern]
    if not pattern.strip() or "\0" in pattern:
        return []
    paths = glob.glob(os.path.join(glob.escape(str(root)), pattern), recursive=True)
    return sorted(Path(path) for path in paths if os.path.isfile(path))


@lru_cache(maxsize=8)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """The digest of a file's content, read once as long as its size and time stay what they are."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require(spec: ShapesSpec | FolderSpec) -> None:
    for name, holds, expected in spec.rules():
        if not holds:
            raise ValueError(f"data.{name}: expected {expected}, got {getattr(spec, name)!r}")
