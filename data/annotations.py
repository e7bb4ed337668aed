"""COCO annotation files: read, checked entry by entry, and cleaned by stated rules.

What cannot be trusted as a whole is refused with a ValueError: a file that is missing, is not JSON or lacks one of
the lists, image or category ids given twice, and file names that lead out of the image folder. A single bad entry is
a Problem, which `python -m data.check` lists; for training the rule is:

    image file missing                      one that must be meant is taken, else the image is skipped with its objects
    unknown image or category, id twice     the object is skipped (of two with one id, the second)
    iscrowd neither 0 nor 1                 the object is skipped
    polygon under three points, or not of numbers near the image    it is dropped; with none left, the object
    polygon not in a list of polygons       it is read as one
    RLE of another size or that does not decode                 the object is skipped
    no pixel in the mask                    the object is skipped
    box not four numbers, without area, or outside the image    the object is skipped
    box over the image's border             the box is clipped
    box and mask of different places        both are kept as they are
    area that cannot be the mask's          it is recomputed
    crowd region                            kept: evaluation and the matching of RoIs and anchors ignore what lies in it
    class name used before                  kept as a class of its own

Ids are only names (see ids.py): annotations are numbered 1, 2, ... in the file's order, and where a number differs from
the file's id, that id stands beside it as "source_id". So do images whose ids are not whole numbers of 64 bits.
"""

import codecs
import gc
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category

from PIL import Image

from data import licences
from data.file_names import PictureFolder, check_name
from data.ids import Ids, is_name, key_of, numbered
from data.objects import clean_object
from data.problems import CONTROLS, Fault, Problem

# Unicode's categories of what ends a line or cannot be written.
_UNPRINTABLE = {*CONTROLS, "Cs"}

# COCO's AP looks at so many detections of an image, whatever a model finds.
_MOST_DETECTIONS = 100


@dataclass(frozen=True)
class Annotations:
    """A cleaned annotation file.

    images:      entries by number, in the file's order: id (that number), file_name, height, width, source_id, and, if
                 the file has a table of licences, "licence" (its name and url) and "source" (where the picture is from)
    categories:  names by the file's ids, in the file's order
    annotations: usable entries: image_id is an image's number, category_id a category's id in the file
    problems:    what was skipped, dropped, clipped or put right
    """

    images: dict[int, dict[str, Any]]
    categories: dict[Any, str]
    annotations: list[dict[str, Any]]
    problems: list[Problem]

    @property
    def refusal(self) -> str:
        """Why a detector can neither be trained nor measured on the file, or ""."""
        if not self.annotations:
            return "no object can be used"
        if all(entry["iscrowd"] for entry in self.annotations):
            return (
                f"all {len(self.annotations)} objects are crowd regions (iscrowd 1), which are neither learned nor "
                "looked for; some tools mark all masks so: set iscrowd to 0 for single objects"
            )
        return ""


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
    categories, problems = _class_names(_by_id(content["categories"], "categories", {"name"}, path), path)
    entries = _by_id(content["images"], "images", {"file_name", "height", "width"}, path)
    images, missing = _images(entries, image_folder, path)
    _add_licences(images, entries, licences.table_of(content))
    kept, of_objects = _objects(content.pop("annotations"), images, Ids(categories))
    problems += missing + of_objects
    there = {image["id"]: image for image in images.values() if image["file_name"] is not None}
    kept = [entry for entry in kept if entry["image_id"] in there]
    for number, entry in enumerate(kept, start=1):
        entry["id"] = number
        if entry["source_id"] in (number, None):
            del entry["source_id"]
    crowded = Counter(entry["image_id"] for entry in kept if not entry["iscrowd"])
    for number, count in crowded.items():
        if count > _MOST_DETECTIONS:
            text = f"{count} objects; COCO's AP takes the best {_MOST_DETECTIONS} detections of an image into account"
            problems.append(Problem("image", there[number].get("source_id", number), text, "kept"))
    return Annotations(there, categories, kept, problems)


def read(path: Path) -> dict[str, Any]:
    """The JSON of an annotation file with its three lists. Raises ValueError naming the file and what was expected."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: expected a COCO annotation file, got a folder or a device")
    try:
        with no_collection():
            content = json.loads(_text(path))
    except OSError as error:
        raise ValueError(f"{path}: expected a COCO annotation file, got: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected JSON in UTF-8, got: {error}; save the file as UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"{path}: expected a COCO annotation file, got JSON nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got: {error}; is the file complete?") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected an object with images, annotations and categories, got a {type(content).__name__}"
            f"{' (a results file?)' if isinstance(content, list) else ''}"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            keys = ", ".join(map(repr, list(content)[:10]))
            raise ValueError(f"{path}: expected a list under {key!r}, got the keys {keys or 'none'}")
    return content


def _text(path: Path) -> str:
    """The file's text, with or without a byte order mark."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")


