"""Find what is wrong with a COCO-format folder before training on it.

python -m data.check ROOT            # every annotations/instances_NAME.json with its images in NAME/
python -m data.check ROOT --quick    # without decoding the images

Every problem is listed with its file and id, and with what training does about it (the rules: annotations.py). The
exit code is 0 when there is none, 1 otherwise.
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data import annotations
from data.ids import ordered
from data.images import bits_in_use, read_image
from data.problems import Problem, summary
from data.terminal import run_command


def check_files(files: list[tuple[Path, Path]], decode: bool) -> Iterator[tuple[Path, list[Problem]]]:
    """The problems of each annotation file, with its image folder; also where its classes are not the first one's."""
    first: tuple[Path, list[str]] | None = None
    for path, folder in files:
        try:
            content = annotations.load(path, folder)
        except ValueError as error:
            yield path, [Problem("file", path.name, str(error), "refused as a whole")]
            continue
        problems = list(_problems(content, path, folder, decode))
        classes = [content.categories[key] for key in ordered(content.categories)]
        if first is None:
            first = path, classes
        elif classes != first[1]:
            text = f"its classes, by id, are {_difference(classes, first[1])} in {first[0]}"
            problems.append(Problem("file", path.name, text, "refused as the other split of the same set"))
        yield path, problems


def _problems(content: annotations.Annotations, path: Path, folder: Path, decode: bool) -> Iterator[Problem]:
    yield from content.problems
    if content.refusal:
        yield Problem("file", path.name, content.refusal, "refused")
    if decode:
        with ThreadPoolExecutor() as pool:
            yield from filter(None, pool.map(lambda image: _image_problem(image, folder), content.images.values()))


def _image_problem(image: dict[str, Any], folder: Path) -> Problem | None:
    name, path = image.get("source_id", image["id"]), folder / image["file_name"]
    try:
        read_image(path, image["height"], image["width"])
        bits = bits_in_use(path)
    except ValueError as error:
        return Problem("image", name, str(error), "refused when it is its turn")
    if bits is None or bits == 16:
        return None
    return Problem("image", name, f"{path}: 16-bit picture of which {bits} bits are in use", "scaled by those bits")


def _difference(classes: list[str], others: list[str]) -> str:
    """How two lists of classes differ, shortly."""
    if len(classes) != len(others):
        return f"{len(classes)}, not the {len(others)}"
    number = next(number for number, pair in enumerate(zip(classes, others, strict=True)) if pair[0] != pair[1])
    return f"in another order: number {number + 1} is {classes[number]!r}, not {others[number]!r} as"


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """The annotation files of a root, each with its image folder. Raises ValueError when there is none."""
    files = sorted(root.glob("annotations/instances_*.json"))
    if not files:
        raise ValueError(f"{root}: expected annotations/instances_NAME.json, found none; name one with --json")
    return [(path, root / path.stem.removeprefix("instances_")) for path in files]


def main(arguments: list[str] | None = None) -> None:
    """The command line: see the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m data.check", description="Check a COCO-format folder.")
    parser.add_argument("root", type=Path, help="the folder of the set")
    parser.add_argument("--json", type=Path, help="one annotation file instead of all in ROOT/annotations")
    parser.add_argument("--images", type=Path, help="the folder of its images")
    parser.add_argument("--quick", action="store_true", help="do not decode the images")
    parsed = parser.parse_args(arguments)
    if (parsed.json is None) != (parsed.images is None):
        parser.error("expected --json and --images together")
    try:
        files = pairs(parsed.root) if parsed.json is None else [(parsed.json, parsed.images)]
    except ValueError as error:
        sys.exit(f"data.check: {error}")
    failed = False
    for path, problems in check_files(files, decode=not parsed.quick):
        for problem in problems:
            print(f"{path}: {problem}")
        print(f"{path}: {summary(problems) or 'no problems'}")
        failed |= bool(problems)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_command(main)
