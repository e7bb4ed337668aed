"""Annotation files with one category only."""

import json

import pytest

from data.category import main


def write(root, content):
    (root / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))


CONTENT = {
    "images": [{"id": 1, "license": 4}, {"id": 2}, {"id": 3}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 7}, {"id": 2, "image_id": 2, "category_id": 9}],
    "categories": [{"id": 7, "name": "person"}, {"id": 9, "name": "dog"}],
    "licenses": [{"id": 4}],
}


def test_files_of_a_category_have_its_objects_and_the_images_that_show_them(tmp_path, capsys):
    write(tmp_path, CONTENT)
    main([str(tmp_path), "person", "people"])
    for split in ("train2017", "val2017"):
        content = json.loads((tmp_path / f"annotations/people_{split}.json").read_text())
        assert content["images"] == CONTENT["images"][:1] and content["annotations"] == CONTENT["annotations"][:1]
        assert content["categories"] == CONTENT["categories"][:1] and content["licenses"] == CONTENT["licenses"]
    assert "people_val2017.json: 1 images, 1 objects" in capsys.readouterr().out


def test_all_categories_become_one(tmp_path, capsys):
    write(tmp_path, CONTENT)
    main([str(tmp_path), "--all", "objects"])
    content = json.loads((tmp_path / "annotations/objects_train2017.json").read_text())
    assert content["images"] == CONTENT["images"][:2] and content["licenses"] == CONTENT["licenses"]
    assert content["categories"] == [{"id": 1, "name": "object"}]
    assert content["annotations"] == [entry | {"category_id": 1} for entry in CONTENT["annotations"]]
    assert "objects_val2017.json: 2 images, 2 objects" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["cat", "cats"], "expected one of the categories person, dog, got cat"),
        (["dog", "../dogs"], "NAME: expected another word"),
        (["dog", "instances"], "NAME: expected another word"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, arguments, expected):
    write(tmp_path, CONTENT)
    with pytest.raises(SystemExit, match=expected):
        main([str(tmp_path), *arguments])
    assert len(list((tmp_path / "annotations").iterdir())) == 2
