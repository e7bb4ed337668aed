"""Scenes that slide under the grid: one object over a background, moved to the right pixel by pixel.

What the place of an object under the cells of a feature map does to its mask can't be told from ordinary images, in
which objects at other places are other objects. Here a scene is drawn and photographed once, wider than an image, and
the images are windows of it: their pixels differ by the shift alone, noise included.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from data.dataset import InstanceSet, Sample
from data.paint import photograph, random_colour, texture
from data.scene import CLASSES, bounds, silhouette
from data.shapes import COCO_PERCENTILES
from data.specs import STRIDE, ShapesSpec

SHIFTS = 64
"""Pixels that a scene slides over, one image for each: two cells of stride 32, four of stride 16."""

HEIGHT, WIDTH = 160, 256
"""The sides of the images, in pixels, whatever the set's own images measure: a network takes images of any size."""

SIDE = COCO_PERCENTILES[50] * STRIDE
"""The object's side (square root of its box's area) in pixels: the median of COCO's objects, in cells of stride 16."""

LONGEST = 128
"""Pixels: a longer object is made smaller, so that it never comes nearer than half a cell to the image's border."""

LEFT = 32
"""Where the object's box begins at shift 0: on the centre of a cell of either stride, so that its left edge crosses
the borders of cells at the same shifts in all scenes. Its right edge does so at others in each."""

MARGIN = 16
"""Least distance in pixels from the object's box to the upper and lower border; where between them is random."""

STREAM = 9
"""Keeps these random numbers apart from those of the splits and of data/neighbours.py."""


@dataclass(frozen=True)
class SlidingScene:
    """What windows are cut from: pixels uint8 [HEIGHT, WIDTH + SHIFTS - 1, 3], the object's label and its bool mask."""

    pixels: np.ndarray
    label: int
    mask: np.ndarray

    def window(self, shift: int) -> slice:
        """The columns that are seen when the scene has moved to the right by `shift` pixels, 0 to SHIFTS - 1."""
        return slice(SHIFTS - 1 - shift, SHIFTS - 1 - shift + WIDTH)

    def sample(self, shift: int, image_id: int) -> Sample:
        """The image at a shift, with its one object."""
        pixels, mask = self.pixels[:, self.window(shift)], self.mask[:, self.window(shift)]
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1),
            boxes=torch.tensor([bounds(mask)], dtype=torch.float32),
            labels=torch.tensor([self.label]),
            masks=torch.from_numpy(mask[None].astype(np.uint8)),
            image_id=image_id,
        )


class SlidingScenes(InstanceSet):
    """All images of some scenes, scene by scene in the order of their shifts."""

    def __init__(self, spec: ShapesSpec, num_scenes: int) -> None:
        self.name, self.classes, self.digest = "shapes/sliding", list(CLASSES), f"{spec.digest('val')}-{num_scenes}"
        self.max_objects = 1
        self.scenes = [draw_scene(spec, scene) for scene in range(num_scenes)]

    def __len__(self) -> int:
        return SHIFTS * len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, got index {index}")
        scene, shift = divmod(index, SHIFTS)
        return self.scenes[scene].sample(shift, image_id=1 + index)


def draw_scene(spec: ShapesSpec, scene: int) -> SlidingScene:
    """Scene number `scene` of the set that `spec` describes, except for the size of its images."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([spec.seed, STREAM, scene])))
    label = 1 + int(rng.random() * len(CLASSES))
    shape = silhouette(replace(spec, image_side=LONGEST), rng, label, SIDE)
    left, top, right, bottom = bounds(shape)
    shape = shape[top:bottom, left:right]
    height, width = shape.shape
    x, y = SHIFTS - 1 + LEFT, MARGIN + int(rng.random() * (HEIGHT - 2 * MARGIN - height + 1))
    mask = np.zeros((HEIGHT, WIDTH + SHIFTS - 1), bool)
    mask[y : y + height, x : x + width] = shape
    background = random_colour(rng, [], spec.contrast)
    pixels = texture(rng, background, spec.texture, *mask.shape)
    colour = random_colour(rng, [background], spec.contrast)
    np.copyto(pixels[:, y : y + height, x : x + width], texture(rng, colour, spec.texture, height, width), where=shape)
    return SlidingScene(photograph(rng, pixels, spec.noise), label, mask)
