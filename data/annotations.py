"""COCO annotation files: read, checked entry by entry, and cleaned by stated rules.

What cannot be trusted as a whole is refused with a ValueError: a file that is missing, is not JSON or lacks one of
the lists, image or category ids given twice, and file names that lead out of the image folder. A single bad entry is
a Problem, which `python -m data.check` lists; for training the rule is:

    image file missing                      the image and its objects are skipped
    unknown image or category, id twice     the object is skipped (of two with one id, the second)
    box not four numbers, without area, or outside the image    the object is skipped
    box over the image's border             the box is clipped
    polygon under three points, or not of numbers near the image    it is dropped; with none left, the object
    RLE of another size or that does not decode                 the object is skipped
    crowd region                            kept: evaluation and the matching of RoIs and anchors ignore what lies in it
"""

import gc
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

# Boxes of the official annotations reach over the border by rounding; further out is a mistake.
_BORDER = 1.0


@dataclass(frozen=True)
class Problem:
    """A bad entry: what it is ("image" or "annotation"), its id, what is wrong, and what training does about it."""

    entry: str
    id: Any
    text: str
    rule: str

    def __str__(self) -> str:
        return f"{self.entry} {self.id}: {self.text} ({self.rule})"


@dataclass(frozen=True)
class Annotations:
    """A cleaned annotation file.

    images, categories: entries by id, in the file's order
    annotations:        usable entries; areas, crowd flags and RLE strings filled in where they were left out
    problems:           what was skipped, dropped or clipped
    """

    images: dict[Any, dict[str, Any]]
    categories: dict[Any, dict[str, Any]]
    annotations: list[dict[str, Any]]
    problems: list[Problem]


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: going through millions of lists that all stay alive doubles the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load(path: Path, image_folder: Path) -> Annotations:
    """Read, check and clean an annotation file. Raises ValueError for a file that cannot be trusted as a whole."""
    content = read(path)
    images = _by_id(content["images"], "images", {"file_name", "height", "width"}, path)
    categories = _by_id(content["categories"], "categories", {"name"}, path)
    problems = list(_image_problems(images, image_folder, path))
    missing = {problem.id for problem in problems}
    kept, seen = [], set()
    # From the end, so that the memory of raw entries is given back on the way.
    raw_entries = content.pop("annotations")
    raw_entries.reverse()
    while raw_entries:
        raw = raw_entries.pop()
        annotation, found = clean(raw, images, categories)
        if annotation is not None and annotation["id"] in seen:
            annotation, found = None, [("its id was used before", "skipped")]
        problems += [Problem("annotation", raw.get("id") if isinstance(raw, dict) else raw, *pair) for pair in found]
        if annotation is not None:
            seen.add(annotation["id"])
            if annotation["image_id"] not in missing:
                kept.append(annotation)
    return Annotations({key: images[key] for key in images if key not in missing}, categories, kept, problems)


def read(path: Path) -> dict[str, Any]:
    """The JSON of an annotation file with its three lists. Raises ValueError naming the file and what was expected."""
    try:
        with no_collection(), open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise ValueError(f"{path}: expected a COCO annotation file, got: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got: {error}; is the file complete?") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected an object with images, annotations and categories, got a {type(content).__name__}"
            f"{' (a results file?)' if isinstance(content, list) else ''}"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(f"{path}: expected a list under {key!r}, got the keys {', '.join(content) or 'none'}")
    return content


def _by_id(entries: list[Any], kind: str, keys: set[str], path: Path) -> dict[Any, dict[str, Any]]:
    """Entries by id. Raises ValueError when one lacks a key or an id comes twice: what is meant is then unknown."""
    found: dict[Any, dict[str, Any]] = {}
    for place, entry in enumerate(entries):
        lacking = keys | {"id"} if not isinstance(entry, dict) else (keys | {"id"}) - entry.keys()
        if lacking:
            raise ValueError(f"{path}: {kind}[{place}]: expected {', '.join(sorted(lacking))}, got {entry!r:.200}")
        # Image ids become numbers in batches and names of files: nothing else will do.
        kinds = int if kind == "images" else int | str
        if isinstance(entry["id"], bool) or not isinstance(entry["id"], kinds):
            raise ValueError(f"{path}: {kind}[{place}]: expected a number as id, got {entry['id']!r}")
        if entry["id"] in found:
            raise ValueError(f"{path}: {kind}: expected each id once, got {entry['id']!r} twice; remove one of them")
        found[entry["id"]] = entry
    if not found:
        raise ValueError(f"{path}: expected at least one entry under {kind!r}, got none")
    return found


def _image_problems(images: dict[Any, dict[str, Any]], folder: Path, path: Path) -> Iterator[Problem]:
    """Images whose file is missing. Raises ValueError for a name that leads out of the folder or a size below 1."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected the folder of the images of {path}, got no such folder")
    listed: dict[str, set[str]] = {}
    for key, image in images.items():
        if not all(isinstance(image[side], int) and image[side] > 0 for side in ("height", "width")):
            raise ValueError(f"{path}: image {key}: expected height and width in pixels, got {image!r:.200}")
        name = check_name(image["file_name"], f"{path}: image {key}")
        parent = os.path.dirname(name)
        if parent not in listed:
            listed[parent] = set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        if os.path.basename(name) not in listed[parent]:
            yield Problem("image", key, f"no file {folder / name}", "skipped with its objects")


def check_name(name: Any, where: str) -> str:
    """A file name out of an annotation file. Raises ValueError when it leads out of the image folder."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{where}: expected a file name, got {name!r}")
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise ValueError(f"{where}: expected a file name inside the image folder, got {name!r}; correct the file")
    return name


