"""What a neighbour takes from a mask, on results made from the ground truth."""

import numpy as np
import pytest
from pycocotools import mask as rle

from ablations.evaluation.neighbours import LAYOUTS, detected_objects, effects_of, neighbour_metrics
from data.neighbours import CONDITIONS, NeighbourScenes
from data.specs import ShapesSpec

NUM_SCENES = 2


@pytest.fixture(scope="module")
def scenes():
    return NeighbourScenes(ShapesSpec(), NUM_SCENES)


def encoded(mask):
    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def results_of(scenes, mask_of):
    """A detection of each object with its true box. mask_of: masks of a picture -> the object's predicted one."""
    results = []
    for sample, condition in zip(scenes, CONDITIONS * NUM_SCENES, strict=True):
        masks = sample.masks.numpy().astype(bool)
        for number, (x1, y1, x2, y2) in enumerate(sample.boxes.tolist()):
            mask = mask_of(condition, masks) if number == 0 else masks[number]
            result = {
                "image_id": sample.image_id,
                "category_id": int(sample.labels[number]),
                "score": 0.9 - number / 10,
            }
            results.append(result | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": encoded(mask)})
    return results


def test_perfect_masks_lose_and_leak_nothing(scenes):
    metrics = neighbour_metrics(scenes.coco, results_of(scenes, lambda condition, masks: masks[0]))
    assert metrics == {
        "detected_alone": 100,
        "iou_alone": 100,
        "detected_same": 100,
        "iou_loss_same": 0,
        "leakage_same": 0,
        "detected_other": 100,
        "iou_loss_other": 0,
        "leakage_other": 0,
    }


def test_a_mask_that_covers_the_neighbour_leaks_its_share(scenes):
    both = lambda condition, masks: masks.any(0) if condition.neighbour == "same" else masks[0]  # noqa: E731
    metrics = neighbour_metrics(scenes.coco, results_of(scenes, both))
    leaked = [
        sample.masks[1].sum().item() / sample.masks.sum().item()
        for sample, condition in zip(scenes, CONDITIONS * NUM_SCENES, strict=True)
        if condition.neighbour == "same"
    ]
    assert metrics["leakage_same"] == pytest.approx(100 * np.mean(leaked))
    assert metrics["iou_loss_same"] == pytest.approx(100 * np.mean(leaked))  # IoU is the object's share of the mask
    assert metrics["leakage_other"] == metrics["iou_loss_other"] == 0


def test_pictures_count_in_pairs_and_only_where_the_object_is_detected(scenes):
    results = results_of(scenes, lambda condition, masks: masks[0])
    alone, same = 1, 2  # of the first scene
    without = [item for item in results if item["image_id"] != same or item["score"] != 0.9]
    effects = effects_of(detected_objects(scenes.coco, without))
    assert len(effects) == 2 * (NUM_SCENES * len(LAYOUTS) - 1)
    without = [item for item in results if item["image_id"] != alone]
    effects = effects_of(detected_objects(scenes.coco, without))
    assert {effect.scene for effect in effects} == {1}
    metrics = neighbour_metrics(scenes.coco, [])
    assert metrics["detected_same"] == 0 and metrics["iou_loss_same"] is None
