"""What overlap does to masks under each arm: where false edges lie, what mask voting does, and pairs by a rule."""

import dataclasses
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ablations.config.study import Run
from ablations.evaluation.overlap import (
    BINS,
    LEAST_PART,
    MUCH,
    PARTS,
    Found,
    Scene,
    found_objects,
    overlap_metrics,
    scenes,
    value_of,
)
from ablations.records.schema import StudyRecord
from ablations.stages.store import stages_of
from ablations.tasks.detection import detect, trained_model
from models.fcis import FCIS

PLACES = 24
"""Equal stretches of a part, from midway before a border to midway behind it, in which false edges are counted."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A scene without its masks. sides [G]: of the boxes, as the square root of the area; the rest as in Scene."""

    image_id: int
    ids: list[int]
    sides: np.ndarray
    levels: np.ndarray
    shares: np.ndarray

    def in_bin(self, first: int, last: int) -> list[int]:
        """The ids of the objects of these levels."""
        chosen = (self.levels >= first) & (self.levels <= last)
        return [number for number, holds in zip(self.ids, chosen.tolist(), strict=True) if holds]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two objects of an image, of which the first overlaps much, with the other above all.

    share: of the first object's box on the second; overlaps: arm -> IoU of the predicted masks with the true ones.
    """

    image_id: int
    objects: tuple[int, int]
    share: float
    overlaps: dict[str, tuple[float, float]]


def make(study: StudyRecord, runs: list[Run], folder: Path) -> dict[str, Any]:
    """How many objects each bin holds, what each run found of them, its false edges, and pairs to look at.

    Runs of FCIS are measured once more without mask voting, which may hide what its score maps do.

    The pairs are of the first seed: for each arm the one with the worst masks and the one with the median masks.
    """
    val = stages_of(runs[0].config).dataset("val")
    layouts, shown = list(map(layout, scenes(val.coco))), min(run.config.seed for run in runs)
    measured: dict[str, dict[str, Any]] = defaultdict(dict)
    unvoted: dict[str, dict[str, Any]] = defaultdict(dict)
    of_shown: dict[str, dict[int, Found]] = {}
    for run in runs:
        results = json.loads((run.folder / "detections.json").read_text())
        found = list(found_objects(val.coco, results))
        measured[run.arm][str(run.config.seed)] = _measured(found) | {"found": _found(layouts, found)}
        if run.config.system.kind == "fcis":
            results = without_voting(run)
            alone = _measured(list(found_objects(val.coco, results)))
            unvoted[run.arm][str(run.config.seed)] = alone | {"metrics": overlap_metrics(val.coco, results)}
        if run.config.seed == shown:
            of_shown[run.arm] = {item.object_id: item for item in found}
    candidates = pairs(layouts, of_shown)
    chosen = {arm: choose(candidates, arm) for arm in of_shown} if candidates else {}
    ids = sorted(image["id"] for image in val.coco["images"])
    for pair in (pair for of_arm in chosen.values() for pair in of_arm.values()):
        val[ids.index(pair.image_id)].picture().save(folder / f"{pair.image_id}.png")
    by_id = {item["id"]: item for item in val.coco["annotations"]}
    return {
        "much": MUCH,
        "parts": PARTS,
        "least_part": LEAST_PART,
        "num_images": len(layouts),
        "num_apart": sum(not one.levels.any() for one in layouts),
        "bins": {name: _described(layouts, *levels) for name, levels in BINS.items()},
        "runs": dict(measured),
        "unvoted": dict(unvoted),
        "seed": shown,
        "num_pairs": len(candidates),
        "pairs": [
            {
                "arm": arm,
                "rank": rank,
                **dataclasses.asdict(pair),
                "truth": [by_id[number]["segmentation"] for number in pair.objects],
                "masks": {
                    name: [found[number].result["segmentation"] for number in pair.objects]
                    for name, found in of_shown.items()
                },
            }
            for arm, of_arm in chosen.items()
            for rank, pair in of_arm.items()
        ],
    }


def without_voting(run: Run) -> list[dict[str, Any]]:
    """What a run of FCIS detects when a detection's mask is its own RoI's and no other RoI has a vote."""
    model = trained_model(run)
    assert isinstance(model, FCIS)
    model.fcis = dataclasses.replace(model.fcis, vote_iou=1.0)
    return detect(model, stages_of(run.config))


def _measured(found: list[Found]) -> dict[str, Any]:
    """Of one run: objects that leakage and seams are means over, the length of all edges, and of false ones by place.

    places: PLACES lengths, by the distance from the nearest part border, -1/2 to 1/2.
    """
    edges = [item.false_edges for item in found if item.false_edges is not None]
    places = np.concatenate([places for places, _ in edges]) if edges else np.zeros(0)
    stretch = np.floor((places + 0.5) % 1 * PLACES).astype(int).clip(max=PLACES - 1)
    return {
        "leakage": sum(value_of(item, "leakage") is not None for item in found),
        "seams": len(edges),
        "edges": sum(length for _, length in edges),
        "places": np.bincount(stretch, minlength=PLACES).tolist(),
    }


def _found(layouts: list[Layout], found: list[Found]) -> dict[str, Any]:
    """Of one run, bin by bin: the objects that it found, and the mean IoU of their masks in points."""
    overlaps = {item.object_id: item.iou for item in found}
    tables = {}
    for name, levels in BINS.items():
        values = [overlaps[number] for one in layouts for number in one.in_bin(*levels) if number in overlaps]
        tables[name] = {"objects": len(values), "iou": 100 * statistics.fmean(values) if values else None}
    return tables


def layout(scene: Scene) -> Layout:
    """What is kept of a scene: the masks of a whole set would fill the memory."""
    sides = np.sqrt((scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(axis=1))
    return Layout(scene.image_id, scene.ids, sides, scene.levels, scene.shares)


def _described(layouts: list[Layout], first: int, last: int) -> dict[str, Any]:
    """How many objects a bin has, and the median side of their boxes in pixels."""
    side_of = {number: side for one in layouts for number, side in zip(one.ids, one.sides.tolist(), strict=True)}
    sides = [side_of[number] for one in layouts for number in one.in_bin(first, last)]
    return {"objects": len(sides), "side": statistics.median(sides) if sides else None}


def pairs(layouts: list[Layout], found: dict[str, dict[int, Found]]) -> list[Pair]:
    """Each object that overlaps much with the one that fills most of its box, where every arm found both."""
    candidates = []
    for one in layouts:
        for place in np.flatnonzero(one.levels == BINS["much"][0]).tolist():
            other = int(one.shares[place].argmax())
            objects = one.ids[place], one.ids[other]
            if all(number in of_arm for of_arm in found.values() for number in objects):
                overlaps = {arm: (of_arm[objects[0]].iou, of_arm[objects[1]].iou) for arm, of_arm in found.items()}
                candidates.append(Pair(one.image_id, objects, float(one.shares[place, other]), overlaps))
    return candidates


def choose(candidates: list[Pair], arm: str) -> dict[str, Pair]:
    """The pairs with the worst and the median masks of an arm, by the mean IoU of the two masks."""
    ordered = sorted(candidates, key=lambda pair: (sum(pair.overlaps[arm]), pair.image_id, pair.objects))
    return {"worst": ordered[0], "median": ordered[(len(ordered) - 1) // 2]}
