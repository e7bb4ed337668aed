"""From detections to COCO results, and from those to average precision, with pycocotools."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from ablations.evaluation.cocoapi import index, quietly, with_results
from data.dataset import Batch
from models.masks import paste_masks
from models.structures import Detections

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCOeval's summary, in its order: average precision and recall."""


def coco_results(detections: Detections, batch: Batch) -> Iterator[dict[str, Any]]:
    """One COCO result for each detection: box as xywh, mask as compressed RLE, in pixels of the original image.

    Labels are used as COCO category ids: see data/dataset.py.
    """
    scale = (batch.original_sizes / batch.sizes).to(detections.boxes).flip(-1).repeat(1, 2)  # [B, 4]
    for i, (image_id, size) in enumerate(zip(batch.image_ids.tolist(), batch.original_sizes.tolist(), strict=True)):
        kept = detections.valid[i]
        boxes = detections.boxes[i][kept] * scale[i]
        masks: list[Any] = [None] * len(boxes)
        if detections.masks is not None:
            masks = encode(paste_masks(detections.masks[i][kept], boxes, *size))
        elif detections.votes is not None:
            masks = encode(detections.votes.count(i, scale[i], *size)[kept])
            boxes = _around(masks, boxes)
        corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).double()
        scores, labels = detections.scores[i][kept].double(), detections.labels[i][kept]
        for box, score, label, mask in zip(corners.tolist(), scores.tolist(), labels.tolist(), masks, strict=True):
            result = {"image_id": image_id, "category_id": label, "score": round(score, 6)}
            result["bbox"] = [round(value, 3) for value in box]
            if mask is not None:
                result["segmentation"] = mask
            yield result


def encode(masks: Tensor) -> list[dict[str, Any]]:
    """The RLE of each mask [N, H, W], as JSON has it."""
    encoded = rle.encode(np.asfortranarray(masks.permute(1, 2, 0).to(torch.uint8).cpu().numpy()))
    return [{"size": mask["size"], "counts": mask["counts"].decode("ascii")} for mask in encoded]


def _around(masks: list[dict[str, Any]], boxes: Tensor) -> Tensor:
    """The boxes [N, 4] around voted masks; of an empty mask its box in `boxes`."""
    x, y, width, height = torch.as_tensor(rle.toBbox(masks)).to(boxes).reshape(-1, 4).unbind(1)
    tight = torch.stack([x, y, x + width, y + height], dim=1)
    return torch.where((width > 0)[:, None], tight, boxes)


def average_precision(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> dict[str, float | None]:
    """COCO's twelve metrics in points, for kind "segm" or "bbox"; None where the ground truth has no object to count.

    truth is a COCO JSON dictionary. Without detections every metric that is defined is 0.
    """
    coco = index(truth)
    if kind == "segm":  # given a box too, COCO.loadRes would use its area instead of the mask's
        results = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    with quietly():
        evaluation = COCOeval(coco, with_results(coco, results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = zip(SUMMARY, evaluation.stats.tolist(), strict=True)
    return {name: None if value < 0 else 100 * value for name, value in metrics}
