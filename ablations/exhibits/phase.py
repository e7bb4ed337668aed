"""Masks of objects that slide under the grid pixel by pixel, on their true boxes, under every run's network.

What repeats from cell to cell is the grid's doing: see ablations/evaluation/phase.py for the measure.
"""

import functools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ablations.config.study import Run
from ablations.errors import ConfigError
from ablations.evaluation.coco import encode
from ablations.evaluation.phase import repeated_variances, variation
from ablations.evaluation.true_boxes import mask_ious
from ablations.exhibits import save_picture
from ablations.records.schema import StudyRecord
from ablations.stages.store import stages_of
from ablations.tasks.detection import trained_model
from data.dataset import collate
from data.loaders import eval_batches
from data.scene import bounds
from data.sliding import SHIFTS, SIDE, SlidingScene, SlidingScenes
from data.specs import ShapesSpec
from models.detector import Detector
from models.masks import paste_masks

NUM_SCENES = 10
"""The most scenes; there are fewer where less than IMAGES_PER_SCENE times as many images are evaluated."""

IMAGES_PER_SCENE = 30

STRIP = range(0, SHIFTS, 9)
"""The shifts whose masks are shown: at each of them the object stands elsewhere under cells of either stride."""


def measure_run(study: StudyRecord, run: Run) -> np.ndarray:
    """What `iou_curves` gives for a run's network."""
    return iou_curves(trained_model(run), scenes_of(run), stages_of(run.config).device)


def make(study: StudyRecord, runs: list[Run], folder: Path, measured: list[np.ndarray]) -> dict[str, Any]:
    """metrics: of each run, by arm and seed, its masks' mean "IoU" and their "variation"; hypotheses may name them.

    variances: of each run, by arm and seed, `repeated_variances` of every scene, in squared points
    curves: of each arm's first seed, the IoU in points by scene and shift
    strides: of each arm
    shown: the scene whose variance, averaged over the arms in the first seed, is the median; its picture (in `folder`),
    the object's box (xywh) and each arm's masks at the shifts of STRIP, all in pixels of the whole scene
    """
    scenes, first_seed = scenes_of(runs[0]), min(run.config.seed for run in runs)
    metrics: dict[str, dict[str, Any]] = defaultdict(dict)
    variances: dict[str, dict[str, Any]] = defaultdict(dict)
    curves: dict[str, np.ndarray] = {}
    for run, ious in zip(runs, measured, strict=True):
        seed, scene_variances = str(run.config.seed), repeated_variances(ious)
        metrics[run.arm][seed] = {"IoU": float(ious.mean()), "variation": float(variation(scene_variances))}
        variances[run.arm][seed] = [round(value, 4) for value in scene_variances.tolist()]
        if run.config.seed == first_seed:
            curves[run.arm] = ious
    number = median_scene(curves)
    scene = scenes.scenes[number]
    save_picture(Image.fromarray(scene.pixels), folder, "scene")
    first_runs = [run for run in runs if run.config.seed == first_seed]
    x1, y1, x2, y2 = bounds(scene.mask)
    return {
        "num_scenes": len(scenes.scenes),
        "side": SIDE,
        "metrics": dict(metrics),
        "variances": dict(variances),
        "curves": {arm: ious.round(2).tolist() for arm, ious in curves.items()},
        "strides": {run.arm: run.config.stride for run in first_runs},
        "shown": {
            "seed": first_seed,
            "scene": number,
            "shifts": list(STRIP),
            "box": [x1, y1, x2 - x1, y2 - y1],
            "masks": {run.arm: strip(trained_model(run), scene, stages_of(run.config).device) for run in first_runs},
        },
    }


def scenes_of(run: Run) -> SlidingScenes:
    """The scenes that all runs of a study are measured on."""
    spec = run.config.data
    if not isinstance(spec, ShapesSpec):
        raise ConfigError(f"exhibits: sliding scenes are drawn: expected data=shapes, got data={spec.kind}")
    return _draw(spec, max(2, min(NUM_SCENES, spec.num_val // IMAGES_PER_SCENE)))


@functools.lru_cache(maxsize=1)
def _draw(spec: ShapesSpec, num_scenes: int) -> SlidingScenes:
    """A worker measures several runs, one after another."""
    return SlidingScenes(spec, num_scenes)


def iou_curves(model: Detector, scenes: SlidingScenes, device: torch.device) -> np.ndarray:
    """[scenes, SHIFTS]: the IoU, in points, of the object's mask on its true box."""
    ious = [mask_ious(model, batch.to(device))[1] for batch in eval_batches(scenes, SHIFTS)]
    return 100 * torch.stack(ious).double().numpy()


def median_scene(curves: dict[str, np.ndarray]) -> int:
    """The scene whose variance, averaged over arms, is the median: chosen by a rule, not by eye."""
    mean = np.mean([repeated_variances(ious) for ious in curves.values()], axis=0)
    return int(np.argsort(mean, kind="stable")[(len(mean) - 1) // 2])


def strip(model: Detector, scene: SlidingScene, device: torch.device) -> list[dict[str, Any]]:
    """The object's masks at the shifts of STRIP, moved back to where the object is in the whole scene, as RLE."""
    batch = collate([scene.sample(shift, 1 + shift) for shift in STRIP]).to(device)
    probabilities = model.masks_of(batch.images, batch.boxes, batch.labels)
    pasted = paste_masks(probabilities[:, 0], batch.boxes[:, 0], *batch.images.shape[-2:])
    masks = torch.zeros(len(STRIP), *scene.mask.shape, dtype=torch.bool)
    for mask, shift, window_mask in zip(masks, STRIP, pasted.cpu(), strict=True):
        mask[:, scene.window(shift)] = window_mask
    return encode(masks)
