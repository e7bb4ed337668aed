"""The synthetic set: the same everywhere, as hard as it says, compact, and readable by pycocotools when exported."""

import dataclasses
import hashlib
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from data import build, digests, folders, scene, shapes
from data.scene import draw_image
from data.shapes import COCO_PERCENTILES, cache, draw, size_table
from data.specs import CocoSpec, ShapesSpec
from tests.damage import flip_bit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("shapes")]  # one process makes what the tests share

SPEC = ShapesSpec(num_train=8, num_val=8)

# Of the first eight training images. Another value means that everybody's data changed: raise specs.GENERATOR,
# and repeat what was measured on it.
GOLDEN = "a80543434e29ea3644ed0a571e6dfb05caafdede3b0494486a9fd82fc590ba0a"


@pytest.fixture(scope="module")
def drawn():
    return draw(ShapesSpec(num_train=500), "train")


def content(dataset) -> str:
    digest = hashlib.sha256()
    for values in dataset.arrays.values():
        digest.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def test_bits_are_those_of_any_other_machine():
    assert content(draw(SPEC, "train")) == GOLDEN


@pytest.mark.slow
def test_an_image_depends_on_its_index_alone(drawn):
    few = draw(dataclasses.replace(SPEC, num_train=3), "train")
    assert np.array_equal(few.pixels, drawn.pixels[:3])
    assert few.digest != drawn.digest


def test_splits_and_seeds_are_different_streams():
    sets = [draw(SPEC, "train"), draw(SPEC, "val"), draw(dataclasses.replace(SPEC, seed=1), "train")]
    pictures = {hashlib.sha256(pixels.tobytes()).hexdigest() for dataset in sets for pixels in dataset.pixels}
    assert len(pictures) == 24
    ids = [{dataset[i].image_id for i in range(8)} for dataset in sets[:2]]
    assert not ids[0] & ids[1]
    assert len({dataset.digest for dataset in sets}) == 3


def test_every_field_that_changes_pixels_changes_the_digest():
    other = {
        "seed": 1,
        "image_side": 320,
        "min_objects": 3,
        "max_objects": 5,
        "size_cells": (2.0, 4.0),
        "rotation": 10.0,
        "stretch": 1.0,
        "same_class": 0.5,
        "min_visible": 0.5,
        "contrast": 50,
        "texture": 10,
        "noise": 0,
    }
    aside = {"kind", "num_train", "num_val"}
    assert other.keys() | aside == {field.name for field in dataclasses.fields(ShapesSpec)}
    for name, value in other.items():
        assert dataclasses.replace(SPEC, **{name: value}).digest("train") != SPEC.digest("train")


@pytest.mark.slow
def test_sizes_follow_coco_up_to_the_median(drawn):
    table = size_table(drawn)
    for percentile, tolerance in ((10, 0.25), (25, 0.4), (50, 0.5)):
        assert table[percentile] == pytest.approx(COCO_PERCENTILES[percentile], abs=tolerance)
    # Beyond, the image ends: the largest objects nearly fill it.
    assert 8.5 < table[75] < 10 and 10.5 < table[90] < 12


def test_objects_are_as_many_as_asked_and_of_all_classes(drawn):
    counts = np.diff(drawn.starts)
    assert counts.min() == SPEC.min_objects and counts.max() == SPEC.max_objects == drawn.max_objects
    shares = np.bincount(drawn.labels, minlength=9)[1:] / len(drawn.labels)
    assert len(shares) == len(drawn.classes) == 8
    assert shares.min() > 0.09 and shares.max() < 0.16


