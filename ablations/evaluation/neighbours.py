"""What a neighbour takes from an object's mask, measured on the pictures of data/neighbours.py.

An object counts as detected by the rule of `overlap.matches`. A picture with a neighbour of the object's class and the
one with a neighbour of another class are compared only where the object is detected in both and alone, so that a
difference between them is due to the class.
"""

import statistics
from dataclasses import dataclass
from typing import Any

from ablations.evaluation.overlap import MatchedObject, matched_objects
from data.neighbours import CONDITIONS, DEGREES, Condition, image_id

KINDS = ("same", "other")
LAYOUTS = [(degree, in_front) for degree in DEGREES for in_front in (False, True)]

Detected = dict[tuple[int, Condition], MatchedObject]
"""The object's match in each picture, by scene and condition, where it is detected."""


@dataclass(frozen=True)
class Effect:
    """What a neighbour did in one picture. iou_loss: IoU alone - IoU here; leakage: see overlap.MatchedObject."""

    scene: int
    condition: Condition
    iou_loss: float
    leakage: float


def neighbour_metrics(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means in points: "detected_alone", "iou_alone", and of each kind of neighbour, "same" and "other" (class),
    "detected_", "iou_loss_" and "leakage_"; None where no picture defines one.

    truth is the COCO dictionary of a NeighbourScenes, results are COCO results with masks.
    """
    detected = detected_objects(truth, results)
    num_scenes = len(truth["images"]) // len(CONDITIONS)
    alone = [item.iou for (_, condition), item in detected.items() if condition.neighbour == "none"]
    metrics = {"detected_alone": 100 * len(alone) / num_scenes, "iou_alone": _mean(alone)}
    effects = effects_of(detected)
    for kind in KINDS:
        count = sum(condition.neighbour == kind for _, condition in detected)
        kind_effects = [effect for effect in effects if effect.condition.neighbour == kind]
        metrics |= {
            f"detected_{kind}": 100 * count / (num_scenes * len(LAYOUTS)),
            f"iou_loss_{kind}": _mean([effect.iou_loss for effect in kind_effects]),
            f"leakage_{kind}": _mean([effect.leakage for effect in kind_effects]),
        }
    return metrics


def detected_objects(truth: dict[str, Any], results: list[dict[str, Any]]) -> Detected:
    """In all pictures of a NeighbourScenes; arguments as in `neighbour_metrics`."""
    condition_of = {
        image_id(scene, condition): (scene, condition)
        for scene in range(len(truth["images"]) // len(CONDITIONS))
        for condition in CONDITIONS
    }
    first: dict[int, int] = {}
    for annotation in truth["annotations"]:
        first.setdefault(annotation["image_id"], annotation["id"])
    return {
        condition_of[item.image_id]: item
        for item in matched_objects(truth, results)
        if item.object_id == first[item.image_id]
    }


def effects_of(detected: Detected) -> list[Effect]:
    """The effects in all pictures that are compared."""
    effects = []
    for scene in sorted({scene for scene, _ in detected}):
        alone = detected.get((scene, CONDITIONS[0]))
        for layout in LAYOUTS:
            conditions = [Condition(kind, *layout) for kind in KINDS]
            if alone is None or any((scene, condition) not in detected for condition in conditions):
                continue
            for condition in conditions:
                item = detected[scene, condition]
                effects.append(Effect(scene, condition, alone.iou - item.iou, item.leakage or 0.0))
    return effects


def _mean(values: list[float]) -> float | None:
    return 100 * statistics.fmean(values) if values else None
