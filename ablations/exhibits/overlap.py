"""How overlap hurts the masks of each arm: where false edges are, what mask voting changes, and pairs to look at."""

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
    MatchedObject,
    Scene,
    matched_objects,
    overlap_metrics,
    scenes,
    value_of,
)
from ablations.exhibits import is_first_seed, save_picture
from ablations.records.schema import StudyRecord
from ablations.records.storage import result_file
from ablations.stages.store import stages_of
from ablations.tasks.detection import detect, trained_model
from models.fcis import FCIS

NUM_POSITIONS = 24
"""Equal intervals of a part, from midway before a border to midway after it, in which false edges are counted."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A scene without its masks. sides [G]: square roots of the boxes' areas; the rest as in Scene."""

    image_id: int
    ids: list[int]
    sides: np.ndarray
    levels: np.ndarray
    shares: np.ndarray

    def in_bin(self, first: int, last: int) -> list[int]:
        """The ids of the objects of these levels."""
        inside = (self.levels >= first) & (self.levels <= last)
        return [object_id for object_id, chosen in zip(self.ids, inside.tolist(), strict=True) if chosen]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two objects of an image. The first overlaps much; the second is the one that it overlaps most.

    share: of the first object's box on the second; ious: arm -> IoU of each predicted mask with the true one.
    """

    image_id: int
    objects: tuple[int, int]
    share: float
    ious: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Measured:
    """edges: what `_edges` gives, and "found", what `_by_bin` gives; unvoted: the same of a run of FCIS without mask
    voting, with its metrics; matched: of a run of the first seed, by object id."""

    edges: dict[str, Any]
    unvoted: dict[str, Any] | None
    matched: dict[int, MatchedObject] | None


def measure_run(study: StudyRecord, run: Run) -> Measured:
    """What one run makes of the evaluated images' objects."""
    truth = stages_of(run.config).evaluated.coco
    results = json.loads(result_file(run.folder, "detections.json").read_text())
    matched, unvoted = list(matched_objects(truth, results)), None
    if run.config.system.kind == "fcis":
        results = without_voting(run)
        unvoted = _edges(list(matched_objects(truth, results))) | {"metrics": overlap_metrics(truth, results)}
    return Measured(
        _edges(matched) | {"found": _by_bin(list(map(layout_of, scenes(truth))), matched)},
        unvoted,
        {item.object_id: item for item in matched} if is_first_seed(run) else None,
    )


def make(study: StudyRecord, runs: list[Run], folder: Path, measured: list[Measured]) -> dict[str, Any]:
    """How many objects each bin has, how many each run detects, its false edges, and pairs to look at.

    Runs of FCIS are measured a second time without mask voting, which may hide what its score maps do.

    The pairs are of the first seed: for each arm the pair with the worst masks and the pair with the median masks.
    """
    evaluated = stages_of(runs[0].config).evaluated
    layouts = list(map(layout_of, scenes(evaluated.coco)))
    edges: dict[str, dict[str, Any]] = defaultdict(dict)
    unvoted: dict[str, dict[str, Any]] = defaultdict(dict)
    matched_by_arm: dict[str, dict[int, MatchedObject]] = {}  # of the seed that is shown, by id
    for run, values in zip(runs, measured, strict=True):
        edges[run.arm][str(run.config.seed)] = values.edges
        if values.unvoted is not None:
            unvoted[run.arm][str(run.config.seed)] = values.unvoted
        if values.matched is not None:
            matched_by_arm[run.arm] = values.matched
    candidates = pairs(layouts, matched_by_arm)
    chosen = {arm: choose_pairs(candidates, arm) for arm in matched_by_arm} if candidates else {}
    ids = sorted(image["id"] for image in evaluated.coco["images"])
    for pair in (pair for ranked in chosen.values() for pair in ranked.values()):
        save_picture(evaluated[ids.index(pair.image_id)].picture(), folder, pair.image_id)
    by_id = {item["id"]: item for item in evaluated.coco["annotations"]}
    return {
        "much": MUCH,
        "parts": PARTS,
        "least_part": LEAST_PART,
        "num_images": len(layouts),
        "num_apart": sum(not layout.levels.any() for layout in layouts),
        "bins": {name: _describe(layouts, *levels) for name, levels in BINS.items()},
        "runs": dict(edges),
        "unvoted": dict(unvoted),
        "seed": min(run.config.seed for run in runs),
        "num_pairs": len(candidates),
        "pairs": [
            {
                "arm": arm,
                "rank": rank,
                "image_id": pair.image_id,
                "objects": pair.objects,
                "share": pair.share,
                "overlaps": pair.ious,  # the key of published records
                "truth": [by_id[object_id]["segmentation"] for object_id in pair.objects],
                "masks": {
                    name: [matched[object_id].result["segmentation"] for object_id in pair.objects]
                    for name, matched in matched_by_arm.items()
                },
            }
            for arm, ranked in chosen.items()
            for rank, pair in ranked.items()
        ],
    }


