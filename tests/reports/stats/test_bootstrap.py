"""The bootstrap over images against COCO's own evaluation of the resampled set, written out image by image."""

import contextlib
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ablations.evaluation.overlap import overlap_metrics
from reports.load import read_study
from reports.stats import bootstrap as bootstrap_module
from reports.stats.bootstrap import ImageBootstrap, average_precisions, draw_images
from reports.stats.matching import Truth


@pytest.fixture(scope="module")
def study(outputs):
    return read_study(outputs, "roialign")


def coco_figures(truth: dict, results: list[dict], kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(result) for result in results]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value for value in evaluation.stats[:3]]


def repeat(truth: dict, results: list[dict], draw: np.ndarray) -> tuple[dict, list[dict]]:
    """The resampled set spelt out: an image drawn n times is there n times, under new ids."""
    images, annotations, repeated = [], [], []
    for image, count in zip(truth["images"], draw, strict=True):
        for _ in range(count):
            new = {"image_id": len(images) + 1}
            images.append({**image, "id": new["image_id"]})
            for item in truth["annotations"]:
                if item["image_id"] == image["id"]:
                    annotations.append({**item, **new, "id": len(annotations) + 1})
            repeated += [{**item, **new} for item in results if item["image_id"] == image["id"]]
    return {"images": images, "annotations": annotations, "categories": truth["categories"]}, repeated


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_a_resample_is_what_coco_finds_on_the_resampled_set(study, kind):
    truth, results = study.ground_truth, study.detections("pool16", 0)
    matches = Truth(truth).match(results, kind)
    draws = np.vstack([np.ones((1, 6), dtype=int), draw_images(6, 3)])
    fast = np.array(list(average_precisions(matches, draws).values()))
    for index, draw in enumerate(draws):
        assert fast[:, index] == pytest.approx(coco_figures(*repeat(truth, results, draw), kind))


def test_crowds_are_ignored_as_coco_ignores_them(study):
    truth = {**study.ground_truth, "annotations": [dict(item) for item in study.ground_truth["annotations"]]}
    for item in truth["annotations"][::3]:
        item["iscrowd"] = 1
    results = study.detections("align16", 0)
    points = average_precisions(Truth(truth).match(results, "segm"), np.ones((1, 6), dtype=int))
    assert np.concatenate(list(points.values())) == pytest.approx(coco_figures(truth, results, "segm"))


def test_nothing_detected_is_zero_and_nothing_to_detect_is_undefined(study):
    ones = np.ones((1, 6), dtype=int)
    assert average_precisions(Truth(study.ground_truth).match([], "segm"), ones)["AP"] == 0
    empty = {**study.ground_truth, "annotations": []}
    assert np.isnan(average_precisions(Truth(empty).match(study.detections("pool16", 0), "segm"), ones)["AP"]).all()


def test_resamples_draw_as_many_images_as_there_are():
    draws = draw_images(50, 20)
    assert draws.shape == (20, 50) and (draws.sum(axis=1) == 50).all() and (draws == draw_images(50, 20)).all()


def test_contrasts_are_paired_by_image(study):
    metrics = ["segm.AP", "segm.AP75 - segm.AP50", "segm.APm"]
    bootstrap = ImageBootstrap(study, metrics, resamples=200)
    noise = bootstrap.noise({"align16": 1, "pool16": -1}, "segm.AP")
    assert noise.low < noise.mean < noise.high and (noise.num_images, noise.num_seeds) == (6, 5)
    assert (noise.high - noise.low) / 6 < noise.error < (noise.high - noise.low) / 2
    assert (noise.num_objects, noise.with_objects) == (24, 6) and noise.detectable == pytest.approx(2.8 * noise.error)
    same = bootstrap.noise({"align16": 1, "align16 again": -1} | {"align16": 0}, "segm.AP")
    assert same is None  # an arm that is not in the study
    both = bootstrap.noise({"align16": 1, "pool16": -1}, "segm.AP75 - segm.AP50")
    parts = [bootstrap.noise({"align16": 1, "pool16": -1}, metric).mean for metric in ("segm.AP75", "segm.AP50")]
    assert both.mean == pytest.approx(parts[0] - parts[1])
    assert bootstrap.noise({"align16": 1, "pool16": -1}, "segm.APm") is None


def test_masks_on_true_boxes_are_averaged_over_the_objects_of_the_images_drawn(study, tmp_path):
    """Figures of objects are written out image by image; one has none, and one object is not in the mean."""
    folder = shutil.copytree(study.folder, tmp_path / "roialign")
    ids = [image["id"] for image in study.ground_truth["images"]]
    columns = {"image_ids": [ids[0], ids[0], ids[1], ids[3], ids[5]], "IoU": [50, 70, 90, None, 20]}
    (folder / "pool16/seed0/true_boxes.json").write_text(json.dumps(columns))
    bootstrap = ImageBootstrap(read_study(tmp_path, "roialign"), ["true_boxes.IoU", "segm.AP"], resamples=40)
    values = bootstrap.value("pool16", 0, "true_boxes.IoU")
    assert values[0] == pytest.approx(57.5) and bootstrap.value("pool16", 0, "segm.AP") is not None
    for draw, value in zip(bootstrap.draws, values, strict=True):
        drawn = [50, 70] * draw[0] + [90] * draw[1] + [20] * draw[5]
        assert value == pytest.approx(np.mean(drawn)) if drawn else np.isnan(value)
    assert bootstrap.value("align16", 0, "true_boxes.IoU") is None
    noise = bootstrap.noise({"pool16": 1.0}, "true_boxes.IoU")
    assert (noise.num_objects, noise.with_objects, noise.num_images) == (4, 3, 6)


@pytest.mark.slow
def test_separate_processes_find_the_same(study, monkeypatch):
    weights, metric = {"align16": 1, "pool16": -1}, "segm.AP"
    alone = ImageBootstrap(study, [metric], resamples=20)
    monkeypatch.setattr(bootstrap_module, "WORTH_PROCESSES", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    together = ImageBootstrap(study, [metric], resamples=20)
    together.start()
    assert together.noise(weights, metric) == alone.noise(weights, metric)
    together.close()


@pytest.mark.slow
def test_what_a_separate_process_refuses_is_known_here(study, tmp_path, monkeypatch):
    folder = shutil.copytree(study.folder, tmp_path / "roialign")
    (folder / "pool16/seed0/true_boxes.json").write_text("[]")
    monkeypatch.setattr(bootstrap_module, "WORTH_PROCESSES", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    damaged = read_study(tmp_path, "roialign")
    together = ImageBootstrap(damaged, ["true_boxes.IoU"], resamples=3)
    together.start()
    together.wait()
    together.close()
    assert damaged.refused == {"pool16/seed0/true_boxes.json": "expected lists by name"}


@pytest.mark.parametrize("metric", ["AP_none", "AP50_some", "AP_much", "leakage", "seams"])
def test_measures_of_overlap_are_taken_again_of_other_images(study, metric):
    truth, results = study.ground_truth, study.detections("pool16", 0)
    run = study.runs["pool16", 0]
    measured = dataclasses.replace(run, metrics=run.metrics | {"overlap": overlap_metrics(truth, results)})
    one_run = dataclasses.replace(study, runs={("pool16", 0): measured})
    bootstrap = ImageBootstrap(one_run, [f"overlap.{metric}"], resamples=3)
    points = bootstrap.value("pool16", 0, f"overlap.{metric}")
    expected = [overlap_metrics(*repeat(truth, results, draw))[metric] for draw in bootstrap.draws]
    assert len(set(expected)) > 1 and points == pytest.approx(expected)
