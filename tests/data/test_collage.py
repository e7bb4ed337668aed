"""Collages: real pixels with exact masks, from whole objects of other photographs, the same every time."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from data.build import build
from data.collage import Collages, covered
from data.dataset import CROWD, Sample
from data.loaders import TrainBatches
from data.specs import CocoSpec, CollageSpec

SIDE = 96
COLOURS = {1: (250, 20, 20), 2: (20, 250, 20), 3: (20, 20, 250)}
"""Of the objects of each photograph, whose grounds are grey."""


def square(annotation_id, image_id, x, y, side=40, **more):
    outline = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {"id": annotation_id, "image_id": image_id, "category_id": image_id, "bbox": [x, y, side, side],
            "area": side * side, "iscrowd": 0, "segmentation": [outline]} | more  # fmt: skip


def write(root, entries, **fields):
    """Photographs 1 to 3, both splits alike; a grey of their own, with each square in the photograph's colour."""
    images = [{"id": key, "file_name": f"{key}.png", "height": SIDE, "width": SIDE, "license": key} for key in COLOURS]
    content = {
        "images": images,
        "annotations": entries,
        "categories": [{"id": key, "name": str(key)} for key in COLOURS],
    }
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / split).mkdir()
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for key, colour in COLOURS.items():
            pixels = np.full((SIDE, SIDE, 3), 60 * key, np.uint8)
            for entry in entries:
                x, y, w, h = entry["bbox"]
                if entry["image_id"] == key:
                    pixels[y : y + h, x : x + w] = colour
            Image.fromarray(pixels).save(root / split / f"{key}.png")
    fields = {"image_size": SIDE, "max_size": 200, "num_train": 12, "scale": (0.75, 1.0)} | fields
    return CollageSpec(root=str(root), **fields)


WHOLE = [square(key, key, 30, 30) for key in COLOURS]


def test_pasted_pixels_are_those_of_another_photograph_where_the_mask_is(tmp_path):
    collages = Collages(write(tmp_path, WHOLE, min_pasted=1, max_pasted=1, min_visible=0.01))
    for index in range(len(collages)):
        sample = collages[index]
        ground = int(sample.image[0, 0, 0]) // 60 if sample.image[:, 0, 0].unique().numel() == 1 else None
        real = sample.labels > 0
        label, *others = sample.labels[real].flip(0).tolist()
        mask, *behind = sample.masks[real].flip(0).bool()
        edge = torch.nn.functional.max_pool2d((~mask)[None].float(), 5, 1, 2)[0].bool()  # it is soft
        assert (~edge).sum() > 500 and 29**2 <= mask.sum() <= 41**2
        assert (torch.tensor(COLOURS[label]) == sample.image[:, ~edge].T).all()
        assert label != ground and label not in others
        assert not any((other & mask).any() for other in behind)


def test_the_same_specification_gives_the_same_images_whatever_their_number(tmp_path):
    spec = write(tmp_path, WHOLE)
    few, many, other = (Collages(dataclasses.replace(spec, **more)) for more in ({}, {"num_train": 40}, {"seed": 1}))
    for index in (3, 0, 7):
        assert torch.equal(few[index].image, many[index].image) and torch.equal(few[index].masks, many[index].masks)
    assert any(not torch.equal(few[index].image, other[index].image) for index in range(12))
    assert len({few.digest, many.digest, other.digest}) == 3 and few.digest == Collages(spec).digest
    assert len({sample.image.numpy().tobytes() for sample in map(few.__getitem__, range(12))}) == 12


def test_only_whole_objects_are_cut_out(tmp_path):
    """Not what touches the border, is in pieces, is small, or is a crowd region."""
    pieces = [[10, 50, 40, 50, 40, 80, 10, 80], [60, 50, 90, 50, 90, 80, 60, 80]]
    odd = [
        square(11, 1, 0, 30),
        square(12, 1, 40, 55),
        square(13, 2, 10, 50, segmentation=pieces),
        square(14, 3, 5, 5, side=20),
        square(15, 2, 45, 5, iscrowd=1, segmentation={"size": [SIDE, SIDE], "counts": [100, 2000, SIDE * SIDE - 2100]}),
    ]
    with pytest.raises(ValueError, match="in two photographs or more, got 0 in 0; lower data.smallest = 32"):
        Collages(write(tmp_path, odd))