def without_voting(run: Run) -> list[dict[str, Any]]:
    """What a run of FCIS detects when a detection's mask comes from its own RoI alone, without votes of others."""
    model = trained_model(run)
    assert isinstance(model, FCIS)
    model.fcis = dataclasses.replace(model.fcis, vote_iou=1.0)
    # Under torchrun the other ranks build their network from the settings.
    return detect(model, stages_of(dataclasses.replace(run.config, system=model.fcis)))


def _edges(matched: list[MatchedObject]) -> dict[str, Any]:
    """The numbers of a run's objects that leakage and seams are means over, the length of all edges of its masks, and
    "places": the lengths of false edges in NUM_POSITIONS intervals of the distance from the nearest part border, -1/2
    to 1/2 parts."""
    edges = [item.false_edges for item in matched if item.false_edges is not None]
    positions = np.concatenate([positions for positions, _ in edges]) if edges else np.zeros(0)
    interval = np.floor((positions + 0.5) % 1 * NUM_POSITIONS).astype(int).clip(max=NUM_POSITIONS - 1)
    return {
        "leakage": sum(value_of(item, "leakage") is not None for item in matched),
        "seams": len(edges),
        "edges": sum(length for _, length in edges),
        "places": np.bincount(interval, minlength=NUM_POSITIONS).tolist(),
    }


def _by_bin(layouts: list[Layout], matched: list[MatchedObject]) -> dict[str, Any]:
    """The number of objects that a run detects, bin by bin, and the mean IoU of their masks in points."""
    ious = {item.object_id: item.iou for item in matched}
    bins = {}
    for name, levels in BINS.items():
        ids = [object_id for layout in layouts for object_id in layout.in_bin(*levels)]
        values = [ious[object_id] for object_id in ids if object_id in ious]
        bins[name] = {"objects": len(values), "iou": 100 * statistics.fmean(values) if values else None}
    return bins


def layout_of(scene: Scene) -> Layout:
    """A scene without its masks: those of a whole set would fill the memory."""
    sides = np.sqrt((scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(axis=1))
    return Layout(scene.image_id, scene.ids, sides, scene.levels, scene.shares)


def _describe(layouts: list[Layout], first: int, last: int) -> dict[str, Any]:
    """How many objects a bin has, and the median side of their boxes in pixels."""
    sides: list[float] = []
    for layout in layouts:
        inside = (layout.levels >= first) & (layout.levels <= last)
        sides += layout.sides[inside].tolist()
    return {"objects": len(sides), "side": statistics.median(sides) if sides else None}


def pairs(layouts: list[Layout], matched_by_arm: dict[str, dict[int, MatchedObject]]) -> list[Pair]:
    """Each object that overlaps much and the one that covers most of its box, where every arm detects both."""
    candidates = []
    for layout in layouts:
        for g in np.flatnonzero(layout.levels == BINS["much"][0]).tolist():
            other = int(layout.shares[g].argmax())
            objects = layout.ids[g], layout.ids[other]
            if all(object_id in matched for matched in matched_by_arm.values() for object_id in objects):
                ious = {
                    arm: (matched[objects[0]].iou, matched[objects[1]].iou) for arm, matched in matched_by_arm.items()
                }
                candidates.append(Pair(layout.image_id, objects, float(layout.shares[g, other]), ious))
    return candidates


def choose_pairs(candidates: list[Pair], arm: str) -> dict[str, Pair]:
    """The pairs with the worst and the median masks of an arm, by the mean IoU of the two masks."""
    ordered = sorted(candidates, key=lambda pair: (sum(pair.ious[arm]), pair.image_id, pair.objects))
    return {"worst": ordered[0], "median": ordered[(len(ordered) - 1) // 2]}
