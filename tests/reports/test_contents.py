"""Files of a study that are damaged or hostile: each is named and left out, and the rest of the report is written."""

import copy
import json
import os
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from data.segmentation import rle_problem, sound_rles
from reports.contents import log_line, objects_problem, results_problem, truth_problem
from reports.load import read_study
from reports.render import render
from tests.reports.conftest import SIDE, write_study

HUGE = 10**400
BIG = {"size": [100_000, 100_000], "counts": "0"}

NO_JSON = {
    "other bytes": b"\xff\xfe\x00",
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "cut off": b'[{"image_id": 1',
    "empty": b"",
    "5000 digits": b"[" + b"9" * 5000 + b"]",
}
NO_RESULTS = {"a number": 1, "an object": {}, "numbers": [1], "text": "x", "null": None}
ENTRY = {
    "no image": {"image_id": 99},
    "image id 10^30": {"image_id": 10**30},
    "image id as text": {"image_id": "1"},
    "image id true": {"image_id": True},
    "image id a list": {"image_id": [1]},
    "no category": {"category_id": 99},
    "category null": {"category_id": None},
    "box of 10^400": {"bbox": [HUGE, 0, 1, 1]},
    "box of 1e308": {"bbox": [0, 0, 1e308, 1e308]},
    "box of nan": {"bbox": [0, 0, float("nan"), 1]},
    "box of texts": {"bbox": ["0", "0", "1", "1"]},
    "box of three": {"bbox": [0, 0, 1]},
    "box an object": {"bbox": {"x": 1}},
    "box null": {"bbox": None},
    "RLE of 100,000 x 100,000": {"segmentation": BIG},
    "RLE of another size": {"segmentation": {"size": [SIDE, 2 * SIDE], "counts": "0"}},
    "RLE cut off": {"segmentation": {"size": [SIDE, SIDE], "counts": "0P"}},
    "RLE of too few pixels": {"segmentation": {"size": [SIDE, SIDE], "counts": "0"}},
    "RLE with a surrogate": {"segmentation": {"size": [SIDE, SIDE], "counts": "\ud800"}},
    "RLE of 10^400": {"segmentation": {"size": [SIDE, SIDE], "counts": [HUGE]}},
    "RLE without counts": {"segmentation": {"size": [SIDE, SIDE]}},
    "polygon far away": {"segmentation": [[0, 0, 1e9, 0, 0, 1e9]]},
    "polygon of 10^400": {"segmentation": [[0, 0, HUGE, 0, 0, 1]]},
    "polygon of texts": {"segmentation": [["a"] * 6]},
    "segmentation null": {"segmentation": None},
    "segmentation a number": {"segmentation": 7},
}
SCORE = {f"score {score!r:.9}": {"score": score} for score in (None, "0.9", HUGE, float("nan"), [1], True)}
OBJECT = {
    "id of 10^30": {"id": 10**30},
    "id a list": {"id": [1]},
    "area of 10^400": {"area": HUGE},
    "area as text": {"area": "12"},
    "iscrowd as text": {"iscrowd": "0"},
    "box without area": {"bbox": [1, 1, 0, 5]},
}
IMAGE = {
    "100,000 x 100,000": {"width": 100_000, "height": 100_000},
    "no sides": {"width": 0},
    "sides as text": {"height": "256"},
    "image id 10^30": {"id": 10**30},
    "image id twice": {"id": 2},
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    write_study(root, seeds=1)
    return root


@pytest.fixture(scope="module")
def truth(outputs):
    return json.loads((outputs / "roialign/ground_truth.json").read_text())


@pytest.fixture(scope="module")
def results(outputs):
    return json.loads((outputs / "roialign/pool16/seed0/detections.json").read_text())


def changed(rows, changes):
    return [rows[0] | changes, *rows[1:]]


def test_what_is_written_is_right(truth, results):
    assert truth_problem(truth) == results_problem(results, truth) == results_problem([], truth) == ""


@pytest.mark.parametrize("changes", (ENTRY | SCORE).values(), ids=(ENTRY | SCORE).keys())
def test_odd_detections_are_refused(truth, results, changes):
    assert results_problem(changed(results, changes), truth).startswith("expected ")


@pytest.mark.parametrize("content", NO_RESULTS.values(), ids=NO_RESULTS.keys())
def test_other_things_than_detections_are_refused(truth, content):
    assert results_problem(content, truth) == "expected a list of detections"
    assert truth_problem(content).startswith("expected lists of")


@pytest.mark.parametrize("changes", (ENTRY | OBJECT).values(), ids=(ENTRY | OBJECT).keys())
def test_odd_objects_are_refused(truth, changes):
    annotations = changed(truth["annotations"], changes)
    assert truth_problem(truth | {"annotations": annotations}).startswith("expected ")


@pytest.mark.parametrize("changes", IMAGE.values(), ids=IMAGE.keys())
def test_odd_images_and_categories_are_refused(truth, changes):
    assert truth_problem(truth | {"images": changed(truth["images"], changes)}).startswith("expected ")
    assert truth_problem(truth | {"categories": changed(truth["categories"], {"id": 2})}).startswith("expected each id")
    assert truth_problem(truth | {"categories": changed(truth["categories"], {"name": 7})}).startswith("expected ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"step": 3, "loss": 0.5, "x": "text", "y": NaN, "z": [1]}', {"step": 3, "loss": 0.5}),
        ('{"step": 3, "loss": 1' + "0" * 400 + "}", {"step": 3}),
        ('{"step": 1' + "0" * 30 + "}", None),
        ('{"step": "3"}', None),
        ('{"step": true}', None),
        ('{"step": -1}', None),
        ('{"step": ' + "9" * 5000 + "}", None),
        ("[" * 100_000, None),
        ("[3]", None),
        ('{"loss": 1', None),
    ],
)
def test_only_the_numbers_of_a_log_are_used(text, expected):
    assert log_line(text) == expected


