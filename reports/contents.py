"""What the files of a study hold besides its records, checked before anything is computed from it.

A study may come from somebody else: numbers may be of any size and type, and masks are decoded by C code that trusts
its input. Each function says what is wrong, in the words of an error message, or "" if nothing is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data.segmentation import polygon_problem, rle_problem, sound_rles

Sizes = Mapping[int, tuple[int, int]]
"""Image id -> (height, width) in pixels."""

MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26
"""The most pixels of an image; Pillow warns of larger ones."""

MOST = 1e15
"""Greatest number that coordinates and areas may have; float64 has it exactly."""

AT_A_TIME = 1000
"""Masks that are checked at once: more would not stay in a processor's cache."""


class Unusable(ValueError):
    """A file that cannot be used: what was expected in it, and what it holds."""


def read_json(path: Path) -> Any:
    """Raises Unusable for what is no file, no UTF-8 or no JSON; FileNotFoundError where there is nothing."""
    if path.exists() and not path.is_file():
        raise Unusable("expected a file, got a folder or a device")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise Unusable("expected JSON in UTF-8, got other bytes") from error
    except RecursionError as error:
        raise Unusable("expected JSON, got one nested too deeply") from error
    except (OSError, ValueError) as error:
        raise Unusable(f"expected JSON, got: {error}") from error


def truth_problem(content: Any) -> str:
    """What is wrong with a COCO JSON dictionary as a study keeps it."""
    if not isinstance(content, dict) or not all(
        _is_rows(content.get(key)) for key in ("images", "annotations", "categories")
    ):
        return "expected lists of images, annotations and categories"
    for image in content["images"]:
        if not (is_id(image.get("id")) and _is_size(image.get("height"), image.get("width"))):
            return f"expected an image with a whole number as id and up to {MOST_PIXELS:,} pixels, got {image!r:.120}"
    for category in content["categories"]:
        if not (is_id(category.get("id")) and isinstance(category.get("name"), str)):
            return f"expected a category with a whole number as id and a name, got {category!r:.120}"
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    names = {category["id"] for category in content["categories"]}
    if len(sizes) < len(content["images"]) or len(names) < len(content["categories"]):
        return "expected each id of an image and of a category once"
    for entry in content["annotations"]:
        problem = _entry_problem(entry, sizes, names) or _object_problem(entry)
        if problem:
            return f"expected an object with {problem}, got {entry!r:.120}"
    return _masks_problem(content["annotations"], sizes)


def results_problem(content: Any, truth: Mapping[str, Any] | None) -> str:
    """What is wrong with COCO results. truth: what they are of; without it, only their types are checked."""
    if not _is_rows(content):
        return "expected a list of detections"
    sizes = names = None
    if truth is not None:
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        names = {category["id"] for category in truth["categories"]}
    for entry in content:
        problem = _entry_problem(entry, sizes, names)
        if not problem and not is_number(entry.get("score")):
            problem = "a number as score"
        if problem:
            return f"expected a detection with {problem}, got {entry!r:.120}"
    return "" if sizes is None else _masks_problem(content, sizes)


def objects_problem(content: Any, truth: Mapping[str, Any] | None) -> str:
    """What is wrong with figures by object: "image_ids" and lists as long, of numbers or None. truth: of the images."""
    if not isinstance(content, dict) or not all(isinstance(column, list) for column in content.values()):
        return "expected lists by name"
    if "image_ids" not in content or len({len(column) for column in content.values()}) > 1:
        return "expected a list of image_ids, and the others of its length"
    known = None if truth is None else {image["id"] for image in truth["images"]}
    if not all(is_id(image) and (known is None or image in known) for image in content["image_ids"]):
        return "expected ids of evaluated images as image_ids"
    figures = (value for name, column in content.items() if name != "image_ids" for value in column)
    return "" if all(value is None or is_number(value) for value in figures) else "expected numbers or null as figures"


