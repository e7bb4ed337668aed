"""What tools/playground_pictures.py makes of a trunk, and whether the committed pictures are those of the data set."""

import base64
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data.scene import CLASSES, draw_image
from data.specs import ShapesSpec
from models.backbone import fold_batch_norm, toy_trunk

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("playground_pictures", ROOT / "tools" / "playground_pictures.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    torch.manual_seed(0)
    trunk = fold_batch_norm(toy_trunk([4, 6, 8, 10], [1, 2, 1], 12, 32).eval())
    path = tmp_path_factory.mktemp("trunk") / "model.safetensors"
    save_file(trunk.state_dict(), path)
    return tool.content(tool.read_trunk(path))


def test_maps_have_a_byte_for_every_cell_and_use_their_range(content):
    for picture in content["pictures"]:
        for stride, planes in picture["channels"].items():
            assert len(planes) == len(content["channel_numbers"][stride]) == tool.CHANNELS
            for plane in planes:
                levels = base64.b64decode(plane)
                assert len(levels) == (content["side"] // stride) ** 2
                assert max(levels) == 255 or set(levels) == {0}


def test_runs_are_those_of_the_mask():
    mask = np.array([[True, True, False], [False, True, False]])
    assert tool.runs(mask) == [0, 2, 2, 1, 1]
    assert tool.runs(~mask) == [2, 2, 1, 1]


def test_the_committed_pictures_are_those_of_the_data_set():
    committed = json.loads((ROOT / tool.TARGET).read_text(encoding="utf-8"))
    assert len(committed["pictures"]) == len(tool.IMAGES)
    for index, picture in zip(tool.IMAGES, committed["pictures"], strict=True):
        drawing = draw_image(ShapesSpec(), "val", index)
        names = [CLASSES[label - 1] for label in drawing.labels]
        assert [item["name"] for item in picture["objects"]] == names
        assert [tuple(item["box"]) for item in picture["objects"]] == drawing.boxes
        assert [item["runs"] for item in picture["objects"]] == [tool.runs(crop) for crop in drawing.crops]


def test_another_trunk_is_refused(tmp_path):
    save_file(toy_trunk([4, 6, 8], [1, 1], 12, 16).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(SystemExit, match="expected a toy trunk of stride 32, with five stages, got 4"):
        tool.read_trunk(tmp_path / "model.safetensors")