def test_licences_choose_the_photographs(tmp_path):
    spec = write(tmp_path, WHOLE, licences=[1, 2])
    collages = Collages(spec)
    assert {int(label) for index in range(12) for label in collages[index].labels if label > 0} == {1, 2}
    with pytest.raises(ValueError, match=r"data.licences: expected some of .*s 1, 2, 3, got \[9\]"):
        Collages(dataclasses.replace(spec, licences=[9]))
    assert hash(spec) == hash(dataclasses.replace(spec))  # data sets are kept open by it


def test_photographs_that_must_not_be_adapted_are_left_out_unless_they_are_asked_for(tmp_path):
    spec = write(tmp_path, WHOLE)
    path = tmp_path / "annotations/instances_train.json"
    content = json.loads(path.read_text())

    def classes(licences, wanted=None):
        path.write_text(json.dumps(content | {"licenses": licences}))
        collages = Collages(dataclasses.replace(spec, licences=wanted))
        return {int(label) for index in range(12) for label in collages[index].labels if label > 0}

    forbidding = {"id": 3, "url": "http://creativecommons.org/licenses/by-nc-nd/2.0/", "name": "BY-NC-ND"}
    named = {"id": 1, "name": "Attribution-NoDerivs License"}
    others = [{"id": 2, "url": "http://creativecommons.org/licenses/by-nc-sa/2.0/"}, "odd", {"id": 9}]
    assert classes([*others, forbidding]) == {1, 2} and classes([*others, named]) == {2, 3}
    assert classes([*others, forbidding], (2, 3)) == {2, 3}
    assert classes("odd") == classes(others) == {1, 2, 3}
    with pytest.raises(ValueError, match="NoDerivatives"):
        classes([{"id": key, "name": "NoDerivs"} for key in COLOURS])


def test_what_is_covered_loses_it_and_what_is_hardly_seen_is_ignored():
    """A pasted square covers all of one object, most of another, some of a third, and nothing of the last."""
    boxes = torch.tensor([[10.0, 10, 20, 20], [20, 10, 32, 20], [25, 10, 45, 20], [50, 50, 61, 60], [0, 0, 5, 5]])
    masks = torch.zeros(5, 64, 64, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks[:4], boxes[:4].int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    labels = torch.tensor([1, 2, 3, 4, CROWD])
    ground = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), boxes, labels, masks, 7)
    pasted = np.zeros((64, 64), bool)
    pasted[5:25, 5:30] = True
    sample = covered(ground, [(5, pasted)], min_visible=0.5)
    assert sample.labels.tolist() == [3, 4, 5, CROWD, CROWD]
    assert sample.boxes.tolist() == [[30, 10, 45, 20], [50, 50, 61, 60], [5, 5, 30, 25], [30, 10, 32, 20], [0, 0, 5, 5]]
    assert sample.masks.sum((1, 2)).tolist() == [150, 110, 500, 0, 0]


def test_of_two_that_are_pasted_the_later_one_lies_in_front():
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, 8, 8, dtype=torch.uint8)
    ground = Sample(torch.zeros(3, 8, 8, dtype=torch.uint8), *nothing, 1)
    back, front = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    back[:, :6], front[:, 4:] = True, True
    sample = covered(ground, [(1, back), (2, front)], min_visible=0.3)
    assert sample.boxes.tolist() == [[0, 0, 4, 8], [4, 0, 8, 8]] and sample.masks.sum((1, 2)).tolist() == [32, 32]
    assert len(covered(ground, [], 0.3).labels) == 0


def test_validation_stays_on_the_photographs_and_training_takes_collages(tmp_path):
    spec = write(tmp_path, WHOLE)
    train, val, test = (build(spec, split) for split in ("train", "val", "test"))
    assert isinstance(train, Collages) and len(train) == 12 and train.classes == val.classes == ["1", "2", "3"]
    untouched = build(spec.photographs(), "val")
    assert val.digest == test.digest == untouched.digest
    assert all(torch.equal(val[index].image, untouched[index].image) for index in range(3))
    assert isinstance(spec.photographs(), CocoSpec) and spec.photographs().num_train is None
    batch = TrainBatches(train, 4, seed=0, num_threads=2).batch(1)
    assert batch.images.shape == (4, 3, SIDE, SIDE) and (batch.labels > 0).any()


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"min_pasted": 5}, "data.max_pasted: expected min_pasted = 5 or more"),
        ({"scale": (1.0, 0.5)}, "data.scale: expected two factors, the smaller one first"),
        ({"root": ""}, "data.root: expected the folder"),
    ],
)
def test_what_cannot_be_is_refused(fields, expected):
    with pytest.raises(ValueError, match=expected):
        CollageSpec(**{"root": "nowhere", **fields}).validate()
