"""The project's own measures of overlap, on masks small enough to work out by hand."""

import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as rle

from ablations.evaluation.coco import average_precision
from ablations.evaluation.masks import Mask
from ablations.evaluation.overlap import (
    MUCH,
    excess,
    false_edges,
    matched_objects,
    matches,
    overlap_metrics,
    scenes,
)
from data.dataset import annotation

SIDE = 100
DISC, SQUARE = 1, 2


def block(x: int, y: int, width: int, height: int, side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def truth(*images: list[np.ndarray]) -> dict:
    """COCO JSON of images with these masks, all of one class."""
    placed = [(image, mask) for image, masks in enumerate(images, start=1) for mask in masks]
    return {
        "images": [{"id": image, "height": SIDE, "width": SIDE} for image in range(1, len(images) + 1)],
        "annotations": [annotation(i, image, SQUARE, mask) for i, (image, mask) in enumerate(placed, start=1)],
        "categories": [{"id": DISC, "name": "disc"}, {"id": SQUARE, "name": "square"}],
    }


def result(image: int, mask: np.ndarray, score: float = 0.9, label: int = SQUARE, box: tuple | None = None) -> dict:
    encoded = rle.encode(np.asfortranarray(mask))
    return {
        "image_id": image,
        "category_id": label,
        "score": score,
        "bbox": list(rle.toBbox(encoded) if box is None else box),
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
    }


# An L around a block: the block covers a quarter of the L's box, the L nothing of the block's.
CORNER = np.maximum(block(10, 10, 40, 20), block(10, 10, 20, 40))
FILLING = block(30, 30, 20, 20)


def test_the_degree_is_the_share_of_the_box_on_other_objects():
    (scene,) = scenes(truth([CORNER, FILLING, block(80, 80, 10, 10)]))
    assert scene.degrees.tolist() == [400 / 1600, 0, 0]
    assert scene.levels.tolist() == [3, 1, 1]  # much; the others overlap nothing, but in an image with overlap
    assert scene.shares[0].tolist() == [0, 0.25, 0]


def test_levels_distinguish_images_without_overlap_and_some_overlap_from_much():
    apart, touching = scenes(truth([block(0, 0, 10, 10), block(10, 0, 10, 10)], [CORNER, block(48, 30, 10, 20)]))
    assert apart.levels.tolist() == [0, 0]  # boxes that only touch do not overlap
    assert touching.degrees.tolist() == [40 / 1600, 0] and MUCH > 40 / 1600
    assert touching.levels.tolist() == [2, 1]


def test_the_ap_of_a_bin_is_that_of_its_own_objects():
    """First the overlapped object is missed and the isolated one detected, then the reverse."""
    ground = truth([CORNER, FILLING], [block(0, 0, 30, 30)])
    metrics = overlap_metrics(ground, [result(1, FILLING), result(2, block(0, 0, 30, 30))])
    assert [metrics["AP_none"], metrics["AP_apart"]] == pytest.approx([100, 100])
    assert metrics["AP_much"] == 0 and metrics["AP_some"] is None
    metrics = overlap_metrics(ground, [result(1, CORNER)])
    assert metrics["AP_none"] == metrics["AP_apart"] == 0 and metrics["AP_much"] == pytest.approx(100)


def test_a_false_detection_counts_in_the_bin_of_the_object_that_it_covers():
    """A detection of the L with a higher score that covers the block too is false in the bin "much" only."""
    ground = truth([CORNER, FILLING], [block(0, 0, 30, 30)])
    right = [result(1, CORNER), result(1, FILLING), result(2, block(0, 0, 30, 30))]
    metrics = overlap_metrics(ground, [*right, result(1, block(10, 10, 40, 40), score=0.95)])
    assert metrics["AP50_much"] == pytest.approx(100)  # 1200 of 1600 pixels: it matches the L before the right one does
    assert metrics["AP_much"] < 90 and [metrics["AP_none"], metrics["AP_apart"]] == pytest.approx([100, 100])
    metrics = overlap_metrics(ground, [*right, result(2, block(80, 80, 10, 10), score=0.95)])  # on no object
    assert metrics["AP_much"] == pytest.approx(100)
    assert metrics["AP_apart"] == pytest.approx(50) and metrics["AP_none"] == pytest.approx(100 * 2 / 3)


def test_without_any_overlap_the_ap_is_cocos():
    ground = truth([block(0, 0, 30, 30), block(50, 50, 20, 40)], [block(5, 5, 60, 60)])
    results = [result(1, block(2, 0, 30, 30)), result(1, block(50, 52, 20, 40), 0.5), result(2, block(40, 40, 50, 50))]
    metrics, plain = overlap_metrics(ground, results), average_precision(ground, results, "segm")
    assert 0 < plain["AP"] == metrics["AP_none"] == metrics["AP_apart"] and plain["AP50"] == metrics["AP50_none"]
    assert metrics["AP_much"] is metrics["leakage"] is None


def test_leakage_is_the_share_of_the_mask_on_the_neighbour():
    ground = truth([CORNER, FILLING])
    (matched,) = matched_objects(ground, [result(1, block(10, 10, 40, 40))])  # the whole box: 1600 pixels, 400 leak
    assert (matched.object_id, matched.degree, matched.leakage, matched.iou) == (1, 0.25, 0.25, 0.75)
    metrics = overlap_metrics(ground, [result(1, block(10, 10, 40, 40)), result(1, FILLING)])
    assert metrics["leakage"] == pytest.approx(25)  # the block does not overlap, so it does not count
    assert overlap_metrics(ground, [result(1, CORNER), result(1, FILLING)])["leakage"] == 0


def test_an_object_keeps_its_detection_however_bad_the_mask():
    """Matching is by box, class and score, each detection once."""
    (scene,) = scenes(truth([CORNER, FILLING]))
    bad = result(1, block(90, 90, 5, 5), 0.9, box=(10, 10, 40, 40))
    taken = matches(scene, [result(1, CORNER, 0.5), bad, result(1, CORNER, 0.99, label=DISC), result(1, FILLING, 0.3)])
    assert {g: item["score"] for g, item in taken.items()} == {0: 0.9, 1: 0.3}
    empty = list(matched_objects(truth([CORNER, FILLING]), [result(1, block(0, 0, 0, 0), box=(10, 10, 40, 40))]))
    assert empty[0].leakage is None and empty[0].seams is None


def seams(mask: np.ndarray, true: np.ndarray, box: np.ndarray) -> float | None:
    """The measure of a predicted and a true mask, bool [H, W]; None where there are no false edges."""
    predicted, expected = (
        Mask.decoded(rle.encode(np.asfortranarray(pixels.astype(np.uint8)))) for pixels in (mask, true)
    )
    edges = false_edges(predicted, expected, box)
    return None if edges is None else excess(*edges)


def chequered(cells: int, side: int) -> np.ndarray:
    """A chequerboard with every edge of a grid of cells x cells over [side, side] pixels."""
    cell = np.arange(side) * cells // side
    return (cell[:, None] + cell[None]) % 2 == 1


@pytest.mark.parametrize(("cells", "expected"), [(7, 1), (14, 0), (21, 0), (28, 0)])
def test_only_edges_on_part_borders_are_seams(cells, expected):
    """Edges on the cell borders of an output grid add up to 0 unless its cells are the parts."""
    board = chequered(cells, 168)
    assert seams(board, np.ones_like(board), np.array([0, 0, 168, 168])) == pytest.approx(expected, abs=1e-9)


def test_a_single_seam_by_hand():
    """A 70 x 70 box, parts of 10: one false edge on the third border, one true edge, one false edge midway."""
    box = np.array([10, 20, 80, 90])
    whole = block(0, 0, 100, 100).astype(bool)
    on_border, midway = block(0, 0, 40, 100).astype(bool), block(0, 0, 45, 100).astype(bool)
    assert seams(on_border, whole, box) == pytest.approx(1)
    assert seams(midway, whole, box) == pytest.approx(-1)
    assert seams(on_border, on_border, box) == 0  # the object has an edge there too
    assert seams(on_border, block(0, 0, 46, 100).astype(bool), box) == pytest.approx(1)  # it has one, but 6 pixels away
    assert seams(on_border, midway, box) == 0  # within half a part
    assert seams(on_border | block(0, 60, 100, 40).astype(bool), whole, box) == pytest.approx((40 + 40) / (40 + 40))
    both = block(0, 0, 100, 100).astype(bool)
    both[:, 40:45] = False  # an edge on the border and one midway cancel
    assert seams(both, whole, box) == pytest.approx(0, abs=1e-9)


def test_smooth_masks_have_no_seams_wherever_they_are():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:200, :200] + 0.5
    scores = []
    for _ in range(200):
        (x, y), (a, b), turn = rng.uniform(90, 110, 2), rng.uniform(25, 60, 2), rng.uniform(0, np.pi)
        u, v = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn), (rows - y) * np.cos(turn)
        shape = (u / a) ** 2 + ((v - (columns - x) * np.sin(turn)) / b) ** 2 <= 1
        scores.append(seams(shape, np.ones_like(shape), np.array([30, 30, 170, 170]) + rng.uniform(-10, 10, 4)))
    assert abs(np.mean(scores)) < 0.02 and np.std(scores) > 0.02