def clean(
    raw: Any, images: dict[Any, dict[str, Any]], categories: dict[Any, dict[str, Any]]
) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
    """One annotation made usable, or None, and what was found: pairs of problem and rule."""
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), int | str):
        return None, [("expected an object with an id", "skipped")]
    image = images.get(_hashable(raw.get("image_id")))
    if image is None:
        return None, [(f"unknown image {raw.get('image_id')!r}", "skipped")]
    if _hashable(raw.get("category_id")) not in categories:
        return None, [(f"unknown category {raw.get('category_id')!r}", "skipped")]
    height, width = image["height"], image["width"]
    box, found = _clean_box(raw.get("bbox"), height, width)
    if box is None:
        return None, found
    segmentation, more = _clean_segmentation(raw.get("segmentation"), height, width)
    found += more
    if segmentation is None:
        return None, found
    area = raw.get("area")
    if not isinstance(area, int | float) or not math.isfinite(area):
        is_rle = isinstance(segmentation, dict)
        area = int(rle.area(segmentation if is_rle else rle.merge(rle.frPyObjects(segmentation, height, width))))
    return {
        "id": raw["id"],
        "image_id": raw["image_id"],
        "category_id": raw["category_id"],
        "bbox": box,
        "area": area,
        "iscrowd": 1 if raw.get("iscrowd") else 0,
        "segmentation": segmentation,
    }, found


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str) else None


def _clean_box(box: Any, height: int, width: int) -> tuple[list[float] | None, list[tuple[str, str]]]:
    """An xywh box clipped to the image, or None."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    if not numbers or not all(map(math.isfinite, box)):
        return None, [(f"expected a box of four numbers, got {box!r:.80}", "skipped")]
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return None, [(f"box without area {box}", "skipped")]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x2 <= x1 or y2 <= y1:
        return None, [(f"box {box} outside the image of {width} x {height}", "skipped")]
    over = max(x1 - x, y1 - y, x + w - x2, y + h - y2)
    if over == 0:
        return box, []
    found = [(f"box {box} reaches out of the image of {width} x {height}", "clipped")] if over > _BORDER else []
    return [x1, y1, x2 - x1, y2 - y1], found


def _clean_segmentation(value: Any, height: int, width: int) -> tuple[Any, list[tuple[str, str]]]:
    """Polygons of three points or more, or a compressed RLE of the image's size with a str; else None."""
    if isinstance(value, dict):
        problem = rle_problem(value, height, width)
        if problem:
            return None, [(problem, "skipped")]
        if isinstance(value["counts"], list):
            packed = rle.frPyObjects(value, height, width)
            return {"size": [height, width], "counts": packed["counts"].decode("ascii")}, []
        return value, []
    if not isinstance(value, list):
        return None, [(f"expected polygons or an RLE, got {value!r:.80}", "skipped")]
    good, found = [], []
    for polygon in value:
        problem = polygon_problem(polygon, max(height, width))
        if problem:
            found.append((problem, "dropped"))
        else:
            good.append(polygon)
    return (good, found) if good else (None, [*found, ("no polygon", "skipped")])


def polygon_problem(polygon: Any, side: int) -> str | None:
    """What is wrong with a list x, y, x, y, ... in an image with this longer side, or None."""
    if not isinstance(polygon, list):
        return f"expected a polygon as a list of numbers, got {polygon!r:.80}"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"expected a polygon of three points or more, got {len(polygon)} numbers"
    try:
        # One pass in C; a NaN makes the sum one. Points far off would make the C code trace lines without end.
        near = -side <= min(polygon) and max(polygon) <= 2 * side and math.isfinite(sum(polygon))
    except TypeError:
        near = False
    return None if near else f"expected a polygon of numbers in or near the image, got {polygon!r:.80}"


def rle_problem(value: dict[str, Any], height: int, width: int) -> str | None:
    """What is wrong with a run-length encoding, or None. Checked here because the C code trusts its input."""
    counts = value.get("counts")
    if value.get("size") != [height, width]:
        return f"expected an RLE of size {[height, width]}, got {value.get('size')!r:.80}"
    runs: np.ndarray | None = None
    if isinstance(counts, list) and all(isinstance(run, int) for run in counts):
        runs = np.array(counts, dtype=object)
    elif isinstance(counts, str):
        runs = rle_runs(counts)
    if runs is None or len(runs) == 0 or min(runs) < 0:
        return "expected RLE counts, got something that does not decode"
    total = int(sum(runs.tolist()))
    return None if total == height * width else f"expected an RLE of {height * width} pixels, got {total}"


def rle_runs(counts: str) -> np.ndarray | None:
    """The runs of a compressed RLE, int64, or None when it does not decode.

    Each number is a row of characters with five bits each, lowest first, 32 marking that more follow; from the fourth
    number on, what is stored is the difference from the number before the last.
    """
    codes = np.frombuffer(counts.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:
        return None
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shift, starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
