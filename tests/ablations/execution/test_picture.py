"""The picture that a single run leaves of what it detects."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.execution.picture import HEIGHT, write_picture
from ablations.stages.store import stages_of


@pytest.fixture
def run(compose, tmp_path):
    settings = ["budget=smoke", "budget.train_images=2", "budget.val_images=2", "device=cpu"]
    run = Run("single", "x", from_hydra(compose([*settings, f"outputs={tmp_path}"])))
    run.folder.mkdir(parents=True)
    return run


def detection(run, score, **content):
    image_id = stages_of(run.config).dataset("val")[0].image_id
    return {"image_id": image_id, "category_id": 1, "score": score, "bbox": [10, 20, 100, 60], **content}


def differences(run, results):
    """Where the picture's right half, which has the detections, is not as without any: the first image's rows."""
    pictures = []
    for content in ([], results):
        (run.folder / "detections.json").write_text(json.dumps(content))
        pictures.append(np.asarray(Image.open(write_picture(run))).astype(int))
    none, some = pictures
    assert none.shape == (2 * HEIGHT, 2 * HEIGHT, 3)
    assert (none[:, :HEIGHT] == some[:, :HEIGHT]).all() and (none[HEIGHT:] == some[HEIGHT:]).all()
    return (none != some).any(axis=2)[:HEIGHT, HEIGHT:]


def test_the_picture_shows_the_masks_of_sure_detections(run):
    mask = np.zeros((256, 256), np.uint8, order="F")
    mask[20:80, 10:110] = 1
    encoded = rle.encode(mask)
    segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    changed = differences(run, [detection(run, 0.9, segmentation=segmentation)])
    assert changed[20:80, 10:110].mean() > 0.95 and not changed[mask == 0].any()
    assert not differences(run, [detection(run, 0.4, segmentation=segmentation)]).any()


def test_without_masks_the_picture_shows_boxes(run):
    changed = differences(run, [detection(run, 0.9)])
    assert changed[20, 10:110].all() and changed[20:80, 10].all() and not changed[30:70, 20:100].any()


def test_a_run_without_detections_has_no_picture(run):
    assert write_picture(run) is None