def test_small_parts_and_empty_masks_have_no_seams_and_masks_without_edges_score_0():
    whole = np.ones((100, 100), bool)
    assert seams(chequered(7, 100), whole, np.array([0, 0, 27.9, 100])) is None
    assert seams(whole, whole, np.array([0, 0, 100, 100])) == 0
    assert seams(np.zeros((100, 100), bool), whole, np.array([0, 0, 100, 100])) is None


def test_no_detections_and_detections_without_masks():
    ground = truth([CORNER, FILLING])
    boxes_only = [{"image_id": 1, "category_id": SQUARE, "score": 0.9, "bbox": [10, 10, 40, 40]}]
    for results in ([], boxes_only):
        metrics = overlap_metrics(ground, results)
        assert metrics["AP_much"] == metrics["AP_none"] == 0
        assert metrics["AP_apart"] is metrics["leakage"] is metrics["seams"] is None
    assert set(overlap_metrics(truth([], []), []).values()) == {None}


def test_the_ground_truth_is_not_modified():
    ground = truth([CORNER, FILLING])
    areas = [item["area"] for item in ground["annotations"]]
    overlap_metrics(ground, [result(1, FILLING)])
    assert [item["area"] for item in ground["annotations"]] == areas


def test_more_than_255_masks_may_overlap():
    """A count of eight bits would start anew at 256 and leave object 257 alone in its pixels."""
    (scene,) = scenes(truth([block(10, 10, 20, 20)] * 257))
    assert scene.degrees.tolist() == [1] * 257 and set(scene.levels.tolist()) == {3}
    (matched,) = matched_objects(truth([FILLING] * 257), [result(1, FILLING)])
    assert (matched.degree, matched.iou, matched.leakage) == (1, 1, 0)  # nothing is outside its own object


