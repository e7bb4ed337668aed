"""The slider's data: outlines as paths that give the masks back, and every arm and seed that has detections."""

import json
import re

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from reports.figures.compare import compare, path_of
from reports.figures.style import Figures
from reports.load import read_study
from reports.scenes import read_scenes
from tests.damage import edit_record
from tests.reports.conftest import write_study


def filled(path: str, size: tuple[int, int]) -> np.ndarray:
    """The mask that a browser would fill: pixels whose centre is inside an odd number of outlines."""
    rows, columns = np.indices(size) + 0.5
    inside = np.zeros(size, bool)
    for line in re.findall(r"M([^Z]+)Z", path):
        steps = np.array(re.findall(r"-?(?:\d+\.?\d*|\.\d+)", line), dtype=float).reshape(-1, 2)
        points = [tuple(point) for point in np.cumsum(steps, axis=0).tolist()]
        centres = np.stack([columns.ravel(), rows.ravel()], 1)
        inside ^= Outline(points).contains_points(centres).reshape(size)
    return inside


@pytest.mark.parametrize("shape", ["disc", "ring", "two", "edge"])
def test_a_path_gives_its_mask_back(shape):
    rows, columns = np.indices((60, 80))
    far = np.hypot(rows - 30, columns - 40)
    mask = {
        "disc": far < 20,
        "ring": (far < 20) & (far > 8),
        "two": (abs(columns - 20) < 5) | (abs(columns - 60) < 9),
        "edge": (rows < 10) & (columns > 50),
    }[shape]
    back = filled(path_of(mask), mask.shape)
    assert (back & mask).sum() / (back | mask).sum() > 0.97
    assert len(path_of(mask)) < 800


def test_a_speck_stays_an_area():
    mask = np.zeros((640, 640), bool)
    mask[100, 200] = mask[300:302, 400] = True
    assert np.array_equal(filled(path_of(mask), mask.shape), mask)


def test_an_empty_mask_has_no_path():
    assert path_of(np.zeros((5, 5), bool)) == ""


def test_every_arm_and_three_seeds_are_there(outputs, tmp_path):
    study = read_study(outputs, "roialign")
    shown = compare(study, read_scenes(study), Figures(tmp_path))
    content = json.loads((tmp_path / "scenes.json").read_text())
    assert [arm["id"] for arm in content["arms"]] == list(study.record.arms) and content["seeds"] == [0, 1, 2]
    assert [scene["picture"] for scene in content["scenes"]] == [f"scene-{image_id}.jpg" for image_id in shown]
    assert "about" not in content and not any("asked" in scene for scene in content["scenes"])
    for scene in content["scenes"]:
        assert (tmp_path / scene["picture"]).is_file() and len(scene["found"]) == 12
        for found in scene["found"].values():
            assert len(found["paths"]) == len(found["ious"]) == len(scene["names"]) == len(scene["truth"])
            assert [path is None for path in found["paths"]] == [iou is None for iou in found["ious"]]


def test_the_slider_knows_which_objects_claims_are_about(tmp_path):
    """At one and a half times the size some of the fixture's objects have a side of more than 96 px."""
    folder = write_study(tmp_path, seeds=1)

    def ask(record):
        record["hypotheses"][0]["metric"] = "true_boxes.IoU_96_px_and_more"
        record["config"]["data"] = {"image_size": 384, "max_size": 384}

    edit_record(folder / "study.json", ask)
    study = read_study(tmp_path, "roialign")
    compare(study, read_scenes(study), Figures(tmp_path / "figures"))
    content = json.loads((tmp_path / "figures/scenes.json").read_text())
    asked = [one for scene in content["scenes"] for one in scene["asked"]]
    assert content["about"] == "objects of 96 px and more" and set(asked) == {True, False}
    assert all(len(scene["asked"]) == len(scene["truth"]) for scene in content["scenes"])
