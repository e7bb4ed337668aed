"""Stages are used only while their files are what was written; damaged ones are rebuilt, and it is said why."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ablations.config.loading import from_hydra
from ablations.errors import TrainingError
from ablations.stages.store import Stages, make_once
from data import digests
from tests.damage import flip_bit

FILES = ["model.safetensors", "train.safetensors", "val.safetensors"]


@pytest.fixture
def stages(compose, tmp_path):
    return Stages(tmp_path / "stages", from_hydra(compose(["budget=smoke"])))


@pytest.fixture
def make(stages, log):
    """make(code) -> how often the stage of the proposals has been made, after one more request for it."""
    made = []

    def content(folder):
        made.append(folder)
        for name in FILES:
            save_file({"boxes": torch.arange(80.0).view(1, 20, 4), "scores": torch.ones(1, 20)}, folder / name)

    def request(code="redo"):
        here = dataclasses.replace(stages, config=dataclasses.replace(stages.config, code=code))
        make_once(here, stages.rpn_folder, FILES, content, log)
        return len(made)

    return request


@pytest.mark.parametrize("code", ["redo", "keep"])
@pytest.mark.parametrize("name", [*FILES, "code.txt", digests.FILE])
def test_a_stage_with_a_flipped_bit_is_rebuilt_with_the_reason(stages, make, log, name, code):
    assert make(code) == make(code) == 1
    flip_bit(stages.rpn_folder / name)
    assert make(code) == 2 and make(code) == 2
    expected = "" if name == digests.FILE else f"{name} is damaged: it is not what was written"
    assert f"{expected}; it is rebuilt" in log.file.getvalue()
    assert (stages.root / "replaced" / f"{stages.rpn_folder.name}-1" / name).exists()


def test_a_stage_that_lost_a_file_is_rebuilt(stages, make, log):
    make()
    (stages.rpn_folder / "val.safetensors").unlink()
    assert make() == 2 and "val.safetensors is missing" in log.file.getvalue()
    shutil.rmtree(stages.rpn_folder)
    assert make() == 3


@pytest.mark.parametrize("damage", ["bit", "gone"])
def test_a_stage_that_is_damaged_after_it_was_checked_is_not_used(stages, make, damage):
    make()
    assert stages.proposals("val").boxes.shape == (1, 20, 4)
    path = stages.rpn_folder / "val.safetensors"
    flip_bit(path) if damage == "bit" else path.unlink()
    with pytest.raises(TrainingError, match=r"rpn-.*: val.safetensors is .*; run the same command again"):
        stages.proposals("val")
    stages.proposals("train")


def test_code_keep_accepts_stages_of_older_versions_which_have_no_digests(stages, make, log):
    make()
    (stages.rpn_folder / digests.FILE).unlink()
    assert make("keep") == 1 and stages.proposals("val").boxes.shape == (1, 20, 4)
    assert make() == 2 and f"{digests.FILE} is missing" in log.file.getvalue()
