"""Pictures that differ in one thing: an object alone, and the same object beside a neighbour.

What a neighbour does to a mask can't be told from ordinary images, in which objects with neighbours differ from those
without in size, class and place as well. Here the pictures of a scene share background, object, place, colours and
noise. The neighbour is of the object's class or of another, covers a given share of the object's box, and lies in front
of the object or behind it.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch

from data.dataset import InstanceSet, Sample
from data.paint import photograph, random_colour, texture
from data.scene import CLASSES, bounds, silhouette
from data.specs import STRIDE, ShapesSpec

DEGREES = (0.15, 0.3)
"""Shares of the object's box that the neighbour's silhouette covers."""

SIDES = (3.0, 5.0)
"""Least and greatest side of the object in cells of 16 pixels, as in ShapesSpec.size_cells."""

RELATIVE_SIDES = (0.8, 1.2)
"""Least and greatest side of the neighbour, in sides of the object."""

STREAM = 8
"""Keeps these random numbers apart from those of the splits. (Stream 7 was looked at in a pilot.)"""

LEAST_VISIBLE = 0.5
"""Share of its pixels that must be seen of either object, whichever is behind."""

_ATTEMPTS = 200


@dataclass(frozen=True)
class Condition:
    """neighbour: "none", "same" or "other" (class); degree: one of DEGREES; in_front: of the object."""

    neighbour: str
    degree: float = 0.0
    in_front: bool = False


CONDITIONS = (
    Condition("none"),
    *(Condition(*values) for values in itertools.product(("same", "other"), DEGREES, (False, True))),
)


@dataclass(frozen=True)
class Placed:
    """A silhouette in an image. label 1..K; shape: bool [h, w]; x, y: its upper left pixel."""

    label: int
    shape: np.ndarray
    x: int = 0
    y: int = 0

    def moved(self, x: int, y: int) -> "Placed":
        return replace(self, x=self.x + x, y=self.y + y)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image."""
        height, width = self.shape.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


@dataclass(frozen=True)
class Arrangement:
    """A scene: the object, and its neighbour by kind and degree."""

    object: Placed
    neighbours: dict[tuple[str, float], Placed]

    def layers(self, condition: Condition) -> list[tuple[int, Placed]]:
        """What a picture shows, back to front, with numbers: 1 the object, 2 its neighbour."""
        if condition.neighbour == "none":
            return [(1, self.object)]
        both = [(1, self.object), (2, self.neighbours[condition.neighbour, condition.degree])]
        return both if condition.in_front else both[::-1]


class NeighbourScenes(InstanceSet):
    """All pictures of some scenes, scene by scene in the order of CONDITIONS. The object comes first in each."""

    def __init__(self, spec: ShapesSpec, num_scenes: int) -> None:
        self.name, self.classes, self.digest = "shapes/neighbours", list(CLASSES), f"{spec.digest('val')}-{num_scenes}"
        self.max_objects = 2
        self._samples = [sample for scene in range(num_scenes) for sample in pictures(spec, scene)]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def image_id(scene: int, condition: Condition) -> int:
    return 1 + len(CONDITIONS) * scene + CONDITIONS.index(condition)


def pictures(spec: ShapesSpec, scene: int) -> list[Sample]:
    """The pictures of a scene, in the order of CONDITIONS. Raises ValueError if an image has no room for it."""
    for attempt in range(_ATTEMPTS):
        arrangement = _arrange(spec, _generator(spec, scene, 0, attempt))
        if arrangement is not None:
            return [_picture(spec, scene, arrangement, condition) for condition in CONDITIONS]
    raise ValueError(f"data.image_side: expected room for two objects of {SIDES[1]:g} cells, got {spec.image_side}")


def _generator(spec: ShapesSpec, scene: int, *names: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([spec.seed, STREAM, scene, *names])))