def test_masks_are_visible_parts_in_tight_boxes(drawn):
    for index in range(50):
        sample = drawn[index]
        assert sample.image.dtype == torch.uint8 and sample.image.shape == (3, 256, 256)
        assert sample.masks.sum(dim=0).max() == 1, "visible parts do not overlap"
        for mask, box in zip(sample.masks.numpy(), sample.boxes.tolist(), strict=True):
            rows, columns = np.nonzero(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert mask.sum() >= 64


def test_objects_hide_each_other_but_not_too_much():
    """The same scene with overlap forbidden has no hidden pixels; with it, some objects lose up to 60 %."""
    free = draw(dataclasses.replace(SPEC, num_train=40, min_visible=1.0), "train")
    hiding = draw(dataclasses.replace(SPEC, num_train=40), "train")
    # A silhouette's own share of its box, per class, from objects that nothing hides.
    whole = {label: min(shares) for label, shares in filled(free).items()}
    less = sum(share < whole[label] for label, shares in filled(hiding).items() for share in shares)
    assert less > 20


def filled(dataset) -> dict[int, list[float]]:
    shares: dict[int, list[float]] = {label: [] for label in range(1, 9)}
    for index in range(len(dataset)):
        sample = dataset[index]
        areas = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(dim=1)
        for label, mask, area in zip(sample.labels.tolist(), sample.masks, areas.tolist(), strict=True):
            shares[label].append(float(mask.sum()) / area)
    return shares


def test_colour_does_not_tell_the_class(drawn):
    """The nearest class mean of the objects' mean colours is right about as often as chance: 1 in 8."""
    features, labels = [], []
    for index in range(400):
        sample = drawn[index]
        for mask, label in zip(sample.masks.bool(), sample.labels.tolist(), strict=True):
            inside = sample.image[:, mask].float()
            features.append(torch.cat([inside.mean(dim=1), inside.std(dim=1)]))
            labels.append(label)
    x, y = torch.stack(features), torch.tensor(labels)
    half = len(y) // 2
    means = torch.stack([x[:half][y[:half] == label].mean(dim=0) for label in range(1, 9)])
    right = (torch.cdist(x[half:], means).argmin(dim=1) + 1 == y[half:]).float().mean()
    assert right < 0.19


def test_edges_stand_out(drawn):
    """Across the outline of an object the colour changes by far more than the camera's noise."""
    steps = []
    for index in range(40):
        sample = drawn[index]
        pixels = sample.image.float()
        for mask in sample.masks.bool():
            edge = mask[:, 3:] != mask[:, :-3]
            steps.append((pixels[:, :, 3:] - pixels[:, :, :-3]).norm(dim=0)[edge].median())
    assert torch.stack(steps).quantile(0.1) > 6 * SPEC.noise


def test_masks_at_rest_take_a_small_part_of_their_bitmaps(drawn):
    bitmaps = len(drawn.labels) * 256 * 256
    assert drawn.masks.bits.nbytes + drawn.masks.boxes.nbytes + drawn.masks.offsets.nbytes < bitmaps / 30


def test_coco_json_gives_the_masks_back(drawn):
    few = draw(SPEC, "val")
    coco = COCO()
    coco.dataset = few.coco
    coco.createIndex()
    for index in range(len(few)):
        sample = few[index]
        entries = coco.loadAnns(coco.getAnnIds([sample.image_id]))
        assert [entry["category_id"] for entry in entries] == sample.labels.tolist()
        for entry, mask, box in zip(entries, sample.masks.numpy(), sample.boxes.numpy(), strict=True):
            assert np.array_equal(coco.annToMask(entry), mask)
            assert entry["area"] == mask.sum()
            assert np.allclose(entry["bbox"], [*box[:2], *(box[2:] - box[:2])])


def test_export_is_read_by_pycocotools_and_by_our_own_loader(tmp_path, capsys):
    out = tmp_path / "out"
    shapes.main([str(out), "--num-train", "4", "--num-val", "3"])
    spec = dataclasses.replace(SPEC, num_train=4, num_val=3)
    for split in ("train", "val"):
        ours = draw(spec, split)
        coco = COCO(str(out / "annotations" / f"instances_{split}.json"))
        assert len(coco.imgs) == len(ours)
        for index in range(len(ours)):
            sample = ours[index]
            image = coco.loadImgs([sample.image_id])[0]
            pixels = np.asarray(Image.open(out / split / image["file_name"]))
            assert np.array_equal(pixels, ours.pixels[index])
        assert json.loads((out / "annotations" / f"instances_{split}.json").read_text()) == ours.coco

        back = build.build(CocoSpec(root=str(out), image_size=256, max_size=256), split)
        assert back.classes == ours.classes
        for index in range(len(ours)):
            expected, got = ours[index], back[index]
            assert torch.equal(expected.image, got.image) and torch.equal(expected.masks, got.masks)
            assert torch.equal(expected.boxes, got.boxes) and torch.equal(expected.labels, got.labels)


def test_cache_gives_the_same_set_and_survives_a_killed_run(tmp_path, monkeypatch):
    fresh = draw(SPEC, "train")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            cache(SPEC, "train", tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert content(cache(SPEC, "train", tmp_path)) == content(fresh)

    def unexpected(*_):
        raise AssertionError("drawn again")

    monkeypatch.setattr(shapes, "draw", unexpected)
    again = cache(SPEC, "train", tmp_path)
    assert content(again) == content(fresh) and again.digest == fresh.digest


@pytest.mark.parametrize("damage", ["bytes", "pickle", "missing", "deleted"])
def test_a_broken_cache_is_drawn_again(tmp_path, damage):
    fresh = content(cache(SPEC, "val", tmp_path))
    (home,) = tmp_path.iterdir()
    (home / "labels.npy").unlink()
    if damage == "bytes":
        (home / "labels.npy").write_bytes(b"x")
    elif damage == "pickle":
        np.save(home / "labels.npy", np.array([{"an": "object"}]), allow_pickle=True)
    elif damage == "deleted":
        shutil.rmtree(home)
    assert content(cache(SPEC, "val", tmp_path)) == fresh
    assert {path.name for path in tmp_path.iterdir()} <= {home.name, "replaced"}


@pytest.mark.parametrize("name", [*(f"{key}.npy" for key in shapes._ARRAYS), digests.FILE])
def test_one_flipped_bit_in_a_cache_is_noticed_and_the_set_drawn_again(tmp_path, caplog, name):
    fresh = content(cache(SPEC, "val", tmp_path))
    (home,) = tmp_path.iterdir()
    flip_bit(home / name)
    assert content(cache(SPEC, "val", tmp_path)) == fresh
    assert "it is drawn again" in caplog.text and caplog.text.count(str(home)) == 1
    assert (tmp_path / "replaced" / f"{home.name}-1" / name).exists()
    caplog.clear()
    assert content(cache(SPEC, "val", tmp_path)) == fresh and not caplog.text


def test_a_cache_of_an_older_version_is_drawn_again(tmp_path, caplog):
    fresh = content(cache(SPEC, "val", tmp_path))
    (home,) = tmp_path.iterdir()
    (home / digests.FILE).unlink()
    assert content(cache(SPEC, "val", tmp_path)) == fresh
    assert "it has no digests to check it by" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train": 0}, "num_train"),
        ({"image_side": 250}, "multiple of 32"),
        ({"max_objects": 101}, "less than or equal to 100"),
        ({"min_objects": 7}, "max_objects: expected min_objects = 7 or more, got 4"),
        ({"size_cells": (4.0, 2.0)}, "ascending"),
        ({"size_cells": (4.0, 20.0)}, "fit into the image"),
        ({"size_cells": (2.0, float("nan"))}, "finite"),
        ({"min_visible": 0.0}, "greater than or equal to 0.1"),
        ({"rotation": -1.0}, "rotation"),
    ],
)
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change).validate()


