"""Files that are not what they should be, at every entrance that reads one: named in a sentence, never a traceback.

With the sets of data/odd_sets.py, the files of reports/test_contents.py and the commands of
test_malformed_commands.py these are the project's malformed inputs by name; test_malformed.py damages good ones at
random.
"""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save, save_file

from ablations import predict
from ablations.config.loading import from_hydra
from ablations.config.schema import CheckpointConfig
from ablations.errors import TrainingError
from ablations.stages.store import Stages
from ablations.training.checkpoint import Checkpoint
from ablations.training.device import cpu_state_dict
from data import check
from models.build import build_detector
from models.initialise import initialise
from tests.commands import command
from tests.data.coco_sets import HEIGHT, WIDTH, good, write
from tests.test_malformed import write_checkpoint

GOOD = json.dumps(good())
DEEP = "[" * 100_000 + "]" * 100_000


def without(key):
    return json.dumps({name: value for name, value in good().items() if name != key})


def replaced(key, value):
    return json.dumps(good() | {key: value})


# What the annotation file holds, and what is said of it; "" where it is read as it is meant.
ANNOTATIONS = {
    "nothing": ("", "expected JSON"),
    "blanks": (" \n", "expected JSON"),
    "text": ("a file", "expected JSON"),
    "web page": ("<!DOCTYPE html><html>404</html>", "expected JSON"),
    "XML": ("<?xml version='1.0'?><annotation/>", "expected JSON"),
    "CSV": ("image,x,y,w,h\n1.png,1,2,3,4\n", "expected JSON"),
    "JSON lines": (GOOD + "\n" + GOOD, "expected JSON"),
    "cut off": (GOOD[: len(GOOD) // 2], "is the file complete?"),
    "comma at the end": (GOOD[:-1] + ",}", "expected JSON"),
    "single quotes": (GOOD.replace('"', "'"), "expected JSON"),
    "comment": ("// made by a tool\n" + GOOD, "expected JSON"),
    "null bytes": (bytes(1000), "expected JSON"),
    "archive": (b"PK\x03\x04" + bytes(100), "expected JSON"),
    "compressed": (b"\x1f\x8b\x08" + bytes(100), "expected JSON in UTF-8"),
    "Latin-1": (GOOD.replace("cat", "K\u00e4tzchen").encode("latin-1"), "save the file as UTF-8"),
    "Shift-JIS": (GOOD.replace("cat", "\u732b").encode("shift-jis"), "save the file as UTF-8"),
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + GOOD.encode(), ""),
    "UTF-16": (GOOD.encode("utf-16"), ""),
    "UTF-16 cut off": (GOOD.encode("utf-16")[:-1], "save the file as UTF-8"),
    "nested deeply": (DEEP, "nested too deeply"),
    "nested deeply within": (GOOD[:-1] + f', "info": {DEEP}}}', "nested too deeply"),
    "number of 5000 digits": (replaced("info", 1)[:-2] + "9" * 5000 + "}", "expected JSON"),
    "list": ("[]", "(a results file?)"),
    "number": ("1", "expected an object with images, annotations and categories, got a int"),
    "null": ("null", "got a NoneType"),
    "string": ('"images"', "got a str"),
    "empty object": ("{}", "expected a list under 'images', got the keys none"),
    "no images": (without("images"), "expected a list under 'images'"),
    "no annotations": (without("annotations"), "expected a list under 'annotations'"),
    "no categories": (without("categories"), "expected a list under 'categories'"),
    "images an object": (replaced("images", {"1": {}}), "expected a list under 'images'"),
    "annotations null": (replaced("annotations", None), "expected a list under 'annotations'"),
    "annotations of numbers": (replaced("annotations", [1, None, "x", []]), "expected an object, got 1"),
    "no annotation": (replaced("annotations", []), "no object can be used"),
    "no image": (replaced("images", []), "expected at least one entry under 'images'"),
    "images of numbers": (replaced("images", [1]), "images[0]: expected"),
    "categories of texts": (replaced("categories", ["cat"]), "categories[0]: expected"),
    "other keys": (replaced("licenses", "x"), ""),
    "a set of another tool": ('{"shapes": [], "imagePath": "1.png"}', "got the keys 'shapes', 'imagePath'"),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_an_annotation_file(tmp_path, name):
    content, said = ANNOTATIONS[name]
    write(tmp_path, content)
    code, out, err = command(check.main, [str(tmp_path), "--quick"])
    assert (code, err) == ((1 if said else 0), "") and said in out
    assert "instances_train.json" in out and ("no problems" in out) == (not said)


def test_a_pipe_and_a_folder_as_annotation_file(tmp_path):
    write(tmp_path, good())
    path = tmp_path / "annotations/instances_train.json"
    path.unlink()
    os.mkfifo(path)
    assert "got a folder or a device" in command(check.main, [str(tmp_path), "--quick"])[1]
    path.unlink()
    path.mkdir()
    assert "got a folder or a device" in command(check.main, [str(tmp_path), "--quick"])[1]


def picture(kind="png", mode="RGB", size=(WIDTH, HEIGHT), **options):
    buffer = io.BytesIO()
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], *channels), np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height):
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def tiff(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "tiff")
    return buffer.getvalue()


