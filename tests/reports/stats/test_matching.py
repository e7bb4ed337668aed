"""Matching for all images and thresholds at once, against pycocotools, which does it one at a time."""

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from ablations.evaluation import overlap
from ablations.evaluation.cocoapi import index, quietly, with_results
from reports.stats.matching import Truth
from tests.reports.conftest import encode

SIDE = 64
COUNTS = {1: 5, 2: 0, 3: 3, 4: 1}  # image -> objects


def rectangle(rng: np.random.Generator) -> list[int]:
    x, y, width, height = rng.integers([0, 0, 8, 8], [40, 40, 24, 24])
    return [int(x), int(y), int(width), int(height)]


def mask_of(box: list[int]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = True
    return mask


@pytest.fixture(scope="module")
def cluttered():
    """Objects of two classes that overlap, some of them crowds, and detections with equal scores and IoUs."""
    rng = np.random.default_rng(3)
    annotations, results = [], []
    for image, count in COUNTS.items():
        for _ in range(count):
            box = rectangle(rng)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, 3)),
                    "iscrowd": int(rng.random() < 0.3),
                    "bbox": box,
                    "segmentation": encode(mask_of(box)),
                    "area": box[2] * box[3],
                }
            )
        for number in range(130 if image == 1 else 20):
            near = [item["bbox"] for item in annotations if item["image_id"] == image] or [rectangle(rng)]
            box = [int(side) for side in np.clip(near[number % len(near)] + rng.integers(-2, 3, 4), 0, None)]
            results.append(
                {
                    "image_id": image,
                    "category_id": 1 if image == 1 else int(rng.integers(1, 3)),
                    "score": round(float(rng.random()), 1),
                    "bbox": box,
                    "segmentation": encode(mask_of(box)),
                }
            )
    images = [{"id": image, "width": SIDE, "height": SIDE} for image in COUNTS]
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.mark.parametrize("kind", ["segm", "bbox", "none", "some", "much"])
def test_every_detection_is_matched_as_pycocotools_matches_it(cluttered, kind):
    truth, results = cluttered
    matched = Truth(truth).match(results, kind)
    for matches, expected in zip(matched, evaluated(truth, results, kind), strict=True):
        assert matches.objects.tolist() == [0 if one is None else int((one["gtIgnore"] == 0).sum()) for one in expected]
        for number, one in enumerate(expected):
            own = matches.image == number
            assert own.sum() == (0 if one is None else len(one["dtScores"]))
            if own.any():
                assert (matches.hit[:, own] == (one["dtMatches"] > 0)).all()
                assert (matches.ignored[:, own] == one["dtIgnore"].astype(bool)).all()
    assert sum(matches.hit.sum() for matches in matched) > 20


def evaluated(truth, results, kind):
    """pycocotools' matches by category and image; for one of BINS with levels of overlap in place of areas."""
    coco = index({**truth, "annotations": [dict(item) for item in truth["annotations"]]})
    coco_results, areas = with_results(coco, results), [0, 1e10]
    if kind in overlap.BINS:
        areas = list(overlap.BINS[kind])
        for scene in overlap.scenes(truth):
            for annotation_id, level in zip(scene.ids, scene.levels.tolist(), strict=True):
                coco.anns[annotation_id]["area"] = level
            detections = coco_results.imgToAnns[scene.image_id]
            for detection, level in zip(detections, overlap.levels_of(detections, scene), strict=True):
                detection["area"] = level
    with quietly():
        evaluation = COCOeval(coco, coco_results, "bbox" if kind == "bbox" else "segm")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [areas], [kind]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
    count = len(evaluation.params.imgIds)
    return [evaluation.evalImgs[start : start + count] for start in range(0, len(evaluation.evalImgs), count)]
