"""What every instance set looks like: one Sample per image, and Batches padded to fixed shapes.

Letters: B images, G padded ground truths, C padded crowd regions, n objects of one image, H and W the padded image's
sides.
Boxes are float32 xyxy in image pixels with continuous coordinates (pixel i covers [i, i + 1)); labels are 1..K, 0 is
background or padding, and -1 a crowd region (CROWD), which has a box but no mask; masks are of the visible part and
boxes enclose the visible mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle

# Channel statistics of ImageNet, in units of 0..1: what torchvision's pretrained backbones were trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

CROWD = -1
"""Label of a region with many objects under one outline: what lies in it is neither object nor background."""


@dataclass(frozen=True)
class Sample:
    """One image with its objects, as stored.

    image:    uint8 [3, H, W], RGB
    boxes:    float32 [n, 4], xyxy
    labels:   int64 [n], 1..K, then CROWD
    masks:    uint8 [n, H, W], 0 or 1
    image_id: the id that COCO annotations and results use
    original_size: (height, width) of the picture that annotations and results refer to; None if it is the image's own
    """

    image: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    image_id: int
    original_size: tuple[int, int] | None = None

    def picture(self) -> Image.Image:
        """The image in the pixels that annotations and results refer to."""
        picture = Image.fromarray(self.image.permute(1, 2, 0).numpy())
        return picture if self.original_size is None else picture.resize(self.original_size[::-1])


@dataclass
class Batch:
    """B images padded to one size, their objects padded to G.

    images:    float32 [B, 3, H, W], channels last, normalised; padding is 0, which is the mean colour
    sizes:     int64 [B, 2], height and width of each image before padding
    boxes:     float32 [B, G, 4]
    labels:    int64 [B, G], 0 where padded
    masks:     uint8 [B, G, H, W]
    crowds:    float32 [B, C, 4], boxes of crowd regions, NaN where padded
    image_ids: int64 [B]
    flipped:   bool [B], whether the image was mirrored left to right
    indices:   int64 [B], the images' positions in their set
    original_sizes: int64 [B, 2], height and width in which results are wanted: differs from sizes in resized images
    """

    images: torch.Tensor
    sizes: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    crowds: torch.Tensor
    image_ids: torch.Tensor
    flipped: torch.Tensor
    indices: torch.Tensor
    original_sizes: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch in another device's memory."""
        return Batch(**{name: to_device(value, device) for name, value in self.__dict__.items()})


