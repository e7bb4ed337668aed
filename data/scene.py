"""One image of the synthetic set, as specs.ShapesSpec describes it.

A class is known by its outline only: colours and textures of objects and background come from the same families.
Object sizes follow COCO's at 800 px in units of the stride, as far as the image reaches, because what RoI operators
lose by rounding depends on how many feature cells an object spans (paper, section 4.2 and table 2d).
"""

import math
from dataclasses import dataclass

import numpy as np

from data.paint import photograph, random_colour, texture
from data.silhouettes import OUTLINES, rasterise, turned
from data.specs import STRIDE, ShapesSpec

CLASSES = list(OUTLINES)
STREAMS = {"train": 0, "val": 1, "test": 2, "pretrain": 3}

# Positions tried for an object before it is left out.
_TRIES = 40

# Arrangements tried for an image before the specification is refused.
_ARRANGEMENTS = 50

# What is left of an object has at least this many pixels, or all that it has.
_MIN_PIXELS = 64


@dataclass(frozen=True)
class Drawing:
    """One image: pixels uint8 [S, S, 3]; per object a label, the visible box (xyxy pixel edges) and its bool mask."""

    pixels: np.ndarray
    labels: list[int]
    boxes: list[tuple[int, int, int, int]]
    crops: list[np.ndarray]


def draw_image(spec: ShapesSpec, split: str, index: int) -> Drawing:
    """Image `index` of a split, from its own stream of random numbers.

    Raises ValueError when so many objects of such sizes find no room in the image.
    """
    sequence = np.random.SeedSequence([spec.seed, STREAMS[split], index])
    # Only Generator.random and the raw words are used: their meaning is fixed, that of other methods may change.
    rng = np.random.Generator(np.random.PCG64(sequence))
    for _ in range(_ARRANGEMENTS):
        depth, labels = _arrange(spec, rng)
        if len(labels) >= spec.min_objects:
            break
    else:
        raise ValueError(
            f"data.min_objects: expected a number of objects that find room, got {spec.min_objects}, and image {index} "
            f"held fewer in {_ARRANGEMENTS} arrangements; lower min_objects, size_cells or min_visible"
        )
    boxes = [bounds(depth == depth_index) for depth_index in range(1, len(labels) + 1)]
    crops = [depth[y1:y2, x1:x2] == depth_index for depth_index, (x1, y1, x2, y2) in enumerate(boxes, start=1)]
    return Drawing(_paint(spec, rng, boxes, crops), labels, boxes, crops)


def _arrange(spec: ShapesSpec, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Lay silhouettes over each other, back to front.

    Returns uint8 [S, S], at each pixel the index (from 1) of the object seen there or 0, and the labels.
    """
    count = spec.min_objects + int(rng.random() * (spec.max_objects - spec.min_objects + 1))
    sides = _quantile(spec.size_cells, rng.random(count)) * STRIDE
    # Large objects tend to lie further back, or they would hide the small ones altogether.
    order = np.argsort(-sides * (0.5 + rng.random(count)))
    depth = np.zeros((spec.image_side, spec.image_side), np.uint8)
    labels: list[int] = []
    visible, least = np.zeros(count + 1, np.int64), np.zeros(count + 1)
    for side in sides[order].tolist():
        label = _label(spec, rng, labels)
        shape = silhouette(spec, rng, label, side)
        height, width = shape.shape
        room = np.array([spec.image_side - width + 1, spec.image_side - height + 1])
        for x, y in (rng.random((_TRIES, 2)) * room).astype(np.int64).tolist():
            crop = depth[y : y + height, x : x + width]
            hidden = np.bincount(crop[shape], minlength=count + 1)
            if (visible - hidden >= least)[1:].all():
                labels.append(label)
                depth_index = len(labels)
                crop[shape] = depth_index
                visible -= hidden
                visible[depth_index] = np.count_nonzero(shape)
                least[depth_index] = max(
                    spec.min_visible * visible[depth_index], min(_MIN_PIXELS, visible[depth_index])
                )
                break
    return depth, labels


def _label(spec: ShapesSpec, rng: np.random.Generator, labels: list[int]) -> int:
    """A random class, or that of the object before, as often as `same_class` says."""
    if spec.same_class and labels and rng.random() < spec.same_class:
        return labels[-1]
    return 1 + int(rng.random() * len(CLASSES))


def _quantile(table: tuple[float, ...], where: np.ndarray) -> np.ndarray:
    """Linear interpolation in a table of equally spaced quantiles at positions within 0..1."""
    values = np.array(table)
    position = where * (len(table) - 1)
    cell = np.minimum(position.astype(np.int64), len(table) - 2)
    return values[cell] + (position - cell) * (values[cell + 1] - values[cell])


def silhouette(spec: ShapesSpec, rng: np.random.Generator, label: int, side: float) -> np.ndarray:
    """A class at a random attitude: a bool mask that its outline touches on all sides."""
    limit = round(math.tan(math.radians(spec.rotation) / 2) * 2**20) / 2**20
    turn = (rng.random() * 2 - 1) * limit
    stretch = 1 + rng.random() * (spec.stretch - 1)
    stretch = stretch if rng.random() < 0.5 else 1 / stretch
    polygon = turned(OUTLINES[CLASSES[label - 1]], turn, stretch, side, spec.image_side - 1)
    # A part of a pixel of shift, so that outlines meet the pixel grid anywhere.
    polygon = polygon + rng.random(2)
    width, height = np.ceil(polygon.max(axis=0)).astype(int).tolist()
    return rasterise(polygon, height, width)


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The bounding box of a mask with at least one pixel: x1, y1, x2, y2 as pixel edges."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _paint(
    spec: ShapesSpec, rng: np.random.Generator, boxes: list[tuple[int, int, int, int]], crops: list[np.ndarray]
) -> np.ndarray:
    """uint8 [S, S, 3]: the background, then each object's visible part in a colour that stands out."""
    colours = [random_colour(rng, [], spec.contrast)]
    scene = texture(rng, colours[0], spec.texture, spec.image_side, spec.image_side)
    for (x1, y1, x2, y2), crop in zip(boxes, crops, strict=True):
        colours.append(random_colour(rng, colours, spec.contrast))
        paint = texture(rng, colours[-1], spec.texture, y2 - y1, x2 - x1)
        np.copyto(scene[:, y1:y2, x1:x2], paint, where=crop)
    return photograph(rng, scene, spec.noise)
