"""Small sets in COCO format, and the ways to make one odd: what odd_sets.py is written in."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from data.coco import CocoSpec

HEIGHT, WIDTH = 32, 48
BOXES = ([4, 4, 16, 12], [26, 8, 14, 18])


def polygon(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def good() -> dict[str, Any]:
    """Two images with two objects each."""
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "id": 10 * image + label,
                "image_id": image,
                "category_id": label,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": [polygon(*box)],
            }
            for image in (1, 2)
            for label, box in enumerate(BOXES, start=1)
        ],
    }


def write(root: Path, content: dict[str, Any] | str | bytes) -> CocoSpec:
    """Both splits alike. content: what the annotation file holds, or the file's own text or bytes."""
    content = json.dumps(content) if isinstance(content, dict) else content
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    (root / "annotations").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for split in ("train", "val"):
        (root / split).mkdir()
        for number in (1, 2):
            Image.fromarray(pixels).save(root / split / f"{number}.png")
        (root / "annotations" / f"instances_{split}.json").write_bytes(content)
    return CocoSpec(root=str(root), image_size=HEIGHT, max_size=64)


@dataclass(frozen=True)
class Odd:
    """change: makes the good content odd. objects: how many can be used; 0 if the set is refused.

    said: part of what is listed, or of the refusal; "" where nothing needs to be said
    """

    change: Callable[[dict[str, Any]], Any]
    objects: int = 4
    said: str = ""


def every(kind: str = "annotations", **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes all entries; a function gets the entry."""

    def change(content: dict[str, Any]) -> None:
        for entry in content[kind]:
            entry.update({key: value(entry) if callable(value) else value for key, value in changes.items()})

    return change


def first(kind: str = "annotations", **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: every(kind, **changes)({kind: content[kind][:1]})


def without(*keys: str, kind: str = "annotations") -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for entry in content[kind]:
            for key in keys:
                del entry[key]

    return change


def annotation_ids(ids: list[Any]) -> Callable[[dict[str, Any]], None]:
    return lambda content: [entry.update(id=key) for entry, key in zip(content["annotations"], ids, strict=True)]


def image_ids(one: Any, two: Any, refer: tuple[Any, Any] | None = None) -> Callable[[dict[str, Any]], None]:
    """Other ids for the images; refer: what the annotations call them, if that is not the same."""

    def change(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["image_id"] = (refer or (one, two))[entry["image_id"] - 1]
        content["images"][0]["id"], content["images"][1]["id"] = one, two

    return change


def category_ids(one: Any, two: Any, refer: tuple[Any, Any] | None = None) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["category_id"] = (refer or (one, two))[entry["category_id"] - 1]
        content["categories"][0]["id"], content["categories"][1]["id"] = one, two

    return change


def box(make: Callable[[float, float, float, float], list[Any]]) -> Callable[[dict[str, Any]], None]:
    return every(bbox=lambda entry: make(*entry["bbox"]))


def encoded(mask: np.ndarray) -> dict[str, Any]:
    packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": packed["size"], "counts": packed["counts"].decode()}


def mask_of(entry: dict[str, Any]) -> np.ndarray:
    x, y, w, h = entry["bbox"]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


def runs(flat: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *lengths] if flat[0] else lengths


def named(make: Callable[[int], Any]) -> Callable[[dict[str, Any]], None]:
    return every("images", file_name=lambda image: make(image["id"]))


def many_objects(content: dict[str, Any]) -> None:
    """150 objects in one image."""
    entry = content["annotations"][0]
    for number in range(146):
        x, y = 3 * (number % 16), 3 * (number // 16)
        spot = {"id": 1000 + number, "bbox": [x, y, 2, 2], "area": 4, "segmentation": [polygon(x, y, 2, 2)]}
        content["annotations"].append({**entry, **spot})


def unit(entry: dict[str, Any]) -> list[float]:
    return [value / side for value, side in zip(entry["segmentation"][0], [WIDTH, HEIGHT] * 4, strict=True)]


def write_odd(root: Path, odd: Odd) -> CocoSpec:
    content = copy.deepcopy(good())
    odd.change(content)
    return write(root, content)


def perfect_results(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The ground truth itself as detections, each with a score of its own."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    results = []
    for entry in truth["annotations"]:
        if not entry["iscrowd"]:
            outline = entry["segmentation"]
            if isinstance(outline, list):
                packed = rle.merge(rle.frPyObjects(outline, *sizes[entry["image_id"]]))
                outline = {"size": packed["size"], "counts": packed["counts"].decode()}
            keys = {key: entry[key] for key in ("image_id", "category_id", "bbox")}
            results.append({**keys, "segmentation": outline, "score": 1 - len(results) / 1000})
    return results
