"""Recall of proposals, on boxes that can be counted by hand."""

import pytest

from ablations.evaluation.recall import recall

TRUTH = {
    "images": [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 100, "height": 100}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [50, 50, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
}


def result(image: int, score: float, *box: float) -> dict:
    return {"image_id": image, "category_id": 1, "score": score, "bbox": list(box)}


def test_recall_counts_objects_that_the_best_proposals_cover():
    proposals = [
        result(1, 0.9, 0, 0, 10, 10),  # the first object exactly
        result(1, 0.8, 0, 0, 10, 10),  # again: one object is covered once
        result(1, 0.7, 50, 50, 10, 7),  # the second, of another class, at an IoU of 0.7
        result(2, 0.1, 0, 0, 20, 12),  # the third at 0.6
    ]
    metrics = recall(TRUTH, proposals, most=5)
    percent = pytest.approx
    assert metrics["R50@1"] == percent(200 / 3) and metrics["R50@3"] == percent(100) == metrics["R50@5"]
    assert metrics["R65@3"] == percent(200 / 3) and metrics["R75@3"] == percent(100 / 3) == metrics["R95@5"]
    thresholds = [metrics[f"R{threshold}@3"] for threshold in range(50, 100, 5)]
    assert metrics["AR@3"] == percent(sum(thresholds) / 10)
    assert "R50@10" not in metrics


def test_without_proposals_or_objects():
    assert set(recall(TRUTH, [], most=3).values()) == {0.0}
    assert set(recall(TRUTH | {"annotations": []}, [result(1, 0.5, 0, 0, 5, 5)], most=3).values()) == {None}
