"""With the ground truth as detections, AP and recall are 100 on every set that the loader accepts."""

import pytest

from ablations.evaluation.coco import average_precision
from ablations.evaluation.overlap import matched_objects, overlap_metrics
from ablations.evaluation.recall import recall
from data.coco import load
from tests.data.coco_sets import good, perfect_results, write, write_odd
from tests.data.odd_sets import ODD_SETS

# COCO's AP looks at 100 detections of an image, as the data check says.
ACCEPTED = [name for name, odd in ODD_SETS.items() if odd.objects and name != "image: 150 objects"]


def check(truth):
    results = perfect_results(truth)
    for kind in ("segm", "bbox"):
        metrics = average_precision(truth, results, kind)
        assert metrics["AP"] == pytest.approx(100) and metrics["AR100"] == pytest.approx(100), kind
    by_overlap = overlap_metrics(truth, results)
    bins = [value for name, value in by_overlap.items() if name.startswith("AP") and value is not None]
    assert bins and bins == pytest.approx([100] * len(bins))
    assert not by_overlap["leakage"]
    assert len(list(matched_objects(truth, results))) == len(results)
    assert recall(truth, [{**result, "category_id": 1} for result in results], 50)["AR@50"] == pytest.approx(100)


@pytest.mark.parametrize("name", ACCEPTED)
def test_perfect_detections_have_an_ap_of_100(tmp_path, name):
    check(load(write_odd(tmp_path, ODD_SETS[name]), "val").coco)


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], ["a", "b", "c", "d"], [5, 5, 5, 5], [None] * 4, [-1, 0.5, 10**30, 1]])
def test_annotations_may_have_any_ids(tmp_path, ids):
    """Records may come from other people."""
    truth = load(write(tmp_path, good()), "val").coco
    check(
        {**truth, "annotations": [{**entry, "id": key} for entry, key in zip(truth["annotations"], ids, strict=True)]}
    )
