"""Annotation files with every kind of mistake: found, named, and handled by the stated rule."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle

from data import annotations, check
from data.file_names import check_name
from data.segmentation import rle_problem, rle_runs

HEIGHT, WIDTH = 20, 30
SQUARE = [5, 5, 15, 5, 15, 15, 5, 15]


def entry(annotation_id=1, **changes):
    """A good annotation, with changes."""
    good = {"id": annotation_id, "image_id": 7, "category_id": 3, "bbox": [5, 5, 10, 10], "area": 100, "iscrowd": 0}
    return {**good, "segmentation": [SQUARE], **changes}


def content(*entries):
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": list(entries),
        "categories": [{"id": 3, "name": "thing"}],
    }


def folder(tmp_path, value):
    """A set with this JSON (text, or what it holds) and an empty file as its only image."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").touch()
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path, tmp_path / "train"


def encoded(shape, **changes):
    mask = rle.encode(np.ones(shape, np.uint8, order="F"))
    return {"size": mask["size"], "counts": mask["counts"].decode(), **changes}


BAD = {
    "unknown image 8": (entry(image_id=8), "skipped"),
    "unknown category 9": (entry(category_id=9), "skipped"),
    "unknown category [3]": (entry(category_id=[3]), "skipped"),
    "box without area": (entry(bbox=[5, 5, 0, 10]), "skipped"),
    "outside the image of 30 x 20": (entry(bbox=[40, 5, 10, 10]), "skipped"),
    "box of four numbers, got [5, 5, 10]": (entry(bbox=[5, 5, 10]), "skipped"),
    "box of four numbers, got None": (entry(bbox=None), "skipped"),
    "box of four numbers, got [5, 5, nan, 10]": (entry(bbox=[5, 5, float("nan"), 10]), "skipped"),
    "three points or more, got 4 numbers": (entry(segmentation=[[1, 1, 5, 5]]), "skipped"),
    "three points or more, got 7 numbers": (entry(segmentation=[[1, 1, 5, 5, 1, 5, 3]]), "skipped"),
    "numbers in or near the image": (entry(segmentation=[[1, 1, 1e12, 5, 1, 5]]), "skipped"),
    "in or near the image, got [1, 1, 'x'": (entry(segmentation=[[1, 1, "x", 5, 1, 5]]), "skipped"),
    "in or near the image, got [1, nan": (entry(segmentation=[[1, float("nan"), 5, 5, 1, 5]]), "skipped"),
    "polygons or an RLE, got []": (entry(segmentation=[]), "skipped"),
    "polygons or an RLE, got None": (entry(segmentation=None), "skipped"),
    "RLE of size [20, 30], got [30, 20]": (entry(segmentation=encoded((WIDTH, HEIGHT))), "skipped"),
    "RLE of 600 pixels, got 10": (entry(segmentation={"size": [HEIGHT, WIDTH], "counts": [4, 6]}), "skipped"),
    "does not decode": (entry(segmentation=encoded((HEIGHT, WIDTH), counts="~~~")), "skipped"),
    "RLE of size [20, 30], got 3": (entry(segmentation=encoded((HEIGHT, WIDTH), size=3)), "skipped"),
    "expected an object, got 3": (3, "skipped"),
    "box [20, 5, 15, 10] reaches out": (
        entry(bbox=[20, 5, 15, 10], segmentation=[[20, 5, 30, 5, 30, 15, 20, 15]]),
        "clipped",
    ),
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_entry_is_found_and_the_good_one_beside_it_kept(tmp_path, text):
    bad, rule = BAD[text]
    path, images = folder(tmp_path, content(entry(2), bad))
    loaded = annotations.load(path, images)
    assert text in " ".join(problem.text for problem in loaded.problems)
    assert rule in [problem.rule for problem in loaded.problems]
    name = bad["id"] if isinstance(bad, dict) else "number 2, without an id"
    assert [problem.id for problem in loaded.problems] == [name], "one line for each object"
    assert len(loaded.annotations) == (1 if rule == "skipped" else 2)
    assert (loaded.annotations[0]["id"], loaded.annotations[0]["source_id"]) == (1, 2)


def test_first_of_two_entries_with_one_id_is_kept(tmp_path):
    path, images = folder(tmp_path, content(entry(5), entry(5, bbox=[5, 5, 9, 9])))
    loaded = annotations.load(path, images)
    assert [kept["bbox"] for kept in loaded.annotations] == [[5, 5, 10, 10]]
    assert [str(problem) for problem in loaded.problems] == ["annotation 5: its id was used before (skipped)"]


def test_bad_polygons_are_dropped_from_an_object_with_good_ones(tmp_path):
    path, images = folder(tmp_path, content(entry(segmentation=[SQUARE, [1, 1]])))
    loaded = annotations.load(path, images)
    assert loaded.annotations[0]["segmentation"] == [SQUARE]
    assert [problem.rule for problem in loaded.problems] == ["dropped"]


def test_a_missing_image_takes_its_objects_with_it(tmp_path):
    path, images = folder(tmp_path, content(entry()))
    (images / "a.png").unlink()
    loaded = annotations.load(path, images)
    assert loaded.images == {} and loaded.annotations == []
    assert [(problem.entry, problem.id) for problem in loaded.problems] == [("image", 7)]


def test_what_is_left_out_is_filled_in(tmp_path):
    bare = entry(segmentation={"size": [HEIGHT, WIDTH], "counts": [100, 40, 460]})
    del bare["area"], bare["iscrowd"]
    path, images = folder(tmp_path, content(bare))
    (kept,) = annotations.load(path, images).annotations
    assert kept["area"] == 40 and kept["iscrowd"] == 0
    assert rle.area(kept["segmentation"]) == 40, "counts became the string that pycocotools takes anywhere"


def test_boxes_are_clipped_silently_when_only_rounding_reaches_out(tmp_path):
    path, images = folder(
        tmp_path, content(entry(bbox=[20, 5, 10.6, 10], segmentation=[[20, 5, 30.6, 5, 30.6, 15, 20, 15]]))
    )
    loaded = annotations.load(path, images)
    assert loaded.annotations[0]["bbox"] == [20, 5, 10, 10] and loaded.problems == []


WHOLE = {
    "expected JSON, got": '{"images": [',
    "got a list (a results file?)": "[]",
    "expected a list under 'annotations', got the keys 'images', 'categories'": {"images": [], "categories": []},
    "at least one entry under 'images'": {"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]},
    "expected height, width, got": {**content(), "images": [{"id": 1, "file_name": "a.png"}]},
    "expected each id once, got 7 twice": {**content(), "images": content()["images"] * 2},
    "expected each id once, got 3 twice": {**content(), "categories": content()["categories"] * 2},
    "height and width in pixels": {**content(), "images": [{**content()["images"][0], "height": 0}]},
    "expected a number or a text as id, got [1]": {**content(), "images": [{**content()["images"][0], "id": [1]}]},
    "inside the image folder, got '../a.png'": {
        **content(),
        "images": [{**content()["images"][0], "file_name": "../a.png"}],
    },
}


@pytest.mark.parametrize("message", WHOLE)
def test_a_file_that_cannot_be_trusted_is_refused_by_name(tmp_path, message):
    path, images = folder(tmp_path, WHOLE[message])
    with pytest.raises(ValueError) as caught:
        annotations.load(path, images)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.json: expected a COCO annotation file, got: No such file"):
        annotations.load(tmp_path / "nothing.json", tmp_path)
    path, _ = folder(tmp_path, content(entry()))
    with pytest.raises(ValueError, match="nowhere: expected the folder of the images"):
        annotations.load(path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.png", "a/../../x.png", "C:\\x.png", "\\x.png", "a\\..\\x.png", "", 3]
)
def test_names_cannot_leave_the_image_folder(name):
    with pytest.raises(ValueError, match="expected a file name"):
        check_name(name, "here")


@pytest.mark.parametrize("name", ["a.png", "b/a.png", "a..png", "...png"])
def test_ordinary_names_pass(name):
    assert check_name(name, "here") == name


def test_runs_of_a_compressed_rle_are_pycocotools_own():
    rng = np.random.default_rng(0)
    for density in (0.02, 0.5, 0.98):
        mask = np.asfortranarray(rng.random((97, 61)) < density).astype(np.uint8)
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff(np.concatenate(([0], edges, [flat.size])))
        expected = runs.tolist() if flat[0] == 0 else [0, *runs.tolist()]
        counts = rle.encode(mask)["counts"].decode()
        assert rle_runs(counts).tolist() == expected
        assert rle_problem({"size": [97, 61], "counts": counts}, 97, 61) is None
        assert "decode" in rle_problem({"size": [97, 61], "counts": counts + "o"}, 97, 61)
        assert rle_problem({"size": [97, 61], "counts": counts[:-3]}, 97, 61) is not None


@pytest.mark.parametrize("counts", ["", "\u20ac", "oooooooooooo1", None, 3, [], ["1"], [-1, 601], [10**30]])
def test_rle_counts_that_do_not_decode_are_refused(counts):
    assert rle_problem({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH) is not None


def test_the_command_lists_problems_and_fails(tmp_path, capsys):
    path, _ = folder(tmp_path, content(entry(1), entry(2, bbox=[5, 5, 0, 0])))
    with pytest.raises(SystemExit) as caught:
        check.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert caught.value.code == 1
    assert f"{path}: annotation 2: box without area [5, 5, 0, 0] (skipped)" in out
    assert "image 7:" in out and "a.png: expected a picture that can be read" in out
    with pytest.raises(SystemExit) as caught:
        check.main([str(tmp_path), "--quick", "--json", str(path), "--images", str(tmp_path / "train")])
    assert caught.value.code == 1 and "a.png" not in capsys.readouterr().out


def test_the_command_on_a_folder_without_annotations(tmp_path):
    with pytest.raises(SystemExit, match="expected annotations/instances_NAME.json"):
        check.main([str(tmp_path)])
