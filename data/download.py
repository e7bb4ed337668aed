"""Fetch a public set and lay it out as a COCO-format folder. Run again after an interruption: it goes on.

python -m data.download coco --root datasets/coco              # 20 GB to fetch, 20 GB on disk, 39 GB meanwhile
python -m data.download pennfudan --root datasets/pennfudan    # 54 MB

Archives are checked by size and, where one is on record, by SHA-256, before anything is unpacked.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from data.dataset import annotation
from data.terminal import run_command

CHUNK = 1 << 20
"""Bytes that are read, and written to disk, at a time."""

_TRIES = 5


@dataclass(frozen=True)
class Archive:
    """A zip file: where it is, its size in bytes, and its SHA-256, or None where none is on record."""

    url: str
    size: int
    sha256: str | None = None

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rsplit("/", 1)[1]


# COCO publishes no checksums; these are what independent downloads over the years agree on.
COCO = (
    Archive(
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
    Archive(
        "http://images.cocodataset.org/zips/val2017.zip",
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
    Archive(
        "http://images.cocodataset.org/zips/train2017.zip",
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
)
PENNFUDAN = Archive("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip", 53_723_336)

# As in torchvision's tutorial, 50 of the 170 images are held out; which ones is fixed here.
_PENNFUDAN_VAL = 50


def fetch(archive: Archive, folder: Path, say: Callable[[str], None] = print, pause: float = 2.0) -> Path:
    """The archive's file in `folder`, complete and checked; what an earlier call left as NAME.part is continued.

    pause: seconds before the second try, doubled before each further one
    Raises ValueError when the disk is too small, the archive cannot be fetched, or is not the one expected.
    """
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    missing = archive.size - (part.stat().st_size if part.exists() else 0)
    # The unpacked images take about what the archive does.
    if shutil.disk_usage(folder).free < missing + archive.size:
        raise ValueError(
            f"{folder}: expected {(missing + archive.size) / 1e9:.1f} GB free for {archive.name}; make room"
        )
    for attempt in range(1, _TRIES + 1):
        try:
            _continue(archive, part, say)
            break
        except (OSError, HTTPException) as error:
            refused = isinstance(error, HTTPError) and 400 <= error.code < 500
            if refused or attempt == _TRIES:
                raise ValueError(
                    f"{archive.url}: could not be fetched: {error}; run again to go on where it stopped"
                ) from error
            say(f"{archive.name}: {error}; trying again")
            time.sleep(pause * 2 ** (attempt - 1))
    _verify(archive, part)
    part.rename(path)
    return path


def _continue(archive: Archive, part: Path, say: Callable[[str], None]) -> None:
    """Append to `part` what is missing. Raises OSError or HTTPException when the connection breaks."""
    done = part.stat().st_size if part.exists() else 0
    if done >= archive.size:
        return
    request = Request(archive.url, headers={"Range": f"bytes={done}-"} if done else {})
    with urlopen(request, timeout=60) as answer:
        # A server that cannot continue sends everything from the start, with status 200.
        done = done if answer.status == 206 else 0
        said = time.monotonic()
        with open(part, "ab" if done else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    say(f"{archive.name}: {done / 1e9:.2f} of {archive.size / 1e9:.2f} GB")
    if done < archive.size:
        raise OSError(f"the connection ended after {done} of {archive.size} bytes")


def _verify(archive: Archive, part: Path) -> None:
    """Raises ValueError, and removes the file, when it is not the archive on record."""
    size = part.stat().st_size
    actual = f"{size} bytes"
    good = size == archive.size
    if good and archive.sha256 is not None:
        with open(part, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        good = actual == archive.sha256
    if not good:
        part.unlink()
        expected = archive.sha256 if size == archive.size else f"{archive.size} bytes"
        raise ValueError(f"{archive.name}: expected {expected}, got {actual}; the file was removed, run again")


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip file, leaving alone what an earlier call unpacked. Raises ValueError when it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():
                target = folder / member.filename
                if not (target.is_file() and target.stat().st_size == member.file_size):
                    file.extract(member, folder)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: expected a zip file, got: {error}; remove it and run again") from error


def fetch_coco(root: Path, archives: tuple[Archive, ...] = COCO) -> None:
    """COCO 2017's annotations and images in `root`; each archive is removed once it is unpacked."""
    for archive in archives:
        mark = root / f".{archive.name}.done"
        if mark.exists():
            continue
        path = fetch(archive, root)
        print(f"{archive.name}: unpacking")
        unpack(path, root)
        mark.write_text(f"{archive.url} {archive.size} {archive.sha256}\n")
        path.unlink()


def fetch_pennfudan(root: Path, archive: Archive = PENNFUDAN) -> None:
    """The Penn-Fudan pedestrians, 170 images with a mask picture each, as a COCO-format folder in `root`."""
    mark = root / f".{archive.name}.done"
    if mark.exists():
        return
    path = fetch(archive, root)
    unpack(path, root)
    source = root / "PennFudanPed"
    pictures = sorted((source / "PNGImages").glob("*.png"))
    if not pictures:
        raise ValueError(f"{source}: expected pictures in PNGImages, found none; remove {path} and run again")
    order = np.random.default_rng(0).permutation(len(pictures)).tolist()
    for split, chosen in (("train", order[_PENNFUDAN_VAL:]), ("val", order[:_PENNFUDAN_VAL])):
        _convert(root, source, split, [pictures[index] for index in sorted(chosen)])
    mark.write_text(f"{archive.url} {archive.size}\n")
    path.unlink()
    shutil.rmtree(source)


def _convert(root: Path, source: Path, split: str, pictures: list[Path]) -> None:
    """Write one split: copies of the pictures, and masks, in which pixel value k is person k, as RLE."""
    (root / split).mkdir(exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, start=1):
        shutil.copyfile(picture, root / split / picture.name)
        people = np.asarray(Image.open(source / "PedMasks" / f"{picture.stem}_mask.png"))
        height, width = people.shape
        images.append({"id": image_id, "file_name": picture.name, "height": height, "width": width})
        for person in np.unique(people[people > 0]).tolist():
            entries.append(annotation(len(entries) + 1, image_id, 1, (people == person).astype(np.uint8)))
    content = {"info": {"description": f"Penn-Fudan pedestrians, {split}"}, "licenses": [], "images": images}
    content |= {"annotations": entries, "categories": [{"id": 1, "name": "person"}]}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


FETCHERS: dict[str, Callable[[Path], None]] = {"coco": fetch_coco, "pennfudan": fetch_pennfudan}


def main(arguments: list[str] | None = None) -> None:
    """The command line: see the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m data.download", description="Fetch a public set.")
    parser.add_argument("name", choices=sorted(FETCHERS))
    parser.add_argument("--root", type=Path, help="the folder to make; by default datasets/NAME")
    parsed = parser.parse_args(arguments)
    root = parsed.root or Path("datasets") / parsed.name
    try:
        FETCHERS[parsed.name](root)
    except (ValueError, OSError) as error:
        sys.exit(f"data.download: {error}")
    except KeyboardInterrupt:
        sys.exit(f"data.download: stopped; run again to go on: python -m data.download {parsed.name} --root {root}")
    print(f"{root}: ready; python run.py data=coco data.root={root}")


if __name__ == "__main__":
    run_command(main)
