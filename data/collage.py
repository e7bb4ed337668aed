"""Collages: objects cut out of a COCO-format set's training photographs, pasted on its other training photographs.

    python run.py data=collage data.root=FOLDER

A few hundred photographs hold too few objects to train a mask head. Pasted on other photographs, their pixels stay real
and their masks exact, and there are as many scenes as are asked for (Ghiasi et al. 2021, "Simple Copy-Paste"). Only the
training images are made: validation stays on untouched photographs.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from data import annotations, coco, licences
from data.coco import Outlined, Picture, rasterise
from data.dataset import CROWD, InstanceSet, Sample
from data.ids import key_of, numbered
from data.images import fitted_size, read_image
from data.scene import bounds
from data.specs import CollageSpec

GENERATOR = 2
"""Raised whenever the same specification gives other collages."""

STREAM = 10
"""Keeps these random numbers apart from those of data/neighbours.py and data/sliding.py."""

MARGIN = 2
"""Pixels of its file: an object that comes nearer to the border is taken to go on beyond it."""


SLACK = 6
"""Pixels that an image is larger than a cut-out: its margins, and what rounding to whole pixels adds."""

NARROW = 32
"""Pixels: nothing is pasted on photographs of which a side is shorter once they are resized."""


@dataclass(frozen=True)
class Cutout:
    """An object as it is pasted: pixels uint8 [h, w, 3] and its mask, bool [h, w], with a pixel of margin all round."""

    label: int
    pixels: np.ndarray
    mask: np.ndarray

    def paste(self, image: np.ndarray, x: int, y: int) -> None:
        """Draws it into an image, uint8 [H, W, 3], with its upper left corner at (x, y).

        Its edge is softened by [1 2 1] / 4 both ways, so that it is no staircase that gives it away.
        """
        height, width = self.mask.shape
        window = image[y : y + height, x : x + width]
        padded = np.pad(self.mask, 1).astype(np.int32)
        down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        share = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:])[..., None]  # sixteenths
        window[:] = (share * self.pixels + (16 - share) * window + 8) >> 4


class Collages(InstanceSet):
    """Training images of a CollageSpec, each made when it is asked for, from any number of threads."""

    same_size = False

    def __init__(self, spec: CollageSpec) -> None:
        """Raises ValueError when the folder is not in COCO format, or has too little to cut out."""
        if spec.num_train is None:
            raise ValueError("data.num_train: expected a number of collages, got none")
        self.spec, self.photographs = spec, coco.load(spec.photographs(), "train")
        self.classes = self.photographs.classes
        self.max_objects = self.photographs.max_objects + spec.max_pasted
        self.name = f"{self.photographs.name.partition('/')[0]} collages/train"
        usable = self._usable()
        self._cutouts = [
            (photograph, item) for photograph in usable for item in self._whole(self.photographs.pictures[photograph])
        ]
        self._owners = np.array([photograph for photograph, _ in self._cutouts])  # ascending
        if len(set(self._owners.tolist())) < 2:
            raise ValueError(
                f"{spec.paths('train')[0]}: expected whole objects to cut out in two photographs or more, got "
                f"{len(self._cutouts)} in {len(set(self._owners.tolist()))}; lower data.smallest = {spec.smallest:g}"
            )
        self._grounds = [usable[int(self._generator(index).random() * len(usable))] for index in range(len(self))]
        fields = dataclasses.asdict(spec) | {"root": "", "num_val": None}
        content = json.dumps([GENERATOR, fields, self.photographs.digest], sort_keys=True)
        self.digest = hashlib.sha256(content.encode()).hexdigest()[:16]

    def _usable(self) -> list[int]:
        """The positions of the photographs whose licences allow collages; not of strips that hold no object."""
        path, pictures, wanted = self.spec.paths("train")[0], self.photographs.pictures, self.spec.licences
        content = annotations.read(path)
        entries = {key_of(entry["id"]): entry for entry in content["images"]}
        table = licences.table_of(content)
        numbers = {number: entries[key].get("license") for key, number in numbered(entries).items()}
        forbidding = [number for number, licence in table.items() if licences.forbids_adaptations(licence)]
        allowed = [number for number in numbers.values() if number not in forbidding] if wanted is None else wanted
        usable = [
            photograph
            for photograph, picture in enumerate(pictures)
            if numbers[picture.image_id] in allowed and min(self._fitted(picture)) >= NARROW
        ]
        if not usable:
            there = ", ".join(sorted({str(numbers[picture.image_id]) for picture in pictures}))
            got = list(wanted) if wanted else f"none that allows adaptations (NoDerivatives: {forbidding})"
            raise ValueError(f"data.licences: expected some of {path}'s {there}, got {got}")
        return usable

    def _whole(self, picture: Picture) -> list[Outlined]:
        """The objects to cut out: large enough, in one piece and clear of the border, as far as annotations tell."""
        scale, whole = self._fitted(picture)[1] / picture.width, []
        for item in picture.objects:
            x1, y1, x2, y2 = item.extent
            clear = min(x1, y1, picture.width - x2, picture.height - y2) >= MARGIN
            large = ((x2 - x1) * (y2 - y1)) ** 0.5 * scale >= self.spec.smallest
            if clear and large and len(item.polygons) <= 1:
                whole.append(item)
        return whole

    def _fitted(self, picture: Picture) -> tuple[int, int]:
        return fitted_size(picture.height, picture.width, self.spec.image_size, self.spec.max_size)

    def _generator(self, index: int) -> np.random.Generator:
        """Only Generator.random is used: its meaning is fixed, that of other methods may change."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.spec.seed, STREAM, index])))

    def __len__(self) -> int:
        assert self.spec.num_train is not None
        return self.spec.num_train

    @property
    def wide(self) -> np.ndarray:
        """bool [N]: images that are wider than high, for batches of like shapes."""
        return self.photographs.wide[self._grounds]

    def __getitem__(self, index: int) -> Sample:
        """The photograph's objects, then what is pasted on it, then what is ignored.

        Raises ValueError for a broken file.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, got index {index}")
        rng = self._generator(index)
        rng.random()  # the photograph, which is known
        ground = self.photographs[self._grounds[index]]
        image = np.ascontiguousarray(ground.image.permute(1, 2, 0).numpy())
        count = self.spec.min_pasted + int(rng.random() * (self.spec.max_pasted - self.spec.min_pasted + 1))
        pasted = []
        for _ in range(count):
            choice, factor, mirrored, x, y = rng.random(5).tolist()
            cutout = self._cut(self._other(self._grounds[index], choice), factor, mirrored < 0.5, image.shape[:2])
            height, width = cutout.mask.shape
            left, top = int(x * (image.shape[1] - width + 1)), int(y * (image.shape[0] - height + 1))
            cutout.paste(image, left, top)
            mask = np.zeros(image.shape[:2], bool)
            mask[top : top + height, left : left + width] = cutout.mask
            pasted.append((cutout.label, mask))
        return dataclasses.replace(covered(ground, pasted, self.spec.min_visible), image_id=1 + index)

    def _other(self, ground: int, choice: float) -> tuple[int, Outlined]:
        """A cut-out of another photograph, and the position of that; choice: a random number in 0..1."""
        first, last = np.searchsorted(self._owners, [ground, ground + 1]).tolist()
        number = int(choice * (len(self._cutouts) - (last - first)))
        return self._cutouts[number if number < first else number + last - first]

    def _cut(self, source: tuple[int, Outlined], factor: float, mirrored: bool, room: tuple[int, ...]) -> Cutout:
        """factor: random, 0 for the least of `scale` and 1 for the greatest; room: (H, W) that it has to fit into."""
        photograph, item = source
        picture = self.photographs.pictures[photograph]
        low, high = self.spec.scale
        x1, y1, x2, y2 = item.extent
        times = (low + factor * (high - low)) * self._fitted(picture)[1] / picture.width
        times = min(times, (room[0] - SLACK) / (y2 - y1), (room[1] - SLACK) / (x2 - x1))
        height, width = max(round(picture.height * times), 1), max(round(picture.width * times), 1)
        scale = np.array([width / picture.width, height / picture.height])
        mask = rasterise(item, scale, height, width).astype(bool)
        pixels = np.asarray(
            read_image(picture.path, picture.height, picture.width).resize((width, height), Image.Resampling.BILINEAR)
        )
        mask, pixels = np.pad(mask, 1), np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
        left, top, right, bottom = bounds(mask) if mask.any() else (1, 1, 2, 2)
        around = slice(top - 1, bottom + 1), slice(left - 1, right + 1)
        turn = -1 if mirrored else 1
        return Cutout(item.label, pixels[around][:, ::turn], mask[around][:, ::turn])


def covered(ground: Sample, pasted: list[tuple[int, np.ndarray]], min_visible: float) -> Sample:
    """A photograph whose pixels show already what was pasted, with its objects and these.

    pasted: labels and masks, bool [H, W], back to front. Masks lose what lies under later ones; boxes of objects that
    lose something, and of what was pasted, enclose what is visible. An object with less than `min_visible` visible is
    ignored, as a crowd region; one that is not seen at all is dropped.
    """
    own = int((ground.labels != CROWD).sum())
    height, width = ground.image.shape[-2:]
    masks = [mask.astype(bool) for mask in ground.masks[:own].numpy()] + [mask for _, mask in pasted]
    visible = np.array(masks, bool).reshape(-1, height, width)
    areas = visible.sum((1, 2))
    for number, (_, mask) in enumerate(pasted, start=own):
        visible[:number] &= ~mask
    remaining = visible.sum((1, 2))  # pixels
    labels = np.array([*ground.labels[:own].tolist(), *(label for label, _ in pasted)], np.int64)
    boxes = np.zeros((len(labels), 4), np.float32)
    boxes[:own] = ground.boxes[:own].numpy()
    for number in np.flatnonzero((remaining > 0) & ((remaining < areas) | (np.arange(len(labels)) >= own))).tolist():
        boxes[number] = bounds(visible[number])
    seen = (remaining > 0) & (remaining >= min_visible * areas)
    hardly_seen = (remaining > 0) & ~seen
    ignored = int(hardly_seen.sum()) + len(ground.labels) - own
    shown = np.concatenate([visible[seen], np.zeros((ignored, height, width), bool)])
    return dataclasses.replace(
        ground,
        boxes=torch.cat([torch.from_numpy(boxes[seen]), torch.from_numpy(boxes[hardly_seen]), ground.boxes[own:]]),
        labels=torch.cat([torch.from_numpy(labels[seen]), torch.full((ignored,), CROWD)]),
        masks=torch.from_numpy(shown.astype(np.uint8)),
        original_size=None,
    )