def test_batched_and_single_mask_checks_agree():
    """Random bytes and damaged RLEs, against the check of a single one."""
    rng = np.random.default_rng(0)
    counts = [string for string in ("", "0", "o", "PPPPPPP0", "\ud800", "\u00e9")]
    for _ in range(500):
        flat = np.repeat(np.arange(12) % 2, rng.integers(0, 40, 12))
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
        good = _packed([int(run) for run in runs], 20, max(1, -(-flat.size // 20)))
        counts.append(good)
        position = int(rng.integers(len(good)))
        counts.append(good[:position] + chr(int(rng.integers(30, 130))) + good[position + 1 :])
        counts.append(good[:position])
    pixels = rng.integers(1, 20, len(counts)) * 20
    singly = [
        rle_problem({"size": [20, int(size) // 20], "counts": text}, 20, int(size) // 20) is None
        for text, size in zip(counts, pixels, strict=True)
    ]
    assert sound_rles(counts, pixels).tolist() == singly
    totals = np.array([20 * max(1, -(-240 // 20))] * 2)
    assert sound_rles([_packed([100, 140], 20, 12), _packed([0, 240], 20, 12)], totals).all()


def _packed(runs, height, width):
    runs[-1] += height * width - sum(runs)
    return rle.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"].decode()


def bomb(path):
    """A PNG of 60,000 x 60,000 black pixels."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    parts = part(b"IHDR", head), part(b"IDAT", zlib.compress(b"")), part(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.slow
def test_a_report_is_written_of_what_is_left(tmp_path):
    """Every file that is not a record is damaged somewhere; what is damaged is named."""
    folder = write_study(tmp_path, seeds=2)
    results = json.loads((folder / "pool16/seed0/detections.json").read_text())
    for name, damage in zip(("pool16", "align16", "pool32"), list(NO_JSON.values())[:3], strict=True):
        (folder / name / "seed0/detections.json").write_bytes(damage)
    (folder / "pool16/seed1/detections.json").write_text(json.dumps(changed(results, {"segmentation": BIG})))
    (folder / "align16/seed1/detections.json").unlink()
    os.mkfifo(folder / "align16/seed1/detections.json")
    (folder / "pool32/seed1/metrics.jsonl").write_bytes(b'\xff\n{"step": 1, "loss": "x"}\n[3]\n')
    bomb(folder / "samples/1.png")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    study = read_study(tmp_path, "roialign")
    text = render(study, tmp_path / "report", resamples=20).read_text()
    for name in ("pool16", "align16", "pool32"):
        assert f"`{name}/seed0/detections.json` cannot be used" in text
    assert "`samples/1.png` cannot be used" in text and "`align16/seed1/detections.json` cannot be used" in text
    assert "`pool16/seed1/detections.json` cannot be used" in text and "align32/seed0/detections.json" not in text
    assert "36" in text and (tmp_path / "report/report.html").is_file()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 1_000_000  # kB


@pytest.mark.parametrize("damage", NO_JSON.values(), ids=NO_JSON.keys())
def test_files_that_are_no_json_are_refused_by_name(tmp_path, damage):
    folder = write_study(tmp_path, seeds=1, skip=(("align16", 0), ("pool32", 0), ("align32", 0)))
    (folder / "pool16/seed0/detections.json").write_bytes(damage)
    study = read_study(tmp_path, "roialign")
    assert study.detections("pool16", 0) is None and study.refused["pool16/seed0/detections.json"].startswith(
        "expected"
    )
    (folder / "ground_truth.json").write_bytes(damage)
    (folder / "samples/1.png").write_bytes(damage)
    study = read_study(tmp_path, "roialign")
    assert study.ground_truth is None and [image for image, _ in study.sample_images()] == [5]
    assert set(study.refused) == {"ground_truth.json", "samples/1.png"}


def test_pipes_and_pictures_of_another_size_are_refused(tmp_path):
    folder = write_study(tmp_path, seeds=1, skip=(("align16", 0), ("pool32", 0), ("align32", 0)))
    Image.new("RGB", (SIDE, SIDE + 1)).save(folder / "samples/1.png")
    (folder / "samples/5.png").unlink()
    for name in ("samples/5.png", "exhibits/overlap.json", "pool16/seed0/status.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        os.mkfifo(folder / name)
    study = read_study(tmp_path, "roialign")
    assert study.sample_images() == [] and study.exhibit("overlap") is None
    assert "as in the ground truth" in study.refused["samples/1.png"] and "device" in study.refused["samples/5.png"]
    truth = copy.deepcopy(study.ground_truth)
    assert truth_problem(truth) == ""


@pytest.mark.parametrize(
    "content, problem",
    [
        ({"image_ids": [1, 1], "IoU": [50.5, None]}, ""),
        ({"image_ids": []}, ""),
        ([1], "lists by name"),
        ({"image_ids": [1], "IoU": 3}, "lists by name"),
        ({"IoU": [1]}, "image_ids"),
        ({"image_ids": [1], "IoU": [1, 2]}, "length"),
        ({"image_ids": [99], "IoU": [1]}, "ids of evaluated images"),
        ({"image_ids": [[1]], "IoU": [1]}, "ids of evaluated images"),
        ({"image_ids": [1], "IoU": ["1"]}, "numbers or null"),
        ({"image_ids": [1], "IoU": [HUGE]}, "numbers or null"),
        ({"image_ids": [1], "IoU": [float("nan")]}, "numbers or null"),
    ],
)
def test_figures_by_object_are_checked(content, problem):
    found = objects_problem(content, {"images": [{"id": 1}]})
    assert problem in found and bool(found) == bool(problem)
