"""Average precision on cases small enough to work out by hand, and results in the image's own pixels."""

import json
import re

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ablations.evaluation.coco import average_precision, coco_results
from data.dataset import Batch, annotation
from models.mask_voting import Votes
from models.structures import Detections


def square(x: int, y: int, side: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def truth(*squares: tuple[int, int, int]) -> dict:
    return {
        "images": [{"id": 1, "height": 100, "width": 100, "file_name": "1.png"}],
        "annotations": [annotation(i, 1, 1, square(*s)) for i, s in enumerate(squares, start=1)],
        "categories": [{"id": 1, "name": "square"}],
    }


def result(x: int, y: int, side: int, score: float) -> dict:
    encoded = rle.encode(np.asfortranarray(square(x, y, side)))
    counts = encoded["counts"].decode()
    return {
        "image_id": 1,
        "category_id": 1,
        "score": score,
        "bbox": [x, y, side, side],
        "segmentation": {"size": [100, 100], "counts": counts},
    }


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_perfect_detections_reach_100(kind):
    objects = [(10, 10, 40), (60, 60, 20)]
    results = [result(*s, score=0.9) for s in objects]
    metrics = average_precision(truth(*objects), results, kind)
    assert metrics["AP"] == metrics["AP50"] == metrics["AP75"] == pytest.approx(100)
    assert metrics["APs"] == metrics["APm"] == pytest.approx(100)
    assert metrics["APl"] is None  # no object is larger than 96 x 96


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_one_object_of_two_gives_the_recall_levels_up_to_a_half(kind):
    """Precision 1 up to recall 0.5: 51 of COCO's 101 recall levels."""
    metrics = average_precision(truth((10, 10, 40), (60, 60, 20)), [result(10, 10, 40, 0.9)], kind)
    assert metrics["AP"] == pytest.approx(100 * 51 / 101)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_iou_decides_at_which_thresholds_a_detection_counts(kind):
    """A 40 x 40 square shifted by 5: IoU = 35 * 40 / (2 * 1600 - 1400) = 0.777, so it counts at 0.5 to 0.75."""
    metrics = average_precision(truth((10, 10, 40)), [result(15, 10, 40, 0.9)], kind)
    assert metrics["AP50"] == metrics["AP75"] == pytest.approx(100)
    assert metrics["AP"] == pytest.approx(100 * 6 / 10)


def test_a_false_positive_with_a_higher_score_halves_precision():
    metrics = average_precision(truth((10, 10, 40)), [result(55, 55, 40, 0.9), result(10, 10, 40, 0.8)], "segm")
    assert metrics["AP"] == pytest.approx(50)


def test_the_size_of_a_mask_is_its_own_area_not_its_boxs():
    """A false diagonal, 50 pixels in a box of 50 x 50, has a higher score than a small and a medium true mask."""
    diagonal = annotation(1, 1, 1, square(50, 50, 50) * np.eye(100, dtype=np.uint8))
    false = result(50, 50, 50, 0.9) | {"segmentation": diagonal["segmentation"]}
    objects, results = [(5, 5, 20), (55, 5, 40)], [false, result(5, 5, 20, 0.8), result(55, 5, 40, 0.7)]
    masks, boxes = (average_precision(truth(*objects), results, kind) for kind in ("segm", "bbox"))
    assert (masks["APs"], masks["APm"]) == pytest.approx((50, 100))
    assert (boxes["APs"], boxes["APm"]) == pytest.approx((100, 50))


def test_without_detections_every_metric_is_0():
    metrics = average_precision(truth((10, 10, 40)), [], "segm")
    assert metrics["AP"] == metrics["AR100"] == 0


def crowded_images() -> tuple[dict, list[dict]]:
    """Three images of many squares of all sizes in two classes, a crowd region, and detections of every quality."""
    rng = np.random.default_rng(0)
    truth = {
        "images": [{"id": i, "height": 200, "width": 200, "file_name": f"{i}.png"} for i in (1, 2, 3)],
        "annotations": [],
        "categories": [{"id": k, "name": str(k)} for k in (1, 2)],
    }
    results = []
    for image in (1, 2, 3):
        for side in (16, 24, 28, 40, 50, 60, 70, 80, 100, 110, 120, 130, 16, 40, 60, 100):
            x, y = (int(value) for value in rng.integers(0, 200 - side, 2))
            label, number = int(rng.integers(1, 3)), len(truth["annotations"]) + 1
            item = annotation(number, image, label, square(x, y, side, 200)) | {"iscrowd": int(number == 5)}
            truth["annotations"].append(item)
            for _ in range(int(rng.integers(0, 3))):  # none, one, or one and a duplicate
                moved = np.clip((x, y) + rng.integers(-side // 8, side // 8 + 1, 2), 0, 200 - side).tolist()
                detection = annotation(1, image, label, square(*moved, side, 200))
                keys = ("image_id", "category_id", "bbox", "segmentation")
                results.append({key: detection[key] for key in keys} | {"score": round(float(rng.random()), 3)})
    return truth, results


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_twelve_metrics_are_what_pycocotools_prints(kind, tmp_path, capsys):
    """It prints each with its IoU, area and number of detections, so that no two can be confused."""
    truth, results = crowded_images()
    (tmp_path / "truth.json").write_text(json.dumps({"info": {}} | truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    coco = COCO(tmp_path / "truth.json")
    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    line = re.compile(r"\((A[PR])\) @\[ IoU=(\S+) *\| area= *(\w+) *\| maxDets= *(\d+) \] = (\S+)")
    lines = [match.groups() for match in map(line.search, capsys.readouterr().out.splitlines()) if match]
    printed = {}
    for what, iou, area, most, value in lines:
        detail = "" if area == "all" else area[0]
        if what == "AR" and area == "all":
            detail = most
        elif iou != "0.50:0.95":
            detail = str(round(100 * float(iou)))
        printed[what + detail] = 100 * float(value)
    assert len(printed) == len(set(printed.values())) == 12, "all twelve must differ in this case"
    assert average_precision(truth, results, kind) == pytest.approx(printed, abs=0.05 + 1e-9)


def one_image():
    """An image of 64 x 128 pixels, half as large in the batch and padded."""
    return Batch(
        images=torch.zeros(1, 3, 64, 64),
        sizes=torch.tensor([[32, 64]]),
        boxes=torch.zeros(1, 1, 4),
        labels=torch.zeros(1, 1, dtype=torch.int64),
        masks=torch.zeros(1, 1, 64, 64, dtype=torch.uint8),
        crowds=torch.zeros(1, 0, 4),
        image_ids=torch.tensor([7]),
        flipped=torch.tensor([False]),
        indices=torch.tensor([0]),
        original_sizes=torch.tensor([[64, 128]]),
    )


def test_results_are_in_the_original_images_pixels():
    detections = Detections(
        boxes=torch.tensor([[[8.0, 4.0, 24.0, 20.0], [0.0, 0.0, 0.0, 0.0]]]),
        scores=torch.tensor([[0.75, 0.0]]),
        labels=torch.tensor([[2, 0]]),
        masks=torch.ones(1, 2, 14, 14),
    )
    (result,) = coco_results(detections, one_image())  # without the padding
    assert (result["image_id"], result["category_id"], result["score"]) == (7, 2, 0.75)
    assert result["bbox"] == [16, 8, 32, 32]
    mask = rle.decode(result["segmentation"])
    assert mask.shape == (64, 128) and mask.sum() == 32 * 32 and mask[8:40, 16:48].all()


def test_a_voted_masks_box_is_the_one_around_it():
    votes = Votes(
        boxes=torch.tensor([[[8.0, 4.0, 24.0, 20.0], [8.0, 4.0, 32.0, 20.0]]]),
        masks=torch.ones(1, 2, 3, 3),
        weights=torch.tensor([[[0.5, 0.5], [0.7, 0.3], [0.0, 0.0]]]),
        mask_threshold=0.4,
        vote_threshold=0.4,
    )
    detections = Detections(
        boxes=torch.tensor([[[8.0, 4.0, 24.0, 20.0]] * 3]),
        scores=torch.tensor([[0.75, 0.5, 0.25]]),
        labels=torch.tensor([[2, 2, 2]]),
        votes=votes,
    )
    both, first, none = coco_results(detections, one_image())
    assert both["bbox"] == [16, 8, 48, 32] and rle.area(both["segmentation"]) == 48 * 32  # beyond the detection's box
    assert first["bbox"] == [16, 8, 32, 32] and rle.area(first["segmentation"]) == 32 * 32
    assert none["bbox"] == [16, 8, 32, 32] and rle.area(none["segmentation"]) == 0
