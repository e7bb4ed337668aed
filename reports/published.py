"""What a report takes from files that are too large to publish, kept beside the published records.

With it a published report can be rendered again, after a change of its text or its charts, without detections.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ablations.errors import RecordError
from reports.stats.bootstrap import ImageNoise
from reports.stats.dose import Dose

FILE, PICTURES = "published.json", "pictures"


@dataclass(frozen=True)
class Published:
    """Results that were computed from detections and images.

    noise:      hypothesis -> bootstrap over the images, of `resamples` resamples.
    seed:       of the detections that the sample images show; None without them.
    crowded:    whether some sample images have too many objects for notes.
    candidates: how many objects the close-ups were chosen from; None without close-ups.
    credits:    of the photographs shown, in COCO's words: id, source, licence; and in which pictures each is used.
    why:        what the text says of the object on the feature grid; None without that figure.
    images:     "train" and "val" -> the ids of the photographs in use, see identify.py; {} of synthetic images.
    weights:    the name and the SHA-256 of the file with the backbone's weights; {} where there was none.
    floor:      bootstrap over the images of how far the reference arm is above the floors.
    doses:      of the dose chart, whose displacements are measured on the ground truth.
    few_arms:   whether the sample images leave some arms out; few_close: whether the close-ups do.
    few_notes:  whether some objects in the sample images, which no claim is about, have no notes.
    ordered_by: the labels of the two arms by whose difference the close-ups are ordered; [] where by all differences.
    """

    resamples: int
    noise: dict[str, ImageNoise]
    seed: int | None
    crowded: bool
    candidates: int | None
    credits: list[dict[str, Any]]
    why: dict[str, Any] | None = None
    images: dict[str, list[int]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    floor: ImageNoise | None = None
    doses: list[Dose] = field(default_factory=list)
    few_arms: bool = False
    few_close: bool = False
    few_notes: bool = False
    ordered_by: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_published(folder: Path) -> Published | None:
    """What was kept of the study in `folder`; None where nothing was. Raises RecordError for anything else."""
    try:
        return TypeAdapter(Published).validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RecordError(
            f"{folder / FILE}: expected what `python -m reports.gallery` keeps, got something else ({where}: "
            f"{first['msg']}); publish the study again from its outputs"
        ) from error


def keep_figures(study_folder: Path, figures: Path) -> None:
    """Puts a study's earlier figures where those that can be drawn again will replace them."""
    if (study_folder / PICTURES).is_dir():
        shutil.copytree(study_folder / PICTURES, figures, dirs_exist_ok=True)


def drop_unused(report: Path) -> None:
    """Removes the figures that neither a report nor its slider names."""
    named = report.read_text(encoding="utf-8")
    scenes = report.parent / "figures" / "scenes.json"
    if "figures/samples." in named and scenes.is_file():
        named += f"{scenes.name} {scenes.read_text(encoding='utf-8')}"
    for path in (report.parent / "figures").glob("*"):
        if path.name not in named:
            path.unlink()