def _by_id(entries: list[Any], kind: str, keys: set[str], path: Path) -> dict[Any, dict[str, Any]]:
    """Entries by id. Raises ValueError when one lacks a key or an id comes twice: what is meant is then unknown."""
    by_id: dict[Any, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        lacking = keys | {"id"} if not isinstance(entry, dict) else (keys | {"id"}) - entry.keys()
        if lacking:
            raise ValueError(f"{path}: {kind}[{position}]: expected {', '.join(sorted(lacking))}, got {entry!r:.200}")
        if not is_name(entry["id"]):
            raise ValueError(f"{path}: {kind}[{position}]: expected a number or a text as id, got {entry['id']!r:.200}")
        key = key_of(entry["id"])
        if key in by_id:
            raise ValueError(f"{path}: {kind}: expected each id once, got {key!r:.200} twice; remove one of them")
        by_id[key] = entry
    if not by_id:
        raise ValueError(f"{path}: expected at least one entry under {kind!r}, got none")
    return by_id


def _class_names(entries: dict[Any, dict[str, Any]], path: Path) -> tuple[dict[Any, str], list[Problem]]:
    """The names of the classes by id. Raises ValueError for what is no name."""
    names: dict[Any, str] = {}
    problems: list[Problem] = []
    users: dict[str, Any] = {}
    for key, entry in entries.items():
        name = str(entry["name"])
        is_seen = any(letter.isprintable() and not letter.isspace() for letter in name)
        if not is_name(entry["name"]) or not is_seen or any(category(letter) in _UNPRINTABLE for letter in name):
            raise ValueError(f"{path}: category {key!r:.80}: expected a name, got {entry['name']!r:.200}")
        user = users.setdefault(" ".join(name.split()).casefold(), key)
        if user != key:
            alike = "" if names[user] == name else f": {names[user]!r} except for blanks and capitals"
            text = f"its name {name!r} is that of category {user!r} too{alike}"
            problems.append(Problem("category", key, text, "kept as another class"))
        names[key] = name
    return names, problems


def _images(
    entries: dict[Any, dict[str, Any]], folder: Path, path: Path
) -> tuple[dict[Any, dict[str, Any]], list[Problem]]:
    """Images by id with what is used of them, and those whose file is not there; their file_name is then None.

    Raises ValueError for a name that leads out of the folder, or sides that no picture can have.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected the folder of the images of {path}, got no such folder")
    images: dict[Any, dict[str, Any]] = {}
    for key, number in numbered(entries).items():
        entry = entries[key]
        name = check_name(entry["file_name"], f"{path}: image {key!r:.80}")
        height, width = (_side(entry[name]) for name in ("height", "width"))
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # more than that no picture is read with
        if height * width == 0 or height * width > most:
            raise ValueError(
                f"{path}: image {key!r:.80}: expected height and width in pixels, at most {most:,} together, "
                f"got {entry['height']!r:.40} and {entry['width']!r:.40}"
            )
        images[key] = {"id": number, "file_name": name, "height": height, "width": width}
        if number != key:
            images[key]["source_id"] = key
    faults = PictureFolder(folder).resolve(image["file_name"] for image in images.values())
    lost = [image for image in images.values() if image["file_name"] in faults]
    problems = []
    for image in lost:
        image["file_name"], fault = faults[image["file_name"]]
        if len(lost) == len(images) and image["file_name"] is None and not fault.reason:
            fault = fault._replace(reason=f"none of the images is in {folder}: is it their folder?")
        problems.append(Problem.of("image", image.get("source_id", image["id"]), fault))
    return images, problems


def _add_licences(
    images: dict[Any, dict[str, Any]], entries: dict[Any, dict[str, Any]], table: dict[int, dict[str, str]]
) -> None:
    """Gives each image its licence, and where it is from as COCO has it; nothing where the file has no such table."""
    for key, image in images.items() if table else ():
        entry = entries[key]
        image["licence"] = licences.of_image(entry, table)
        image["source"] = str(entry.get("flickr_url") or entry.get("coco_url") or "")


def _side(value: Any) -> int:
    """A side in pixels, or 0 for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else 0


def _objects(
    raw_entries: list[Any], images: dict[Any, dict[str, Any]], category_ids: Ids
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The entries that can be used, each with the file's id, or None, as source_id; and what was wrong with any."""
    kept: list[dict[str, Any]] = []
    problems: list[Problem] = []
    image_ids, seen = Ids(images), set()
    # From the end, so that the memory of raw entries is given back on the way.
    raw_entries.reverse()
    for position in range(len(raw_entries)):
        raw = raw_entries.pop()
        entry, faults = None, [Fault(f"expected an object, got {raw!r:.80}", "skipped")]
        source = raw.get("id") if isinstance(raw, dict) else None
        if isinstance(raw, dict):
            entry, faults = clean_object(raw, images, image_ids, category_ids)
        if entry is not None and source is not None:
            if key_of(source) in seen:
                entry, faults = None, [Fault("its id was used before", "skipped")]
            seen.add(key_of(source))
        name = f"number {position + 1}, without an id" if source is None else source
        problems += [Problem.of("annotation", name, fault) for fault in faults]
        if entry is not None:
            kept.append({"id": 0, "source_id": source, **entry})
    return kept, problems
