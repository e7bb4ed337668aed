"""What a neighbour takes from an object's mask: every run's network on pictures that differ in the neighbour alone."""

import dataclasses
import functools
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ablations.config.study import Run
from ablations.errors import ConfigError
from ablations.evaluation.neighbours import (
    KINDS,
    LAYOUTS,
    Detected,
    Effect,
    detected_objects,
    effects_of,
    neighbour_metrics,
)
from ablations.exhibits import is_first_seed, save_picture
from ablations.records.schema import StudyRecord
from ablations.stages.proposals import proposal_source, propose_batch, trained_proposal_network
from ablations.stages.store import Stages, stages_of
from ablations.tasks.detection import results_of, trained_model
from data.dataset import Batch, InstanceSet
from data.loaders import eval_batches
from data.neighbours import CONDITIONS, DEGREES, Condition, NeighbourScenes, image_id
from data.specs import ShapesSpec
from models.structures import Proposals

NUM_SCENES = 60

SHOWN = [CONDITIONS[0]] + [Condition(kind, DEGREES[-1], in_front) for in_front in (False, True) for kind in KINDS]
"""The conditions in which a scene is drawn."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """metrics: see `neighbour_metrics`; places: see `by_layout`; detected: of a run of the first seed."""

    metrics: dict[str, float | None]
    places: dict[str, list[dict[str, Any]]]
    detected: Detected | None


def measure_run(study: StudyRecord, run: Run) -> Measured:
    """What neighbours do to the masks of one run."""
    scenes = scenes_of(run)
    results = detect_on(scenes, run)
    detected = detected_objects(scenes.coco, results)
    shown = is_first_seed(run)
    return Measured(
        neighbour_metrics(scenes.coco, results), by_layout(effects_of(detected)), detected if shown else None
    )


def make(study: StudyRecord, runs: list[Run], folder: Path, measured: list[Measured]) -> dict[str, Any]:
    """metrics: of each run, by arm and seed, what `neighbour_metrics` gives; hypotheses may name them.

    places: of each run, for each kind of neighbour and each of LAYOUTS, the mean loss of IoU and leakage in points
    shown: of the first seed, the scene of which same-class neighbours take the median amount of IoU over all arms, its
    pictures (in `folder`) and each arm's masks of the object
    """
    scenes = scenes_of(runs[0])
    metrics: dict[str, dict[str, Any]] = defaultdict(dict)
    places: dict[str, dict[str, Any]] = defaultdict(dict)
    shown: dict[str, Detected] = {}
    for run, values in zip(runs, measured, strict=True):
        metrics[run.arm][str(run.config.seed)] = values.metrics
        places[run.arm][str(run.config.seed)] = values.places
        if values.detected is not None:
            shown[run.arm] = values.detected
    return {
        "num_scenes": len(scenes) // len(CONDITIONS),
        "metrics": dict(metrics),
        "places": dict(places),
        "shown": _shown(scenes, shown, folder) | {"seed": min(run.config.seed for run in runs)},
    }


def scenes_of(run: Run) -> NeighbourScenes:
    """The scenes that all runs of a study are measured on."""
    spec = run.config.data
    if not isinstance(spec, ShapesSpec):
        raise ConfigError(f"exhibits: neighbours are drawn: expected data=shapes, got data={spec.kind}")
    return _draw(spec, min(NUM_SCENES, spec.num_val))


@functools.lru_cache(maxsize=1)
def _draw(spec: ShapesSpec, num_scenes: int) -> NeighbourScenes:
    """A worker measures several runs, one after another."""
    return NeighbourScenes(spec, num_scenes)


@torch.no_grad()
def detect_on(dataset: InstanceSet, run: Run) -> list[dict[str, Any]]:
    """COCO results of a finished run's network for any images."""
    stages, model = stages_of(run.config), trained_model(run)
    by_batch = results_of(model, eval_batches(dataset), proposer(stages), lambda batch: batch.to(stages.device))
    return list(itertools.chain.from_iterable(by_batch))


def proposer(stages: Stages) -> Callable[[Batch], Proposals | None]:
    """What gives a batch of any images its proposals, as in training; None where the detector proposes by itself."""
    if not stages.shares_proposals:
        return proposal_source(stages, stages.split)
    network = trained_proposal_network(stages.rpn_folder, stages.config, stages.device)
    return lambda batch: propose_batch(network, batch.to(stages.device), stages.config.model)


def by_layout(effects: list[Effect]) -> dict[str, list[dict[str, Any]]]:
    """By kind of neighbour, for each of LAYOUTS: how many pictures, and the mean loss of IoU and leakage in points."""
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for kind, layout in itertools.product(KINDS, LAYOUTS):
        chosen = [effect for effect in effects if effect.condition == Condition(kind, *layout)]
        means = {
            name: 100 * statistics.fmean(getattr(effect, name) for effect in chosen) if chosen else None
            for name in ("iou_loss", "leakage")
        }
        rows[kind].append({"degree": layout[0], "in_front": layout[1], "pictures": len(chosen), **means})
    return rows


def _shown(scenes: NeighbourScenes, by_arm: dict[str, Detected], folder: Path) -> dict[str, Any]:
    """The pictures and masks of a scene in which every arm detects the object in every condition shown, if any."""
    losses = {}
    for scene in range(len(scenes) // len(CONDITIONS)):
        if all((scene, condition) in detected for detected in by_arm.values() for condition in SHOWN):
            losses[scene] = statistics.fmean(
                detected[scene, SHOWN[0]].iou - detected[scene, condition].iou
                for detected in by_arm.values()
                for condition in SHOWN
                if condition.neighbour == "same"
            )
    if not losses:
        return {"pictures": []}
    ranked = sorted(losses, key=lambda scene: (losses[scene], scene))
    scene = ranked[(len(ranked) - 1) // 2]
    pictures = []
    for condition in SHOWN:
        number = image_id(scene, condition)
        save_picture(scenes[number - 1].picture(), folder, number)
        items = {arm: detected[scene, condition] for arm, detected in by_arm.items()}
        pictures.append(
            {
                "image_id": number,
                **dataclasses.asdict(condition),
                "masks": {arm: item.result["segmentation"] for arm, item in items.items()},
                "ious": {arm: item.iou for arm, item in items.items()},
            }
        )
    return {"scene": scene, "num_scenes": len(losses), "pictures": pictures}
