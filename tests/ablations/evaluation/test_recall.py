"""Recall of proposals, on boxes that can be counted by hand."""

import pytest
import torch
from safetensors.torch import load_file

from ablations.config.schema import from_hydra
from ablations.errors import ConfigError
from ablations.evaluation.recall import recall
from ablations.records.summary import headline, table
from ablations.stages.make import make_backbone, make_proposals, stages_of
from ablations.tasks.detection import run_arm

TRUTH = {
    "images": [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 100, "height": 100}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [50, 50, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
}


def result(image: int, score: float, *box: float) -> dict:
    return {"image_id": image, "category_id": 1, "score": score, "bbox": list(box)}


def test_recall_counts_objects_that_the_best_proposals_cover():
    proposals = [
        result(1, 0.9, 0, 0, 10, 10),  # the first object exactly
        result(1, 0.8, 0, 0, 10, 10),  # again: one object is covered once
        result(1, 0.7, 50, 50, 10, 7),  # the second, of another class, at an IoU of 0.7
        result(2, 0.1, 0, 0, 20, 12),  # the third at 0.6
    ]
    found = recall(TRUTH, proposals, most=5)
    percent = pytest.approx
    assert found["R50@1"] == percent(200 / 3) and found["R50@3"] == percent(100) == found["R50@5"]
    assert found["R65@3"] == percent(200 / 3) and found["R75@3"] == percent(100 / 3) == found["R95@5"]
    thresholds = [found[f"R{threshold}@3"] for threshold in range(50, 100, 5)]
    assert found["AR@3"] == percent(sum(thresholds) / 10)
    assert "R50@10" not in found


def test_without_proposals_or_objects():
    assert set(recall(TRUTH, [], most=3).values()) == {0.0}
    assert set(recall(TRUTH | {"annotations": []}, [result(1, 0.5, 0, 0, 5, 5)], most=3).values()) == {None}


def test_a_run_of_seed_0_is_the_shared_proposal_network_and_another_seed_is_not(compose, tmp_path, log):
    tiny = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", "budget.rpn.steps=2"]
    tiny += ["budget.backbone.steps=1", f"outputs={tmp_path}", "device=cpu"]
    shared = stages_of(from_hydra(compose(tiny)))
    make_backbone(shared, log)
    make_proposals(shared, log)
    network, cached = load_file(shared.rpn_folder / "model.safetensors"), shared.proposals("val")

    runs = {}
    for seed in (0, 1):
        config = from_hydra(compose([*tiny, "task=proposals", f"seed={seed}"]))
        record = run_arm("rpn", "arm", config, tmp_path / f"seed{seed}", stages_of(config), log)
        assert set(record.stages) == {"backbone"} and record.steps == 2
        assert "average recall" in headline(record) and "R50" in table(record)
        runs[seed] = load_file(tmp_path / f"seed{seed}" / "model.safetensors")
    found = load_file(tmp_path / "seed0" / "proposals.safetensors")
    assert all(torch.equal(runs[0][name], network[name]) for name in network)
    assert torch.equal(found["boxes"], cached.boxes) and torch.equal(found["scores"], cached.scores)
    assert not all(torch.equal(runs[0][name], runs[1][name]) for name in network)


def test_proposals_alone_are_not_trained_jointly(compose):
    with pytest.raises(ConfigError, match="leave rpn at separate"):
        from_hydra(compose(["task=proposals", "rpn=joint"]))
