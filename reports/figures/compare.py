"""What the page's slider needs: the sample images, and on each the outlines of every arm and seed as SVG paths."""

import io
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from contourpy import contour_generator
from PIL import Image

from reports.figures.style import QUALITY, Figures
from reports.load import StudyResults
from reports.scenes import SampleScene, is_about_large, middling
from reports.text.labels import arms_of, is_pair

MOST_SCENES = 6
MOST_SEEDS = 3
"""More would only make the page larger: they show the same."""
TOLERANCE = 1 / 640  # of the longer side of the image, by which a path may leave the outline


def compare(study: StudyResults, scenes: Sequence[SampleScene], figures: Figures) -> list[int]:
    """Writes scenes.json and an image for each scene beside the figures. Returns the images' ids in the slider's order;
    none, and writes nothing, where there are no two arms to compare.

    Paths are in the image's pixels. found: "arm/seed" -> for each object a path or null, its IoU, and how many
    detections are not drawn. missed: what an object without a path is called, where it is not "missed". asked: whether
    claims are about each object, and "about" what these are called, where they are not about all.
    """
    seed = study.shown_seed()
    seeds = [seed, *(other for other in study.seeds() if other != seed)][:MOST_SEEDS]
    keys = [key for key in study.runs if key[1] in seeds and any(key in scene.matched for scene in scenes)]
    arms = [arm for arm in study.record.arms if any(arm == key[0] for key in keys)]
    if seed is None or len(arms) < 2:
        return []
    content: dict[str, Any] = {
        "arms": [{"id": arm, "label": study.label(arm)} for arm in arms],
        "seeds": sorted({key[1] for key in keys}),
        "shown": seed,
        "pair": _pair(study, arms),
        "scenes": [],
    }
    if study.boxes_are_given:
        content["missed"] = "without a mask that fits"
    if is_about_large(study):
        content["about"] = "objects of 96 px and more"
    shown = middling(scenes, seed, MOST_SCENES)
    for scene in shown:
        height, width = scene.pixels().shape[:2]
        name = f"scene-{scene.image_id}.jpg"
        picture = io.BytesIO()
        Image.fromarray(scene.pixels()).save(picture, format="JPEG", quality=QUALITY)
        figures.attach(name, picture.getvalue())
        content["scenes"].append(
            {
                "width": width,
                "height": height,
                "picture": name,
                "names": scene.names,
                **({"asked": scene.asked} if "about" in content else {}),
                "truth": [path_of(mask) for mask in scene.masks],
                "found": {f"{arm}/{number}": _found(scene, arm, number) for arm, number in keys},
            }
        )
    figures.attach("scenes.json", (json.dumps(content, indent=1) + "\n").encode())
    return [scene.image_id for scene in shown]


def _pair(study: StudyResults, arms: Sequence[str]) -> list[str]:
    """The arms that the slider starts with: those of the first hypothesis about two arms."""
    pairs = [item.contrast for item in study.record.hypotheses if is_pair(item.contrast)]
    asked = (arms_of(contrast)[::-1] for contrast in pairs if set(contrast) <= set(arms))
    return list(next(asked, tuple(arms[:2])))


def _found(scene: SampleScene, arm: str, seed: int) -> dict[str, Any]:
    shown = scene.matched[arm, seed]
    return {
        "paths": [None if instance is None else path_of(instance.mask) for instance in shown],
        "ious": [None if instance is None else round(instance.iou, 2) for instance in shown],
        "others": scene.others[arm, seed],
    }


def path_of(mask: np.ndarray) -> str:
    """The outline of a [H, W] bool mask as the data of an SVG path; pixel i reaches from i to i + 1."""
    padded = np.pad(mask, 1).astype(float)
    lines, tolerance = contour_generator(z=padded).lines(0.5), TOLERANCE * max(mask.shape)
    return "".join(_closed(_few_points(np.asarray(line) - 0.5, tolerance)) for line in lines)


def _few_points(line: np.ndarray, tolerance: float) -> np.ndarray:
    """A line that ends where it starts, simplified and without its end; of a speck, which would vanish, all points."""
    kept = simplified(line, tolerance)[:-1]
    return kept if len(kept) > 2 else line[:-1]


def _closed(points: np.ndarray) -> str:
    """A closed line through the points [N, 2], multiples of a half, each relative to the one before: the shortest."""
    first, *others = (" ".join(f"{value:g}" for value in step) for step in np.diff(points, axis=0, prepend=0))
    return re.sub(r"(?<!\d)0\.", ".", f"M{first}l{' '.join(others)}Z").replace(" -", "-")


def simplified(points: np.ndarray, tolerance: float) -> np.ndarray:
    """The points [N, 2] of a line without those that lie within `tolerance` of the line between their neighbours.

    Douglas and Peucker 1973: a stretch is split at its farthest point until none is too far.
    """
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    stretches = [(0, len(points) - 1)]
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        inner, start = points[first + 1 : last], points[first]
        along = points[last] - start
        length = float(np.hypot(*along))
        offset = inner - start
        # A closed line has no length between its ends: distances are from the point itself.
        far = np.hypot(*offset.T) if length == 0 else np.abs(along[0] * offset[:, 1] - along[1] * offset[:, 0]) / length
        if far.max() > tolerance:
            middle = first + 1 + int(far.argmax())
            keep[middle] = True
            stretches += [(first, middle), (middle, last)]
    return points[keep]
