"""What identifies a photo study's photographs and weights: looked up where it was run, kept where it is published.

Where they lay on the machine that ran it is nobody else's business and is not published.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ablations.records.schema import RunRecord, StudyRecord
from reports.contents import is_id
from reports.load import StudyResults

Recorded = TypeVar("Recorded", RunRecord, StudyRecord)

BY_NAME = ("imagenet", "shipped")
"""Weights that need no file."""


def weights(study: StudyResults) -> dict[str, str]:
    """The name and the SHA-256 of the file with the backbone's weights; {} where there was none or it is gone."""
    model = study.record.config.get("model")
    name = model.get("weights") if isinstance(model, dict) else None
    if not isinstance(name, str) or name in BY_NAME:
        return {}
    path = Path(name)
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except (OSError, ValueError):
        return {}


def images(study: StudyResults) -> dict[str, list[int]]:
    """The ids of the images in use, "train" and "val"; without those that the recorded digest does not vouch for.

    Synthetic images are named by their digest alone.
    """
    settings, digests = study.record.config.get("data"), study.data.get("digest")
    if not isinstance(settings, dict) or settings.get("kind") != "coco" or not isinstance(digests, dict):
        return {}
    found = {split: _image_ids(settings, split, digests.get(split)) for split in ("train", "val")}
    return {split: ids for split, ids in found.items() if ids}


def without_places(record: Recorded) -> Recorded:
    """A run's or study's record of which no file or folder in its settings has more left than its name."""
    return replace(record, config=_names_only(record.config))


def _names_only(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {name: _names_only(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [_names_only(value) for value in settings]
    return Path(settings).name if isinstance(settings, str) and Path(settings).is_absolute() else settings


def _image_ids(settings: dict[str, Any], split: str, digest: Any) -> list[int]:
    """Those images of a split's annotation file that data/coco.py takes, if that has the digest; else []."""
    try:
        matching = sorted(Path(settings["root"]).glob(settings[f"{split}_json"]))
        if len(matching) != 1 or not matching[0].is_file():
            return []
        text = matching[0].read_bytes()
        content, file_digest = json.loads(text), hashlib.sha256(text).digest()
        with_objects = {item["image_id"] for item in content["annotations"] if not item.get("iscrowd")}
        ids = sorted(image["id"] for image in content["images"] if is_id(image["id"]))
        most = settings[f"num_{split}"]
        used = [split, settings["image_size"], settings["max_size"], settings["max_objects"]]
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError):
        return []
    for usable in ([image for image in ids if image in with_objects], ids):
        count = len(usable) if most is None else min(most, len(usable))
        taken = [usable[index * len(usable) // count] for index in range(count)]
        # As data/coco.py makes it.
        if hashlib.sha256(file_digest + json.dumps([used, taken]).encode()).hexdigest()[:16] == digest:
            return taken
    return []
