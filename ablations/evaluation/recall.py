"""Recall of proposals: the share of objects that they cover.

It is COCO's, with classes ignored: of the best N proposals of an image, each can cover one object only.
"""

from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from ablations.evaluation.cocoapi import index, quietly, with_results

NUMBERS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
"""Numbers of proposals per image that recall is measured with, where there are as many, and it is with all of them."""


def recall(truth: dict[str, Any], results: list[dict[str, Any]], most: int) -> dict[str, float | None]:
    """Recall in points: "R50@10" at an IoU of 0.5 with the best 10 of an image, to "R95@..."; "AR@10" their average.

    truth: a COCO JSON dictionary; most: how many proposals an image has at most.
    """
    numbers = [*(number for number in NUMBERS if number < most), most]
    coco = index(truth)
    with quietly():
        evaluation = COCOeval(coco, with_results(coco, results), "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = numbers
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    table = evaluation.eval["recall"][:, 0, 0, :]  # [IoU thresholds, numbers]; -1 where there is no object
    metrics: dict[str, float | None] = {}
    for column, number in enumerate(numbers):
        metrics[f"AR@{number}"] = _points(table[:, column].mean())
        for row, threshold in enumerate(evaluation.params.iouThrs):
            metrics[f"R{100 * threshold:.0f}@{number}"] = _points(table[row, column])
    return metrics


def _points(share: np.floating) -> float | None:
    return None if share < 0 else 100 * float(share)
