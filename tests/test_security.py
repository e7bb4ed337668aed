"""What files from others cannot do: run code, leave their folder, reach a shell. (What they may name, and archives, are
tested in data/test_annotations.py, data/test_download.py and ablations/test_export.py; secrets in test_smoke.py.)"""

import ast
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ablations.config.schema import CheckpointConfig
from ablations.errors import RecordError
from ablations.records.storage import load_run
from ablations.training.checkpoint import Checkpoint
from data import annotations
from data.shapes import ShapesSpec, cache

ROOT = Path(__file__).parent.parent
SOURCES = [
    ROOT / "run.py",
    *(p for part in ("ablations", "data", "models", "ops", "reports") for p in (ROOT / part).rglob("*.py")),
]

# Modules and functions that run code found in data, and calls of a shell.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
FORBIDDEN_CALLS |= {"yaml.full_load", "torch.hub.load", "subprocess.getoutput", "shutil.unpack_archive"}

# What submitit's jobs say to the process that started them goes through a folder that nobody else may write.
BETWEEN_OWN_PROCESSES = {"ablations/execution/cluster.py"}


def calls(tree):
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def value_of(call, name):
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles_evaluates_or_calls_a_shell(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if str(path.relative_to(ROOT)) not in BETWEEN_OWN_PROCESSES:
            assert not {name.partition(".")[0] for name in names} & FORBIDDEN_MODULES
    for name, call in calls(tree):
        assert name not in FORBIDDEN_CALLS, f"line {call.lineno}: {name}"
        if name in ("np.load", "numpy.load"):
            assert value_of(call, "allow_pickle") == "False", f"line {call.lineno}"
        if name == "torch.load":  # of weights that others publish: tensors and nothing else
            assert value_of(call, "weights_only") == "True", f"line {call.lineno}"
        if name.startswith("subprocess."):
            assert value_of(call, "shell") is None and isinstance(call.args[0], ast.List), f"line {call.lineno}"


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_in_the_place_of_our_files_are_not_unpickled(tmp_path, log):
    bomb = tmp_path / "exploded"
    for name in ("checkpoint", "run.json"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(bomb)))
    assert Checkpoint(tmp_path / "checkpoint", "me", CheckpointConfig(), log).state.step == 0
    with pytest.raises(RecordError):
        load_run(tmp_path / "run.json")
    spec = ShapesSpec(num_train=1, num_val=1)
    good = cache(spec, "val", tmp_path / "data")
    (labels,) = (tmp_path / "data").glob("*/labels.npy")
    np.save(labels, np.array([Bomb(bomb)], object), allow_pickle=True)
    assert np.array_equal(cache(spec, "val", tmp_path / "data").labels, good.labels)
    assert not bomb.exists()
    pickle.loads((tmp_path / "checkpoint").read_bytes())
    assert bomb.exists(), "the bomb would have worked"


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..", "train/../../secret.png"])
def test_an_annotation_file_cannot_name_a_file_outside_its_folder(tmp_path, name):
    (tmp_path / "train").mkdir()
    (tmp_path / "secret.png").touch()
    image = {"id": 1, "file_name": name, "height": 2, "width": 2}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="inside the image folder"):
        annotations.load(tmp_path / "a.json", tmp_path / "train")