UNREAD = "expected a picture that can be read"
PICTURES = {
    "nothing": (b"", UNREAD),
    "text": (b"a picture", UNREAD),
    "web page": (b"<html>404</html>", UNREAD),
    "archive": (b"PK\x03\x04" + bytes(100), UNREAD),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UNREAD),
    "null bytes": (bytes(5000), UNREAD),
    "pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", UNREAD),
    "PNG cut off": (picture()[:500], UNREAD),
    "PNG header": (picture()[:8], UNREAD),
    "JPEG cut off": (picture("jpeg")[:300], UNREAD),
    "GIF cut off": (picture("gif", "L")[:60], UNREAD),
    "PNG with other bytes": (picture()[:100] + b"\xff" * 50 + picture()[150:], UNREAD),
    "60,000 x 60,000": (png_header(60_000, 60_000), UNREAD),
    "PPM of 60,000 x 60,000": (b"P6 60000 60000 255\n", UNREAD),
    "no pixel": (png_header(0, 0), UNREAD),
    "floating point": (tiff(np.zeros((HEIGHT, WIDTH), np.float32)), UNREAD),
    "32 bits": (tiff(np.full((HEIGHT, WIDTH), 2**30, np.int32)), UNREAD),
    "turned": (picture(size=(HEIGHT, WIDTH)), f"expected {WIDTH} x {HEIGHT} pixels as the annotations say"),
    "larger": (picture(size=(2 * WIDTH, 2 * HEIGHT)), "correct the annotation file"),
    "a pixel less": (picture(size=(WIDTH - 1, HEIGHT)), "correct the annotation file"),
    "16 bits, 12 in use": (tiff(np.full((HEIGHT, WIDTH), 4000, np.uint16)), "scaled by those bits"),
    "grey": (picture(mode="L"), ""),
    "transparent": (picture(mode="RGBA"), ""),
    "JPEG named PNG": (picture("jpeg"), ""),
    "progressive": (picture("jpeg", progressive=True), ""),
    "palette": (picture("gif", "L"), ""),
    "WebP": (picture("webp"), ""),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture(tmp_path, name):
    content, said = PICTURES[name]
    write(tmp_path, good())
    (tmp_path / "train/1.png").write_bytes(content)
    code, out, err = command(check.main, [str(tmp_path)])
    assert (code, err) == ((1 if said else 0), "")
    assert not said or any("image 1:" in line and said in line for line in out.splitlines())


def test_a_pipe_as_picture(tmp_path):
    write(tmp_path, good())
    (tmp_path / "train/1.png").unlink()
    os.mkfifo(tmp_path / "train/1.png")
    code, out, _ = command(check.main, [str(tmp_path)])
    assert code == 1 and "image 1: no file" in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "shift-jis", "utf-8", "utf-16"])
def test_a_name_that_the_terminal_cannot_show(tmp_path, encoding):
    """It says nothing about the set, whose verdict stays what it is."""
    content = good()
    content["categories"][0]["name"] = content["categories"][1]["name"] = "\u732b \U0001f408"
    write(tmp_path, content)
    code, out, err = command(check.main, [str(tmp_path)], encoding)
    assert (code, err) == (1, "") and out.count("is that of category 1 too") == 2


