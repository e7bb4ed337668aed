"""What tools/playground_pictures.py makes of a backbone; the committed pictures are those of the data set."""

import base64
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.scene import CLASSES, draw_image
from data.specs import ShapesSpec
from models.backbone import fold_batch_norm, toy_backbone
from models.weights import shipped_state

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("playground_pictures", ROOT / "tools" / "playground_pictures.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(0)
    backbone = fold_batch_norm(toy_backbone([4, 6, 8, 10], [1, 2, 1], 12, 32).eval())
    return tool.content(tool.backbone_of(backbone.state_dict()))


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


def test_the_committed_maps_are_those_of_the_shipped_backbone():
    committed = json.loads((ROOT / tool.TARGET).read_text(encoding="utf-8"))
    fresh = tool.content(tool.backbone_of(shipped_state(32)))
    assert committed["channel_numbers"] == {
        str(stride): numbers for stride, numbers in fresh["channel_numbers"].items()
    }
    for one, other in zip(committed["pictures"], fresh["pictures"], strict=True):
        for stride, planes in other["channels"].items():
            for ours, theirs in zip(one["channels"][str(stride)], planes, strict=True):
                levels = [np.frombuffer(base64.b64decode(text), np.uint8).astype(int) for text in (ours, theirs)]
                assert abs(levels[0] - levels[1]).max() <= 1  # another machine adds in another order


def test_another_backbone_is_refused():
    with pytest.raises(ValueError, match="expected a toy backbone of stride 32"):
        tool.backbone_of(shipped_state(16))
