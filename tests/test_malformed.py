"""Damaged configurations, annotation files, images, checkpoints and records: a clear error or the stated rule, always.

By hand where the rule is worth naming, and by hypothesis, which damages good ones in every place: what must come out is
the error class that the command line prints as one line, or a result that can be used. The other files of tests have
the annotation files' rules (data/test_annotations.py) and the settings' messages (ablations/test_config.py).
"""

import copy
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from ablations.config.loading import from_hydra
from ablations.config.schema import CheckpointConfig, Config
from ablations.errors import ConfigError, RecordError
from ablations.records.storage import load_exhibit, load_run, load_status, load_study, save
from ablations.training.checkpoint import Checkpoint, TrainingState
from data import annotations
from data.coco import CocoSpec, load
from data.images import read_image
from reports.load import read_study
from reports.stats.verdicts import verdicts
from tests.reports.conftest import run_record, study_record, write_study

# Files are written anew by each example, so the fixtures that give a folder may be shared by them.
DAMAGE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)

JUNK = st.sampled_from(
    [
        None,
        -1,
        0,
        10**30,
        1e308,
        float("nan"),
        float("inf"),
        True,
        "",
        "x",
        "../../etc",
        "${oc.env:HOME}",
        [],
        [None],
        {},
    ]
)


def places(value, path=()):
    """The paths of all values in nested dictionaries and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def damaged(draw, content):
    """The content with one value replaced by junk, or one key or entry gone."""
    content = copy.deepcopy(content)
    *above, last = draw(st.sampled_from([path for path in places(content) if path]))
    parent = content
    for key in above:
        parent = parent[key]
    if draw(st.booleans()):
        parent[last] = draw(JUNK)
    else:
        del parent[last]
    return content


def scrambled(draw, content: bytes) -> bytes:
    """Bytes that were cut off, flipped, or both."""
    content = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] ^= draw(st.integers(1, 255))
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


@pytest.fixture(scope="module")
def composed():
    import hydra

    from tests.conftest import CONF

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return {
            name: OmegaConf.to_container(hydra.compose("config", overrides), resolve=True)
            for name, overrides in {
                "default": [],
                "fcis": ["system=fcis"],
                "coco": ["data=coco", "data.root=/nowhere"],
            }.items()
        }


@pytest.mark.slow
@DAMAGE
@given(st.data())
def test_a_damaged_configuration_is_refused_or_works(composed, data):
    content = damaged(data.draw, composed[data.draw(st.sampled_from(sorted(composed)))])
    try:
        config = from_hydra(OmegaConf.create(content))
    except ConfigError as error:
        assert all(": " in line for line in str(error).splitlines()) and str(error)
    else:
        assert isinstance(config, Config) and len(config.hash()) == 12


def coco(tmp_path):
    """A small good set: two images, a polygon, an RLE and a crowd region."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir(exist_ok=True)
        for number in (1, 2):
            Image.new("RGB", (40, 30), (number, 50, 90)).save(tmp_path / split / f"{number}.png")
    (tmp_path / "annotations").mkdir(exist_ok=True)
    square = {"category_id": 3, "bbox": [5, 5, 10, 10], "area": 100, "iscrowd": 0}
    polygon = {"segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]}
    runs = {"segmentation": {"size": [30, 40], "counts": [150, 10, 20, 10, 1010]}}
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 30, "width": 40} for n in (1, 2)],
        "categories": [{"id": 3, "name": "thing"}, {"id": 5, "name": "other"}],
        "annotations": [
            {"id": 1, "image_id": 1, **square, **polygon},
            {"id": 2, "image_id": 2, **square, **runs},
            {"id": 3, "image_id": 2, **square, **runs, "iscrowd": 1},
        ],
    }
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return content, tmp_path / "annotations" / "instances_train.json"


def use(folder):
    """Every image with its objects, and the ground truth that pycocotools gets."""
    dataset = load(CocoSpec(root=str(folder), image_size=32, max_size=64), "train")
    for index in range(len(dataset)):
        sample = dataset[index]
        assert len(sample.boxes) == len(sample.labels) == len(sample.masks) and torch.isfinite(sample.boxes).all()
    return dataset.coco


@DAMAGE
@given(st.data())
def test_a_damaged_annotation_file_is_refused_or_cleaned(tmp_path, data):
    content, path = coco(tmp_path)
    path.write_text(json.dumps(damaged(data.draw, content)))
    try:
        use(tmp_path)
    except ValueError as error:
        assert str(tmp_path) in str(error)


@DAMAGE
@given(st.data())
def test_scrambled_annotation_bytes_are_refused_or_cleaned(tmp_path, data):
    _, path = coco(tmp_path)
    path.write_bytes(scrambled(data.draw, path.read_bytes()))
    try:
        annotations.load(path, tmp_path / "train")
    except ValueError as error:
        assert str(tmp_path) in str(error)