@pytest.mark.slow
def test_too_many_large_objects_are_refused_without_endless_retries():
    spec = ShapesSpec(min_objects=20, max_objects=20, size_cells=(10.0, 12.0), min_visible=0.9)
    with pytest.raises(ValueError, match="lower min_objects"):
        scene.draw_image(spec, "train", 0)


def test_rotation_and_other_extremes_draw():
    spec = ShapesSpec(rotation=180.0, stretch=3.0, contrast=0, texture=0, noise=0, min_objects=1, image_side=224)
    drawing = draw_image(spec, "val", 0)
    assert drawing.pixels.shape == (224, 224, 3) and len(drawing.labels) >= 1


def test_command_prints_sizes_and_refuses_nonsense(capsys):
    shapes.main(["--sizes", "--num-train", "20"])
    assert "20 images" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="image_side"):
        shapes.main(["--sizes", "--image-side", "100"])


def test_objects_take_the_class_of_the_one_behind_as_often_as_told():
    always = draw(ShapesSpec(num_train=20, same_class=1.0), "train")
    assert all(len(np.unique(always[i].labels)) == 1 for i in range(20))
    half = draw(ShapesSpec(num_train=60, same_class=0.5), "train")
    alike = [a == b for i in range(60) for a, b in itertools.pairwise(half[i].labels.tolist())]
    assert 0.4 < np.mean(alike) < 0.75  # half, and one in eight of the rest