def to_device(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same values in another device's memory. A copy to a GPU is asynchronous: it is started here, not awaited."""
    if device.type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


class InstanceSet:
    """Images with objects, by index. A subclass gives the attributes, `__len__` and `__getitem__`.

    name:        for people, "shapes/val"
    classes:     names of classes 1..K, in order
    digest:      changes whenever the content does; caches and records are keyed by it
    max_objects: no image has more objects than this
    same_size:   all images have one size, so that batches have fixed shapes
    endless:     there is an image for every index; such a set has no length
    reads_images: whether images are read; else they are zeros, for networks that take maps (`without_images`)
    """

    name: str
    classes: list[str]
    digest: str
    max_objects: int
    same_size: bool = True
    endless: bool = False
    reads_images: bool = True

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def without_images(self) -> "InstanceSet":
        """The same set, of which a subclass that can save something does not read the images."""
        return self

    @property
    def wide(self) -> np.ndarray | None:
        """bool [N], images that are wider than high, where batches of like shapes save padding; else None."""
        return None

    @property
    def showable(self) -> Sequence[int]:
        """The positions of the images that reports may show."""
        return range(len(self))

    @cached_property
    def coco(self) -> dict[str, Any]:
        """The ground truth as a COCO JSON dictionary: what pycocotools evaluates against."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(len(self)):
            sample = self[index]
            height, width = sample.image.shape[-2:]
            images.append(
                {"id": sample.image_id, "file_name": f"{sample.image_id:012d}.png", "height": height, "width": width}
            )
            for mask, label in zip(sample.masks.numpy(), sample.labels.tolist(), strict=True):
                annotations.append(annotation(len(annotations) + 1, sample.image_id, label, mask))
        return {
            "info": {"description": self.name, "digest": self.digest},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in enumerate(self.classes, start=1)],
        }


def annotation(annotation_id: int, image_id: int, label: int, mask: np.ndarray) -> dict[str, Any]:
    """The COCO annotation of one object from its uint8 mask [H, W]."""
    encoded = rle.encode(np.asfortranarray(mask))
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": label,
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
        "area": int(rle.area(encoded)),
        "bbox": [float(value) for value in rle.toBbox(encoded)],
        "iscrowd": 0,
    }


def flip_boxes(boxes: torch.Tensor, width: int | torch.Tensor) -> torch.Tensor:
    """Mirror xyxy boxes [..., 4] left to right in an image of this width."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((width - x2, y1, width - x1, y2), dim=-1)


def normalise(image: torch.Tensor, out: torch.Tensor) -> None:
    """Write an image, uint8 [h, w, 3], into `out`, float32 [h, w, 3], with zero mean and unit variance by ImageNet's.

    Rows are treated as w * 3 numbers, which runs several times as fast as broadcasting over a last axis of 3.
    """
    h, w = image.shape[:2]
    scale, shift = _scale_and_shift(w)
    rows = out.as_strided((h, w * 3), (out.stride(0), 1))
    torch.mul(image.reshape(h, w * 3), scale, out=rows).sub_(shift)


@lru_cache(maxsize=64)
def _scale_and_shift(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a row of a uint8 image, [width * 3], is multiplied by, and what is then taken off."""
    scale = 1 / (torch.tensor(IMAGE_STD) * 255)
    shift = torch.tensor(IMAGE_MEAN) * 255 * scale
    return scale.repeat(width), shift.repeat(width)


def collate(
    samples: Sequence[Sample],
    num_ground_truths: int | None = None,
    flipped: Sequence[bool] | None = None,
    indices: Sequence[int] | None = None,
    size: tuple[int, int] | None = None,
    with_images: bool = True,
) -> Batch:
    """Pad samples into a Batch.

    num_ground_truths: G; by default the most objects that any of the samples has (at least 1).
    flipped:           for each sample, whether to mirror it; by default none.
    indices:           the samples' positions in their set, only passed on; by default 0..B-1.
    size:              (H, W) to pad to; by default the greatest height and width among the samples.
    with_images:       else they are zeros, which take no memory.
    Raises ValueError when a sample has more than G objects or does not fit into `size`.
    """
    count, flips = len(samples), [False] * len(samples) if flipped is None else list(flipped)
    sizes = torch.tensor([sample.image.shape[-2:] for sample in samples])
    counts = [int((sample.labels != CROWD).sum()) for sample in samples]
    most = max(counts)
    G = max(most, 1) if num_ground_truths is None else num_ground_truths
    if most > G:
        raise ValueError(f"expected at most {G} objects in an image, got {most}; raise num_ground_truths to {most}")
    H, W = sizes.amax(0).tolist() if size is None else size
    if (sizes > torch.tensor([H, W])).any():
        raise ValueError(f"expected images of at most {H} x {W} pixels, got {sizes.amax(0).tolist()}; raise the size")

    same = bool((sizes == torch.tensor([H, W])).all())
    images = torch.zeros(1).expand(count, H, W, 3)
    if with_images:
        images = torch.empty(count, H, W, 3) if same else torch.zeros(count, H, W, 3)
    boxes = torch.zeros(count, G, 4)
    labels = torch.zeros(count, G, dtype=torch.int64)
    masks = torch.zeros(count, G, H, W, dtype=torch.uint8)
    most_crowds = max(len(sample.labels) - n for sample, n in zip(samples, counts, strict=True))
    crowds = torch.full((count, most_crowds, 4), torch.nan)
    for b, (sample, n, flip) in enumerate(zip(samples, counts, flips, strict=True)):
        assert (sample.labels[n:] == CROWD).all(), "crowds come last"
        h, w = sample.image.shape[-2:]
        if with_images:
            image = sample.image.permute(1, 2, 0)
            normalise(image.flip(1) if flip else image, out=images[b, :h, :w])
        all_boxes = flip_boxes(sample.boxes, w) if flip else sample.boxes
        boxes[b, :n], crowds[b, : len(all_boxes) - n] = all_boxes[:n], all_boxes[n:]
        labels[b, :n] = sample.labels[:n]
        masks[b, :n, :h, :w] = sample.masks[:n].flip(2) if flip else sample.masks[:n]
    return Batch(
        images=images.permute(0, 3, 1, 2),
        sizes=sizes,
        boxes=boxes,
        labels=labels,
        masks=masks,
        crowds=crowds,
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        flipped=torch.tensor(flips),
        indices=torch.arange(count) if indices is None else torch.tensor(list(indices)),
        original_sizes=torch.tensor([sample.original_size or sample.image.shape[-2:] for sample in samples]),
    )