def test_large_images_take_no_bitmap_for_each_object():
    """40 objects in 12 megapixels would be 480 MB. Two overlap by a quarter of their boxes, the others a little."""
    height, width = 3000, 4000
    corners = [(100, 200), (150, 250), *((500 + 80 * i, 60 * i) for i in range(38))]
    ground = {
        "images": [{"id": 1, "height": height, "width": width}],
        "annotations": [
            {
                "id": i,
                "image_id": 1,
                "category_id": SQUARE,
                "iscrowd": 0,
                "area": 10_000,
                "bbox": [x, y, 100, 100],
                "segmentation": [[x, y, x + 100, y, x + 100, y + 100, x, y + 100]],
            }
            for i, (x, y) in enumerate(corners, start=1)
        ],
        "categories": [{"id": SQUARE, "name": "square"}],
    }
    results = []
    for x, y in corners:
        encoded = rle.frPyObjects([[x, y, x + 100, y, x + 100, y + 100, x, y + 100]], height, width)[0]
        encoded = {"size": [height, width], "counts": encoded["counts"].decode()}
        results.append(
            {"image_id": 1, "category_id": SQUARE, "score": 0.9, "bbox": [x, y, 100, 100], "segmentation": encoded}
        )
    tracemalloc.start()
    metrics = overlap_metrics(ground, results)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert [metrics[key] for key in ("AP_some", "AP_much", "leakage")] == pytest.approx([100, 100, 0])
    (scene,) = scenes(ground)
    assert scene.shares[0, 1] == 0.25 and np.count_nonzero(scene.shares) == 2 + 2 * 37
