"""The exhibits of the studies multitask and rpn, on tiny networks, and the sections that reports make of them."""

import dataclasses

import pytest

from ablations.config.study import compose_study
from ablations.execution.command import sample_indices, start_study
from ablations.execution.exhibits import exhibits_of, make_exhibit
from ablations.execution.run import run_arm
from ablations.records.storage import load_exhibit, save
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.store import stages_of
from reports.analysis import analyse
from reports.exhibits import problems, sections
from reports.figures.style import Figures
from reports.load import read_study

TINY = ["budget=smoke", "budget.seeds=1", "budget.train_images=8", "budget.val_images=4", "device=cpu"]
TINY += ["budget.rpn.steps=1", "model.proposals=20"]


@pytest.fixture
def exhibit(compose, tmp_path, log):
    """exhibit(study, *overrides) -> the content of its exhibit, after its runs are done."""

    def make(name, *more):
        overrides = [f"study={name}", *TINY, *more, f"outputs={tmp_path}"]
        study, runs = compose_study(compose(overrides), overrides, compose)
        start_study(study, runs)
        for run in runs:
            stages = stages_of(run.config)
            make_backbone(stages, log)
            if stages.shares_proposals:
                make_proposals(stages, log)
            run_arm(run, log)
        (only,) = exhibits_of(study, runs)
        return make_exhibit(only, log).content

    return make


@pytest.mark.slow
def test_the_cost_of_masks(exhibit, tmp_path):
    content = exhibit("multitask", "budget.train.steps=1", "model.score_threshold=0.02")
    variants = {(item["arm"], item["masks"]): item for item in content["variants"]}
    assert set(variants) == {
        ("faster-pool", "none"),
        ("faster-align", "none"),
        ("mask-align", "none"),
        ("mask-align", "best"),
        ("mask-align", "all"),
    }
    assert all(len(item["milliseconds"]) == 4 and min(item["milliseconds"]) > 0 for item in variants.values())
    assert variants["mask-align", "none"]["masks_per_image"] == 0
    assert 1 <= variants["mask-align", "best"]["masks_per_image"] <= 100
    assert variants["mask-align", "all"]["masks_per_image"] == 20

    faster, mask = content["flops"]["faster-align"], content["flops"]["mask-align"]
    assert faster["without_masks"] == mask["without_masks"] == content["flops"]["faster-pool"]["without_masks"]
    # A mask passes four 3x3 convolutions at 7x7 (96 to 48 channels, then 48), a 2x2 deconvolution to 64, and a 1x1.
    shared, branch = 9 * 48 * (96 + 3 * 48) * 49, (4 * 48 * 64 * 49 + 64 * 8 * 196)
    assert mask["per_mask"] == 2 * (shared + branch)
    extra = sum(content["parameters"]["mask-align"].values()) - sum(content["parameters"]["faster-align"].values())
    assert extra == content["parameters"]["mask-align"]["mask_head"] > 0

    (section,) = sections(analyse(read_study(tmp_path, "multitask"), resamples=0), Figures(tmp_path / "figures"))
    assert section.startswith("## What masks cost at test time") and "| Mask R-CNN, RoIAlign | masks of all" in section
    assert (tmp_path / "figures/inference_cost.png").is_file()


@pytest.mark.slow
def test_anchors_and_proposals(exhibit, tmp_path):
    content = exhibit("rpn")
    assert {name: arm["stride"] for name, arm in content["arms"].items()} == {"stride-16": 16, "stride-32": 32}
    for arm in content["arms"].values():
        assert len(arm["cell_anchors"]) == 12 and len(arm["images"]) == 4
        for image in arm["images"]:
            cells = 256 // arm["stride"]
            assert len(image["objectness"]) == len(image["objectness"][0]) == cells and image["scale"] == [1, 1]
            assert image["scores"] == sorted(image["scores"], reverse=True)
            assert 0 < len(image["proposals"]) == len(image["scores"]) <= 10
            assert all(0 <= value <= 256 for box in image["proposals"] for value in box)

    study = read_study(tmp_path, "rpn")
    assert problems(study) == []
    (section,) = sections(analyse(study, resamples=0), Figures(tmp_path / "figures"))
    assert "12 at each cell of stride 16 and 12 at each cell of stride 32" in section
    assert (tmp_path / "figures/anchors.png").is_file() and (tmp_path / "figures/proposals.png").is_file()

    path = tmp_path / "rpn/exhibits/proposals.json"
    save(dataclasses.replace(load_exhibit(path), content={}), path)
    (section,) = sections(analyse(study, resamples=0), Figures(tmp_path / "figures"))
    assert "exhibit `proposals` cannot be shown" in section and "run the study again" in section
    path.unlink()
    assert problems(study) == ["The exhibit `proposals` is not made yet."]


@pytest.mark.parametrize("num_images", [1, 5, 12, 13, 300])
def test_reports_draw_other_images_in_other_studies(num_images):
    chosen = {name: sample_indices(name, num_images) for name in ("roialign", "roiops", "maskloss", "fcis", "rpn")}
    for indices in chosen.values():
        assert len(set(indices)) == min(12, num_images) and max(indices) < num_images
    assert num_images < 300 or len({tuple(indices) for indices in chosen.values()}) > 3
