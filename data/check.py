"""Find what is wrong with a COCO-format folder before training on it.

python -m data.check ROOT            # every annotations/instances_NAME.json with its images in NAME/
python -m data.check ROOT --quick    # without decoding the images

Every problem is listed with its file and id, and with what training does about it (the rules: annotations.py). The
exit code is 0 when there is none, 1 otherwise.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data import annotations
from data.images import read_image


def check_file(path: Path, folder: Path, decode: bool) -> Iterator[annotations.Problem]:
    """The problems of an annotation file and, if `decode`, of the images that it names in `folder`.

    Raises ValueError when the file cannot be trusted as a whole.
    """
    content = annotations.load(path, folder)
    yield from content.problems
    if decode:
        images = list(content.images.values())
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda image: _image_problem(image, folder), images)
            yield from (problem for problem in found if problem is not None)


def _image_problem(image: dict[str, Any], folder: Path) -> annotations.Problem | None:
    try:
        read_image(folder / image["file_name"], image["height"], image["width"])
    except ValueError as error:
        return annotations.Problem("image", image["id"], str(error), "refused when it is its turn")
    return None


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """The annotation files of a root, each with its image folder. Raises ValueError when there is none."""
    found = sorted(root.glob("annotations/instances_*.json"))
    if not found:
        raise ValueError(f"{root}: expected annotations/instances_NAME.json, found none; name one with --json")
    return [(path, root / path.stem.removeprefix("instances_")) for path in found]


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
    for path, folder in files:
        rules: Counter[str] = Counter()
        try:
            for problem in check_file(path, folder, decode=not parsed.quick):
                rules[f"{problem.entry}: {problem.rule}"] += 1
                print(f"{path}: {problem}")
        except ValueError as error:
            rules["refused as a whole"] += 1
            print(error)
        summary = ", ".join(f"{count} x {rule}" for rule, count in sorted(rules.items()))
        print(f"{path}: {summary or 'no problems'}")
        failed |= bool(rules)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