def picture(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


PICTURES = [picture("png"), picture("jpeg"), picture("jpeg", progressive=True), picture("gif"), picture("tiff")]


@DAMAGE
@given(st.data())
def test_a_damaged_image_is_refused_or_read(tmp_path, data):
    path = tmp_path / "picture"
    path.write_bytes(scrambled(data.draw, data.draw(st.sampled_from(PICTURES))))
    try:
        image = read_image(path, 30, 40)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert (image.size, image.mode) == ((40, 30), "RGB")


HUGE = b"P6 60000 60000 255\n"
ODD = {
    "nothing": b"",
    "text": b"a picture",
    "html": b"<html>404</html>",
    "an archive": b"PK\x03\x04" + bytes(100),
    "huge": HUGE,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "other size": b"P6 3 2 255\n" + bytes(18),
    "half": picture("png")[:500],
    "float": io.BytesIO(),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_image_file_is_named(tmp_path, kind):
    path = tmp_path / "picture"
    if kind == "float":
        Image.fromarray(np.zeros((30, 40), np.float32)).save(path, "tiff")
    else:
        path.write_bytes(ODD[kind])
    with pytest.raises(ValueError, match="picture: expected"):
        read_image(path, 30, 40)


def write_checkpoint(path, log, owner="me"):
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = Checkpoint(path, owner, CheckpointConfig(), log)
    state = TrainingState(step=7, seconds=3.5, logged=[(0, {"loss": 1.5})], tail=[{"loss": 1.0}])
    checkpoint.write(state, module, optimizer)
    return state


@DAMAGE
@given(st.data())
def test_a_damaged_checkpoint_counts_as_none_and_an_undamaged_one_as_it_is(tmp_path, log, data):
    path = tmp_path / "checkpoint"
    state = write_checkpoint(path, log)
    good = path.read_bytes()
    path.write_bytes(scrambled(data.draw, good))
    log.file = io.StringIO()
    checkpoint = Checkpoint(path, "me", CheckpointConfig(), log)
    if checkpoint.state.step:
        assert (checkpoint.state.step, checkpoint.state.logged) == (state.step, state.logged)
    else:
        assert path.read_bytes() != good and "training starts from the beginning" in log.file.getvalue()


LOADERS = {"run": load_run, "study": load_study, "status": load_status, "exhibit": load_exhibit}


@pytest.fixture(scope="module")
def good_records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    save(run_record("pool16", 0), folder / "run")
    save(study_record(2), folder / "study")
    status = {"name": "x", "state": "done", "message": "", "step": 1, "steps": 2, "resumed": 0, "pid": 3, "host": "h"}
    (folder / "status").write_text(json.dumps(status | {"started": "2026", "updated": "2026", "schema": 1}))
    exhibit = {"name": "x", "study": "s", "runs": {}, "content": {}, "provenance": {}, "schema": 1}
    (folder / "exhibit").write_text(json.dumps(exhibit))
    records = {name: json.loads((folder / name).read_text()) for name in LOADERS}
    return {name: record | {"digest": ""} for name, record in records.items()}


@pytest.mark.parametrize("kind", LOADERS)
@settings(DAMAGE, max_examples=25)
@given(data=st.data())
def test_a_damaged_record_is_refused_by_name_or_is_of_the_right_types(tmp_path, good_records, kind, data):
    path = tmp_path / "record.json"
    content = damaged(data.draw, good_records[kind])
    text = json.dumps(content).encode()
    path.write_bytes(scrambled(data.draw, text) if data.draw(st.booleans()) else text)
    try:
        record = LOADERS[kind](path)
    except RecordError as error:
        assert str(path) in str(error) and "delete it and run" in str(error)
    else:
        assert record is None or isinstance(getattr(record, "provenance", {}), dict)


@settings(DAMAGE, max_examples=25)
@given(data=st.data())
def test_a_study_with_a_damaged_record_is_judged_without_it(tmp_path, good_records, data):
    folder = tmp_path / "roialign"
    if not folder.exists():
        write_study(tmp_path, seeds=2)
        (folder / "good").write_bytes((folder / "pool16" / "seed0" / "run.json").read_bytes())
    content = damaged(data.draw, json.loads((folder / "good").read_text()) | {"digest": ""})
    (folder / "pool16" / "seed0" / "run.json").write_text(json.dumps(content))
    study = read_study(tmp_path, "roialign")
    assert len(study.runs) + len([item for item in study.problems if item.kind != "unplanned"]) == 8
    assert len(verdicts(study)) == len(study.record.hypotheses)