HEADER = struct.Struct("<Q")
CHECKPOINTS = {
    "nothing": b"",
    "text": b"a checkpoint",
    "pickle": b"\x80\x04\x95",
    "archive": b"PK\x03\x04" + bytes(100),
    "null bytes": bytes(200),
    "header of 2^60 bytes": HEADER.pack(2**60) + b"{}",
    "header that is no JSON": HEADER.pack(4) + b"text",
    "header nested deeply": HEADER.pack(len(DEEP)) + DEEP.encode(),
    "no metadata": save({"weight": torch.zeros(2)}),
    "no digest": save({"weight": torch.zeros(2)}, {"owner": "me", "progress": "{}"}),
    "another digest": save({"weight": torch.zeros(2)}, {"owner": "me", "progress": "{}", "digest": "0"}),
    "tensors beyond the end": HEADER.pack(60) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}     ',
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint(tmp_path, log, name):
    path = tmp_path / "checkpoint"
    path.write_bytes(CHECKPOINTS[name])
    assert Checkpoint(path, "me", CheckpointConfig(), log).state.step == 0
    assert "training starts from the beginning" in log.file.getvalue()


def test_a_checkpoint_of_another_run_a_pipe_and_a_folder(tmp_path, log):
    path = tmp_path / "checkpoint"
    write_checkpoint(path, log, owner="another")
    assert Checkpoint(path, "me", CheckpointConfig(), log).state.step == 0
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        with pytest.raises(TrainingError, match="expected a file, the checkpoint"):
            Checkpoint(path, "me", CheckpointConfig(), log)


TINY = [
    "model.weights=scratch", "budget=smoke", "precision=float32", "model.channels=[4,8,8,8]", "model.blocks=[1,1,1]",
    "model.roi_channels=8", "model.shared_channels=8", "model.shared_depth=1", "model.box_hidden=8",
    "mask_head.channels=8",
]  # fmt: skip


@pytest.fixture
def run(tmp_path, compose):
    """The folder of a run on shared proposals, without them; and their folder."""
    config = from_hydra(compose(TINY))
    model = build_detector(config.detector, 8)
    initialise(model, 0)
    folder = tmp_path / "outputs/single/default/seed0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.settings()))
    save_file(cpu_state_dict(model.state_dict()), folder / "model.safetensors")
    return folder, Stages(tmp_path / "outputs/stages", config).rpn_folder


WEIGHTS = {
    "nothing": b"",
    "text": b"weights",
    "pickle": b"\x80\x04\x95",
    "archive": b"PK\x03\x04" + bytes(100),
    "header of 2^60 bytes": HEADER.pack(2**60) + b"{}",
    "header nested deeply": HEADER.pack(len(DEEP)) + DEEP.encode(),
    "others": save({"weight": torch.zeros(2)}),
    "none": save({}),
    "cut off": save({"weight": torch.zeros(2)})[:-3],
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("place", ["run", "stage", "file", "old file"])
def test_weights(tmp_path, run, name, place):
    folder, stage = run
    stage.mkdir(parents=True)
    files = {
        "run": folder / "model.safetensors",
        "stage": stage / "model.safetensors",
        "file": tmp_path / "weights.safetensors",
        "old file": tmp_path / "weights.pth",
    }
    files[place].write_bytes(WEIGHTS[name])
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    checkpoint = folder if place in ("run", "stage") else files[place]
    code, _, err = command(predict.main, [str(checkpoint), str(tmp_path / "1.png"), "--out", str(tmp_path / "out")])
    assert code == 2 and err.startswith("error: ") and str(files[place].parent) in err and len(err.splitlines()) == 1
    assert "weights_only=False" not in err


SETTINGS = {
    "nothing": "",
    "text": "settings",
    "list": "[1, 2]",
    "other settings": "a: 1",
    "no YAML": "a: [",
    "an object of Python": "!!python/object/apply:os.system ['true']",
    "other bytes": "\udcff",
    "a reference to itself": "a: &a [*a]",
    "null bytes": "\0\0",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_a_run(tmp_path, run, name):
    folder, _ = run
    (folder / "config.yaml").write_bytes(SETTINGS[name].encode("utf-8", "surrogateescape"))
    code, _, err = command(predict.main, [str(folder), "1.png"])
    assert code == 2 and err.startswith("error: ") and "config.yaml" in err
