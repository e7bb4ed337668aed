"""Writes annotation files of a COCO-format folder that have a single category, and only the images that show it.

python -m data.category ROOT CATEGORY NAME    # annotations/NAME_train2017.json of instances_train2017.json, and so on
python -m data.category ROOT --all NAME       # objects of all categories, as one category "object"
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from data import annotations
from data.check import pairs
from data.terminal import run_command


def of_category(content: dict[str, Any], category: str) -> dict[str, Any]:
    """What an annotation file holds of one category. Raises ValueError where it has none of that name."""
    categories = [entry for entry in content["categories"] if isinstance(entry, dict) and entry.get("name") == category]
    if not categories:
        names = ", ".join(str(entry.get("name")) for entry in content["categories"] if isinstance(entry, dict))
        raise ValueError(f"expected one of the categories {names or '(there are none)'}, got {category}")
    wanted = [entry.get("id") for entry in categories]
    objects = [entry for entry in content["annotations"] if entry.get("category_id") in wanted]
    shown = {entry.get("image_id") for entry in objects}
    images = [entry for entry in content["images"] if entry.get("id") in shown]
    return content | {"categories": categories, "annotations": objects, "images": images}


def as_one_category(content: dict[str, Any]) -> dict[str, Any]:
    """What an annotation file holds, with objects of all categories as one."""
    objects = [entry | {"category_id": 1} for entry in content["annotations"]]
    shown = {entry.get("image_id") for entry in objects}
    images = [entry for entry in content["images"] if entry.get("id") in shown]
    return content | {"categories": [{"id": 1, "name": "object"}], "annotations": objects, "images": images}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.category", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="a folder with annotations/instances_*.json")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("category", nargs="?", help="the category's name in these files, such as person")
    which.add_argument("--all", action="store_true", help='all categories, as one that is called "object"')
    parser.add_argument("name", help="what the new files are called in place of instances, such as people")
    options = parser.parse_args(arguments)
    try:
        if Path(options.name).name != options.name or options.name == "instances":
            raise ValueError(f"NAME: expected another word than instances, and no path, got {options.name}")
        for path, _ in pairs(options.root):
            content = annotations.read(path)
            content = as_one_category(content) if options.all else of_category(content, options.category)
            target = path.with_name(f"{options.name}_{path.stem.removeprefix('instances_')}.json")
            target.write_text(json.dumps(content), encoding="utf-8")
            print(f"{target}: {len(content['images'])} images, {len(content['annotations'])} objects")
    except (ValueError, AttributeError, TypeError, OSError) as error:
        sys.exit(f"data.category: {options.root}: {error}")


if __name__ == "__main__":
    run_command(main)
