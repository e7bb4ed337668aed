"""COCO-format folders: what a loader must get right about categories, crowds, image files and sizes."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from data.build import build
from data.coco import CocoSpec, load
from data.dataset import CROWD
from data.images import fitted_size, read_image
from data.loaders import TrainBatches, eval_batches

HEIGHT, WIDTH = 40, 60
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def write(root, entries, images=None, categories=((90, "cat"), (3, "dog"), (17, "owl"))):
    """A set in which both splits are the same."""
    images = {1: np.full((HEIGHT, WIDTH, 3), 100, np.uint8)} if images is None else images
    listed = []
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for key, pixels in images.items():
            picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
            picture.save(root / split / f"{key}.png")
    for key, pixels in images.items():
        width, height = pixels.size if isinstance(pixels, Image.Image) else pixels.shape[1::-1]
        listed.append({"id": key, "file_name": f"{key}.png", "height": height, "width": width})
    content = {"images": listed, "annotations": entries}
    content["categories"] = [{"id": key, "name": name} for key, name in categories]
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return CocoSpec(root=str(root), image_size=HEIGHT, max_size=200)


def entry(annotation_id, category_id=17, image_id=1, bbox=(10, 10, 20, 20), segmentation=(SQUARE,), iscrowd=0):
    shape = segmentation if isinstance(segmentation, dict) else list(segmentation)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "area": 400,
        "iscrowd": iscrowd,
        "segmentation": shape,
    }


def test_sparse_categories_become_1_to_k_in_order(tmp_path):
    dataset = load(write(tmp_path, [entry(1, 90), entry(2, 3), entry(3, 17)]), "train")
    assert dataset.classes == ["dog", "owl", "cat"]
    assert dataset[0].labels.tolist() == [3, 1, 2]
    assert [a["category_id"] for a in dataset.coco["annotations"]] == [3, 1, 2]
    assert [(c["id"], c["name"]) for c in dataset.coco["categories"]] == [(1, "dog"), (2, "owl"), (3, "cat")]


def test_crowds_are_marked_for_matching_and_evaluation_to_ignore(tmp_path):
    region = rle.encode(np.asfortranarray(np.ones((HEIGHT, WIDTH), np.uint8)))
    crowd = {"size": [HEIGHT, WIDTH], "counts": region["counts"].decode()}
    whole = entry(2, iscrowd=1, segmentation=crowd, bbox=(0, 0, WIDTH, HEIGHT))
    dataset = load(write(tmp_path, [whole, entry(1)]), "train")
    sample = dataset[0]
    assert sample.labels.tolist() == [2, CROWD] and dataset.max_objects == 1
    assert sample.boxes[1].tolist() == [0, 0, WIDTH, HEIGHT] and not sample.masks[1].any()
    assert sorted(a["iscrowd"] for a in dataset.coco["annotations"]) == [0, 1]


def test_polygons_and_rle_give_the_same_object_at_any_size(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 10:30] = 1
    packed = {"size": [HEIGHT, WIDTH], "counts": rle.encode(np.asfortranarray(mask))["counts"].decode()}
    spec = write(tmp_path, [entry(1), entry(2, segmentation=packed)])
    sample = load(spec, "train")[0]
    assert torch.equal(sample.masks[0], torch.from_numpy(mask)) and torch.equal(sample.masks[1], sample.masks[0])
    double = load(dataclasses.replace(spec, image_size=2 * HEIGHT), "train")[0]
    assert double.image.shape == (3, 80, 120) and double.original_size == (HEIGHT, WIDTH)
    assert double.boxes.tolist() == [[20, 20, 60, 60]] * 2
    expected = torch.zeros(80, 120, dtype=torch.uint8)
    expected[20:60, 20:60] = 1
    assert torch.equal(double.masks[0], expected) and torch.equal(double.masks[1], expected)


def test_ground_truth_stays_in_the_original_pixels(tmp_path):
    spec = dataclasses.replace(write(tmp_path, [entry(1)]), image_size=2 * HEIGHT)
    dataset = load(spec, "val")
    (image,), (annotation,) = dataset.coco["images"], dataset.coco["annotations"]
    assert (image["height"], image["width"]) == (HEIGHT, WIDTH) and annotation["bbox"] == [10, 10, 20, 20]
    batch = next(eval_batches(dataset, 1))
    assert batch.sizes.tolist() == [[80, 120]] and batch.original_sizes.tolist() == [[HEIGHT, WIDTH]]
    assert batch.images.shape == (1, 3, 96, 128), "padded to the coarsest stride"


def test_objects_that_vanish_when_downscaled_are_left_out(tmp_path):
    speck = entry(2, bbox=(50, 5, 1, 1), segmentation=([50, 5, 50.2, 5, 50.2, 5.2, 50, 5.2],))
    big = Image.new("RGB", (600, 400))
    spec = write(tmp_path, [entry(1), speck], {1: big})
    assert load(spec, "train")[0].labels.tolist() == [2]


def test_largest_objects_are_kept_above_max_objects(tmp_path):
    small = [entry(n, 3, bbox=(10, 10, 5, 5)) for n in range(2, 6)]
    spec = dataclasses.replace(write(tmp_path, [*small, entry(1, 17)]), max_objects=2)
    dataset = load(spec, "train")
    assert dataset.max_objects == 2 and dataset[0].labels.tolist()[0] == 2
    assert len(dataset.coco["annotations"]) == 5, "evaluation knows them all"


def test_images_without_objects_are_evaluated_and_trained_on_if_asked(tmp_path):
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    spec = write(tmp_path, [entry(1)], {1: blank, 2: blank})
    assert len(load(spec, "train")) == 1 and len(load(spec, "val")) == 2
    kept = load(dataclasses.replace(spec, keep_empty=True), "train")
    assert len(kept) == 2 and kept[1].boxes.shape == (0, 4) and kept[1].masks.shape == (0, HEIGHT, WIDTH)
    batch = TrainBatches(kept, 2, seed=0).batch(0)
    assert (batch.labels > 0).sum() == 1


def test_skipped_entries_are_counted_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load(write(tmp_path, [entry(1), entry(2, bbox=(0, 0, 0, 0)), entry(3, 55)]), "train")
    assert dataset.skipped == {"annotation skipped": 2} and len(dataset[0].labels) == 1
    assert "2 x annotation skipped" in caplog.text and "python -m data.check" in caplog.text


GREY = np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) % 251
COLOUR = np.stack([GREY, 250 - GREY, GREY // 2], axis=2).astype(np.uint8)
PICTURES = {
    "grey": (Image.fromarray(GREY.astype(np.uint8)), np.repeat(GREY[:, :, None], 3, axis=2)),
    "16 bits": (Image.fromarray((GREY * 257).astype(np.uint16)), np.repeat(GREY[:, :, None], 3, axis=2)),
    "RGBA": (Image.fromarray(np.dstack([COLOUR, GREY.astype(np.uint8)])), COLOUR),
    "palette": (Image.fromarray(GREY.astype(np.uint8)).convert("P"), np.repeat(GREY[:, :, None], 3, axis=2)),
    "bits": (Image.fromarray(GREY > 100), np.repeat(np.where(GREY > 100, 255, 0)[:, :, None], 3, axis=2)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_all_kinds_of_pictures_become_rgb(tmp_path, kind):
    picture, expected = PICTURES[kind]
    picture.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png", HEIGHT, WIDTH)), expected)


def test_exif_orientation_is_followed_as_the_annotations_need(tmp_path):
    picture = Image.fromarray(COLOUR)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    turned = np.asarray(read_image(tmp_path / "a.png", WIDTH, HEIGHT))
    assert np.array_equal(turned, np.rot90(COLOUR, -1))
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png", HEIGHT, WIDTH)), COLOUR)


def test_broken_pictures_are_refused_by_name(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "whole.jpg")
    (tmp_path / "part.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"part\.jpg: expected a picture that can be read"):
        read_image(tmp_path / "part.jpg", HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="expected 10 x 10 pixels as the annotations say, got 60 x 40"):
        read_image(tmp_path / "whole.jpg", 10, 10)


def test_the_shorter_side_is_fitted_unless_the_longer_grows_too_long():
    assert fitted_size(480, 640, 800, 1333) == (800, 1067)
    assert fitted_size(640, 480, 800, 1333) == (1067, 800)
    assert fitted_size(300, 900, 800, 1333) == (444, 1333)
    assert fitted_size(256, 256, 256, 256) == (256, 256)


def test_a_folder_that_is_not_coco_is_refused_with_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="pass data.root=FOLDER"):
        CocoSpec().validate()
    with pytest.raises(ValueError, match="no such folder"):
        CocoSpec(root=str(tmp_path / "nowhere")).validate()
    with pytest.raises(ValueError, match="found 0; JSON files in .*: none"):
        CocoSpec(root=str(tmp_path)).validate()
    spec = write(tmp_path / "set", [entry(1)])
    with pytest.raises(ValueError, match=r"annotations/instances_train\.json, annotations/instances_val\.json; pass"):
        dataclasses.replace(spec, train_json="annotations/captions.json").validate()
    with pytest.raises(ValueError, match="data.val_images: expected the folder of the images"):
        dataclasses.replace(spec, val_images="pictures").validate()
    with pytest.raises(ValueError, match="data.max_size: expected image_size = "):
        dataclasses.replace(spec, max_size=10).validate()


def test_a_set_in_which_nothing_can_be_used_is_refused(tmp_path):
    spec = write(tmp_path, [entry(1, bbox=(0, 0, 0, 0))])
    with pytest.raises(ValueError, match="at least one image with an object"):
        load(spec, "train")


def test_the_digest_follows_content_not_place(tmp_path):
    first = load(write(tmp_path / "a", [entry(1)]), "train")
    moved = load(write(tmp_path / "b", [entry(1)]), "train")
    other = load(write(tmp_path / "c", [entry(1, 3)]), "train")
    assert first.digest == moved.digest != other.digest
    assert first.digest != load(dataclasses.replace(first.spec, image_size=50), "train").digest


def test_build_refuses_an_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="split: expected one of train, val, test, pretrain, got 'minival'"):
        build(write(tmp_path, [entry(1)]), "minival")


def test_images_whose_licence_does_not_allow_it_are_not_shown_and_others_keep_what_attribution_needs(tmp_path):
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    spec = write(tmp_path, [entry(key, image_id=key) for key in (1, 2, 3, 4)], {key: blank for key in (1, 2, 3, 4)})
    assert list(load(spec, "val").showable) == [0, 1, 2, 3]  # nothing is known of licences
    path = tmp_path / "annotations/instances_val.json"
    content = json.loads(path.read_text())
    for image, number in zip(content["images"], (4, 3, 9, [4]), strict=True):
        image |= {"license": number, "flickr_url": f"http://example.org/{image['id']}"}
    content["licenses"] = [
        {"id": 3, "name": "Attribution-NonCommercial", "url": "http://creativecommons.org/licenses/by-nc/2.0/"},
        {"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"},
        "odd",
    ]
    path.write_text(json.dumps(content))
    dataset = load(spec, "val")
    assert list(dataset.showable) == [0] and len(dataset) == 4
    images = {image["id"]: image for image in dataset.coco["images"]}
    assert images[1]["licence"]["name"] == "Attribution License" and images[1]["source"] == "http://example.org/1"
    assert images[3]["licence"]["name"] == images[4]["licence"]["name"] == "unknown licence"
