"""Any folder in COCO format as an instance set: photographs, polygons and RLE, resized when they are asked for.

    python run.py data=coco data.root=FOLDER

What is skipped, and what refused, is said in annotations.py; `python -m data.check FOLDER` lists it.
"""

import copy
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle

from data import annotations
from data.dataset import CROWD, InstanceSet, Sample
from data.ids import ordered
from data.images import fitted_size, read_image
from data.licences import may_be_shown
from data.problems import counts, summary
from data.specs import CocoSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outlined:
    """An object to train on: box xyxy in the file's pixels; mask as polygons (float64 arrays) or compressed RLE.

    A crowd region has the label CROWD and no mask: no RoI is matched to it.
    """

    label: int
    box: tuple[float, float, float, float]
    polygons: list[np.ndarray]
    encoded: dict[str, Any] | None

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 around the outline, whatever the box is."""
        if self.encoded is not None:
            x, y, width, height = rle.toBbox(self.encoded).tolist()
            return x, y, x + width, y + height
        points = np.concatenate(self.polygons).reshape(-1, 2)
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
        return x1, y1, x2, y2


@dataclass
class Picture:
    """An image file: its id, place, size in the file, objects, and the crowd regions after them.

    shown: whether its licence allows reports to show it; where nothing is known of licences, that is up to the user.
    """

    image_id: int
    path: Path
    height: int
    width: int
    objects: list[Outlined]
    crowds: list[Outlined]
    shown: bool = True


class CocoSet(InstanceSet):
    """A split of a COCO-format set. Pixels are read from the files at each access, from any number of threads.

    pictures: the image files in use, in the order of their ids
    skipped:  how many entries were skipped, dropped, clipped or put right, by what was done about them
    """

    same_size = False

    def __init__(self, spec: CocoSpec, split: str):
        self.spec, self.split = spec, split
        self._json, self._folder = spec.paths(split)
        with annotations.no_collection():
            content = annotations.load(self._json, self._folder)
            self.skipped, refusal = counts(content.problems), content.refusal
            self._category_ids = ordered(content.categories)
            self.pictures = self._compact(content)
        self.name = f"{Path(spec.root).resolve().name}/{split}"
        self.classes = [content.categories[key] for key in self._category_ids]
        problems = f"{summary(content.problems)}; python -m data.check {spec.root} lists them"
        if not refusal and not any(picture.objects for picture in self.pictures):
            refusal = f"none in the images that data.num_{split} takes"
        if refusal:
            details = f"; for example {content.problems[0]}; {problems}" if self.skipped else ""
            raise ValueError(f"{self._json}: expected at least one image with an object, got none: {refusal}{details}")
        if self.skipped:
            log.warning("%s: %s", self._json, problems)
        self.max_objects = max(1, max(len(picture.objects) for picture in self.pictures))
        self.digest = self._digest()

    def _compact(self, content: annotations.Annotations) -> list[Picture]:
        """Objects in a fraction of the JSON's memory, image by image in the order of ids."""
        pictures = {
            key: Picture(
                key,
                self._folder / image["file_name"],
                image["height"],
                image["width"],
                [],
                [],
                shown="licence" not in image or may_be_shown(image["licence"]),
            )
            for key, image in sorted(content.images.items())
        }
        labels = {key: label for label, key in enumerate(self._category_ids, start=1)}
        content.annotations.reverse()
        while content.annotations:
            entry = content.annotations.pop()
            x, y, w, h = entry["bbox"]
            if entry["iscrowd"]:
                pictures[entry["image_id"]].crowds.append(Outlined(CROWD, (x, y, x + w, y + h), [], None))
            else:
                shape = entry["segmentation"]
                polygons = [] if isinstance(shape, dict) else [np.array(polygon, np.float64) for polygon in shape]
                encoded = shape if isinstance(shape, dict) else None
                item = Outlined(labels[entry["category_id"]], (x, y, x + w, y + h), polygons, encoded)
                pictures[entry["image_id"]].objects.append(item)
        for picture in pictures.values():
            if len(picture.objects) > self.spec.max_objects:
                picture.objects.sort(key=_box_area, reverse=True)
                del picture.objects[self.spec.max_objects :]
        keep_empty = self.spec.keep_empty or self.split == "val"
        usable = [picture for picture in pictures.values() if picture.objects or keep_empty]
        most = self.spec.num_train if self.split == "train" else self.spec.num_val
        count = len(usable) if most is None else min(most, len(usable))
        return [usable[index * len(usable) // count] for index in range(count)]

    def _digest(self) -> str:
        """The digest of the annotation file, the images in use and what is made of them; not of where they lie."""
        digest = hashlib.sha256()
        digest.update(bytes.fromhex(self.spec.digest(self.split)))
        spec = self.spec
        settings = [self.split, spec.image_size, spec.max_size, spec.max_objects]
        digest.update(json.dumps([settings, [picture.image_id for picture in self.pictures]]).encode())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        """The image resized, with its crowds and those objects of which a pixel is left.

        Raises ValueError for a broken file.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, got index {index}")
        picture = self.pictures[index]
        height, width = fitted_size(picture.height, picture.width, self.spec.image_size, self.spec.max_size)
        image = torch.zeros((), dtype=torch.uint8).expand(3, height, width)
        if self.reads_images:
            read = read_image(picture.path, picture.height, picture.width)
            pixels = np.array(read.resize((width, height), Image.Resampling.BILINEAR))
            image = torch.from_numpy(pixels).permute(2, 0, 1)
        scale = np.array([width / picture.width, height / picture.height])
        objects = picture.objects + picture.crowds
        masks = np.zeros((len(objects), height, width), np.uint8)
        for mask, item in zip(masks, picture.objects, strict=False):  # crowd regions, behind the objects, stay empty
            mask[:] = rasterise(item, scale, height, width)
        boxes = np.array([item.box for item in objects], np.float64).reshape(-1, 4) * np.tile(scale, 2)
        labels = np.array([item.label for item in objects], np.int64)
        seen = masks.any(axis=(1, 2)) | (labels == CROWD)
        return Sample(
            image=image,
            boxes=torch.from_numpy(boxes[seen].astype(np.float32)),
            labels=torch.from_numpy(labels[seen]),
            masks=torch.from_numpy(masks[seen]),
            image_id=picture.image_id,
            original_size=(picture.height, picture.width),
        )

    def without_images(self) -> "CocoSet":
        """Decoding photographs takes most of the time that a sample takes."""
        other = copy.copy(self)
        other.reads_images = False
        return other

    @property
    def wide(self) -> np.ndarray:
        """bool [N]: images that are wider than high, for batches of like shapes."""
        return np.array([picture.width > picture.height for picture in self.pictures])

    @property
    def showable(self) -> list[int]:
        """The positions of the images that their licences allow to show."""
        return [position for position, picture in enumerate(self.pictures) if picture.shown]

    @cached_property
    def coco(self) -> dict[str, Any]:
        """The ground truth in the files' own pixels, crowd regions included, with categories numbered 1..K.

        Where an image's or an annotation's id is a number of ours, its id in the file is there as "source_id".
        """
        content = annotations.load(self._json, self._folder)
        labels = {key: label for label, key in enumerate(self._category_ids, start=1)}
        used = {picture.image_id for picture in self.pictures}
        return {
            "info": {"description": self.name, "digest": self.digest},
            "licenses": [],
            "images": [image for image in content.images.values() if image["id"] in used],
            "annotations": [
                {**entry, "category_id": labels[entry["category_id"]]}
                for entry in content.annotations
                if entry["image_id"] in used
            ],
            "categories": [{"id": label, "name": name} for label, name in enumerate(self.classes, start=1)],
        }


def _box_area(item: Outlined) -> float:
    x1, y1, x2, y2 = item.box
    return (x2 - x1) * (y2 - y1)


def rasterise(item: Outlined, scale: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: polygons are scaled before they are filled, an RLE is resized to the nearest pixel."""
    if item.encoded is None:
        scaled = [(polygon.reshape(-1, 2) * scale).ravel().tolist() for polygon in item.polygons]
        return rle.decode(rle.merge(rle.frPyObjects(scaled, height, width)))
    mask = Image.fromarray(rle.decode(item.encoded))
    return np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))


def load(spec: CocoSpec, split: str) -> CocoSet:
    """The split's images and objects. Raises ValueError when the folder is not in COCO format."""
    spec.validate()
    return CocoSet(spec, split)
