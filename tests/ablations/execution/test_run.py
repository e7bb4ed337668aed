"""A run from its stages to its record, for settings that leave out or replace parts of the detector."""

import json

import pytest

from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.errors import TrainingError
from ablations.execution.run import run_arm
from ablations.records.storage import load_run
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.store import stages_of

TINY = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", "device=cpu", "precision=float32"]
TINY += [f"budget.{stage}.steps=1" for stage in ("backbone", "rpn", "train")]

MASKS = {"bbox", "segm", "overlap", "true_boxes", "floor_box", "floor_ellipse"}
SETTINGS = {
    "rpn=joint": ({"rpn_objectness", "rpn_box", "class", "box", "mask"}, MASKS),
    "rpn=jitter": ({"class", "box", "mask"}, MASKS),
    "rpn=jitter system=fcis": ({"class", "box", "mask"}, MASKS),
    "mask_head=none": ({"class", "box"}, {"bbox"}),
    "system=fcis": ({"class", "box", "mask"}, MASKS),
}
"""The losses and the kinds of metrics that each setting leads to."""


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "model.safetensors", "detections.json", "config.yaml"])
def test_a_folder_in_place_of_a_file_is_reported_before_training(name, compose, tmp_path, log):
    run = Run("single", "arm", from_hydra(compose([*TINY, f"outputs={tmp_path}"])))
    (run.folder / name).mkdir(parents=True)
    with pytest.raises(TrainingError, match=f"{name}: expected a file or nothing, got a folder; remove it"):
        run_arm(run, log)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_leaves_its_record_and_files(setting, compose, tmp_path, log):
    config = from_hydra(compose([*TINY, *setting.split(), f"outputs={tmp_path}"]))
    run, stages = Run("single", setting, config), stages_of(config)
    make_backbone(stages, log)
    if stages.shares_proposals:
        make_proposals(stages, log)
    record = run_arm(run, log)
    losses, kinds = SETTINGS[setting]
    assert record.losses.keys() == losses and record.metrics.keys() == kinds
    assert record.num_parameters == sum(record.parameters.values())
    assert load_run(run.folder / "run.json").metrics == record.metrics
    assert {path.name for path in run.folder.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "detections.json", "model.safetensors", "run.json"),
        *(["true_boxes.json"] if "segm" in kinds else []),
    }
    assert [json.loads(line)["step"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()] == [0]
