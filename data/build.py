"""From a data specification to an instance set: the one place that knows all kinds of data."""

from pathlib import Path

from data import coco, collage, shapes
from data.dataset import InstanceSet
from data.specs import COCO_SPLITS, CocoSpec, CollageSpec, ShapesSpec

SPLITS = ("train", "val", "test", "pretrain")


def build(spec: ShapesSpec | CocoSpec | CollageSpec, split: str, cache_dir: str | Path | None = None) -> InstanceSet:
    """A part of what `spec` describes.

    split:     "train"; "val", which settings are chosen by; "test", which studies are judged by; or "pretrain", which
               backbones are pretrained on. A COCO-format folder has two parts: its validation set is the test set, and
               its training set serves for pretraining. Collages are made of the training set only.
    cache_dir: where synthetic images are kept between runs; None draws them again, in memory
    Raises ValueError on an unknown split, a specification out of range, or a folder that is not what it should be.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    spec.validate()
    if isinstance(spec, CollageSpec):
        return collage.Collages(spec) if COCO_SPLITS[split] == "train" else coco.load(spec.photographs(), "val")
    if isinstance(spec, CocoSpec):
        return coco.load(spec, COCO_SPLITS[split])
    if split == "pretrain":
        return shapes.SyntheticStream(spec)
    return shapes.draw(spec, split) if cache_dir is None else shapes.cache(spec, split, cache_dir)