def picture_problem(path: Path, size: tuple[int, int] | None = None) -> str:
    """What is wrong with a picture of a study. size: (height, width) that the ground truth gives it."""
    if not path.is_file():
        return "" if not path.exists() else "expected a picture, got a folder or a device"
    try:
        with Image.open(path) as image:
            if not _is_size(image.height, image.width):
                return f"expected a picture of up to {MOST_PIXELS:,} pixels, got {image.width} x {image.height}"
            if size is not None and (image.height, image.width) != size:
                expected = f"{size[1]} x {size[0]} pixels as in the ground truth"
                return f"expected {expected}, got {image.width} x {image.height}"
            image.verify()
        with Image.open(path) as image:
            image.load()  # `verify` finds no damage in a JPEG
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises any of them
        return f"expected a picture that can be read, got: {error}"
    return ""


def log_line(text: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl with its step and its finite numbers; None if it has no step or cannot be read."""
    try:
        return log_row(json.loads(text))
    except (ValueError, RecursionError):
        return None


def log_row(line: Any) -> dict[str, Any] | None:
    """The same of what a line holds."""
    if not isinstance(line, dict) or not is_id(line.get("step")) or line["step"] < 0:
        return None
    return {key: value for key, value in line.items() if is_number(value)}


def is_id(value: Any) -> bool:
    """Whether this is a whole number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_number(value: Any) -> bool:
    """Whether this is a finite number that arithmetic can be done with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _is_size(height: Any, width: Any) -> bool:
    return all(is_id(side) and side > 0 for side in (height, width)) and height * width <= MOST_PIXELS


def _entry_problem(entry: dict[str, Any], sizes: Sizes | None, categories: set[int] | None) -> str:
    """What is expected of an object or a detection and is not so; its mask is not looked into."""
    image, category, box = entry.get("image_id"), entry.get("category_id"), entry.get("bbox")
    if not is_id(image) or (sizes is not None and image not in sizes):
        return "the id of an image"
    if not is_id(category) or (categories is not None and category not in categories):
        return "the id of a category"
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return "a box of four numbers"
    return ""


def _object_problem(entry: dict[str, Any]) -> str:
    """What is expected of an object besides what detections have too, and is not so."""
    if not is_id(entry.get("id")) or entry.get("iscrowd", 0) not in (0, 1):
        return "a whole number as id, and iscrowd 0 or 1"
    if not is_number(entry.get("area")) or min(entry["bbox"][2:]) <= 0:
        return "an area, and a box that has one"
    return "" if "segmentation" in entry else "a segmentation"


class _Rle(NamedTuple):
    counts: str
    pixels: int
    entry: dict[str, Any]


def _masks_problem(entries: list[dict[str, Any]], sizes: Sizes) -> str:
    """What is wrong with the first mask that cannot be decoded. Compressed RLEs are checked all at once."""
    packed: list[_Rle] = []
    for entry in entries:
        if "segmentation" not in entry:
            continue
        shape, (height, width) = entry["segmentation"], sizes[entry["image_id"]]
        if isinstance(shape, dict) and shape.get("size") == [height, width] and isinstance(shape.get("counts"), str):
            packed.append(_Rle(shape["counts"], height * width, entry))
            continue
        if isinstance(shape, dict):
            problem: str | None = rle_problem(shape, height, width)
        elif isinstance(shape, list) and shape:
            problem = next(filter(None, (polygon_problem(polygon, max(height, width)) for polygon in shape)), None)
        else:
            problem = "expected polygons or an RLE"
        if problem:
            return f"{problem} in {entry!r:.120}"
    for start in range(0, len(packed), AT_A_TIME):
        part = packed[start : start + AT_A_TIME]
        sound = sound_rles([item.counts for item in part], np.array([item.pixels for item in part], np.int64))
        if not sound.all():
            entry = part[int(sound.argmin())].entry
            return f"expected a mask whose RLE decodes to its image's pixels, got {entry!r:.120}"
    return ""