def _arrange(spec: ShapesSpec, rng: np.random.Generator) -> Arrangement | None:
    """None where the neighbours find no room, or hide too much of the object."""
    label = 1 + int(rng.random() * len(CLASSES))
    other = 1 + (label + int(rng.random() * (len(CLASSES) - 1))) % len(CLASSES)
    side = (SIDES[0] + rng.random() * (SIDES[1] - SIDES[0])) * STRIDE
    neighbour_side = side * (RELATIVE_SIDES[0] + rng.random() * (RELATIVE_SIDES[1] - RELATIVE_SIDES[0]))
    target = Placed(label, silhouette(spec, rng, label, side))
    direction, attitude = rng.random(2) * 2 - 1, int(rng.random() * 2**32)
    neighbours = {}
    for kind, of_class in (("same", label), ("other", other)):
        # Both have the same size and attitude: the generator starts anew.
        shape = silhouette(spec, np.random.Generator(np.random.PCG64(attitude)), of_class, neighbour_side)
        for degree in DEGREES:
            placed = _approach(target, Placed(of_class, shape), direction, degree)
            if placed is None or min(_visible(target, placed), _visible(placed, target)) < LEAST_VISIBLE:
                return None
            neighbours[kind, degree] = placed
    # The object goes where each of its neighbours finds room.
    everything = [target, *neighbours.values()]
    low = np.array([min(placed.x for placed in everything), min(placed.y for placed in everything)])
    high = np.array([max(placed.window[axis].stop for placed in everything) for axis in (1, 0)])
    room = spec.image_side - (high - low) + 1
    if (room < 1).any():
        return None
    x, y = ((rng.random(2) * room).astype(np.int64) - low).tolist()
    return Arrangement(target.moved(x, y), {key: placed.moved(x, y) for key, placed in neighbours.items()})


def _approach(target: Placed, neighbour: Placed, direction: np.ndarray, degree: float) -> Placed | None:
    """The neighbour where, coming straight towards the object's centre, it first covers this share of its box."""
    height, width = target.shape.shape
    centred = neighbour.moved((width - neighbour.shape.shape[1]) // 2, (height - neighbour.shape.shape[0]) // 2)
    step = direction / np.abs(direction).max()
    for distance in range(max(*target.shape.shape, *neighbour.shape.shape), -1, -1):
        x, y = np.round(distance * step).astype(int).tolist()
        placed = centred.moved(x, y)
        if np.count_nonzero(_where_both_are(placed, target)[0]) >= degree * height * width:
            return placed
    return None


def _where_both_are(first: Placed, second: Placed) -> tuple[np.ndarray, np.ndarray]:
    """The parts of two silhouettes, bool [h, w] each, where their boxes overlap."""
    top, left = max(first.y, second.y), max(first.x, second.x)
    bottom, right = (min(first.window[axis].stop, second.window[axis].stop) for axis in (0, 1))
    if bottom <= top or right <= left:
        return np.zeros((0, 0), bool), np.zeros((0, 0), bool)
    crop = lambda of: of.shape[top - of.y : bottom - of.y, left - of.x : right - of.x]  # noqa: E731
    return crop(first), crop(second)


def _visible(placed: Placed, by: Placed) -> float:
    """The share of a silhouette's pixels that is seen behind another."""
    own, other = _where_both_are(placed, by)
    return 1 - np.count_nonzero(own & other) / np.count_nonzero(placed.shape)


def _picture(spec: ShapesSpec, scene: int, arrangement: Arrangement, condition: Condition) -> Sample:
    """Each part of a scene has random numbers of its own, so that it looks the same in all pictures."""
    layers = arrangement.layers(condition)
    background = _generator(spec, scene, 1)
    colours = [random_colour(background, [], spec.contrast)]
    pixels = texture(background, colours[0], spec.texture, spec.image_side, spec.image_side)
    depth = np.zeros((spec.image_side, spec.image_side), np.uint8)
    for number in (1, 2):  # the neighbour's colour differs from the object's, whichever lies in front
        colours.append(random_colour(_generator(spec, scene, 2, number), colours, spec.contrast))
    for number, placed in layers:
        paint = texture(_generator(spec, scene, 3, number), colours[number], spec.texture, *placed.shape.shape)
        np.copyto(pixels[:, *placed.window], paint, where=placed.shape)
        depth[placed.window][placed.shape] = number
    numbers = sorted(number for number, _ in layers)
    masks = np.stack([depth == number for number in numbers])
    labels = {number: placed.label for number, placed in layers}
    image = photograph(_generator(spec, scene, 4), pixels, spec.noise)
    return Sample(
        image=torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
        boxes=torch.tensor([bounds(mask) for mask in masks], dtype=torch.float32),
        labels=torch.tensor([labels[number] for number in numbers]),
        masks=torch.from_numpy(masks.astype(np.uint8)),
        image_id=image_id(scene, condition),
    )
