"""The exhibits of multitask, maskloss, maskclass and rpn on tiny networks, and what reports make of them."""

import dataclasses
import pickle

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ablations import cli
from ablations.config.loading import from_hydra
from ablations.config.study import compose_study
from ablations.execution.command import sample_indices, start_study
from ablations.execution.exhibits import exhibits_of, make_exhibit, measure_run
from ablations.execution.run import run_arm
from ablations.exhibits.inference_cost import added_by_masks
from ablations.exhibits.mask_choice import NextClass, OwnChoice, surest
from ablations.records.storage import load_exhibit, save
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.store import stages_of
from models.build import build_detector
from reports.analysis import analyse
from reports.exhibits import problems, sections
from reports.exhibits.competition import mildest_rule
from reports.figures import paired
from reports.figures.style import Figures
from reports.load import read_study

TINY = ["budget=smoke", "budget.seeds=1", "budget.train_images=8", "budget.val_images=4", "device=cpu"]
TINY += ["precision=float32", "budget.rpn.steps=1", "model.proposals=20"]


@pytest.fixture
def exhibit(compose, tmp_path, log):
    """exhibit(study, *overrides) -> the content of its first exhibit, after its runs are done."""

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
        first = exhibits_of(study, runs)[0]
        measured = [measure_run(first, run, log) for run in runs] if first.measures_runs else []
        assert b"torch" not in pickle.dumps(measured), "tensors would go between processes in shared memory"
        measured = pickle.loads(pickle.dumps(measured))
        return make_exhibit(first, measured, log).content

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

    # What hypotheses are about: the branch beside all else, and as many masks as the images have boxes.
    assert list(content["metrics"]) == ["mask-align"] and list(content["metrics"]["mask-align"]) == ["0"]
    added = content["metrics"]["mask-align"]["0"]
    assert added["parameters_added"] == pytest.approx(100 * extra / sum(content["parameters"]["faster-align"].values()))
    masks = variants["mask-align", "best"]["masks_per_image"]
    assert added["multiply_adds_added"] == pytest.approx(100 * masks * mask["per_mask"] / mask["without_masks"])
    study = read_study(tmp_path, "multitask")
    assert study.values("mask-align", "inference_cost.time_added") == {0: added["time_added"]}
    assert study.values("faster-align", "inference_cost.time_added") == {}

    (section,) = sections(analyse(study, resamples=0), Figures(tmp_path / "figures")).values()
    assert section.startswith("## What masks cost at test time") and "| Mask R-CNN, RoIAlign | masks of all" in section
    assert (tmp_path / "figures/inference_cost.svg").is_file()


def test_time_added_by_masks_is_the_median_of_ratios():
    times = {"none": [1.0, 2.0, 4.0], "best": [1.5, 2.0, 5.0]}  # by half, nothing, a quarter
    variants = [
        {"arm": "a", "masks": name, "masks_per_image": 3, "milliseconds": values} for name, values in times.items()
    ]
    content = {
        "variants": variants,
        "parameters": {"a": {"backbone": 60, "box_head": 20, "mask_head": 8}},
        "flops": {"a": {"without_masks": 1000, "per_mask": 50}},
    }
    added = {"parameters_added": 10.0, "multiply_adds_added": 15.0, "time_added": 25.0}
    assert added_by_masks(content, "a") == pytest.approx(added)


def test_the_thresholds_of_the_cost_are_those_of_the_papers_network(compose, tmp_path):
    """ResNet-101-FPN on an image of 800 x 1344 with 1,000 proposals and 100 masks, whose RoIs are of 7 and 14 cells."""
    weights = tmp_path / "weights.pth"
    weights.touch()
    config = from_hydra(compose(["model=r101_fpn", f"model.weights={weights}"]))
    with torch.device("meta"):
        model = build_detector(config.detector, num_classes=80).eval()
        boxes = flops(
            lambda: (model.backbone(torch.zeros(1, 3, 800, 1344)), model.box_head(torch.zeros(1000, 256, 7, 7)))
        )
        masks = flops(lambda: model.mask_head(torch.zeros(100, 256, 14, 14)))
    of_masks = sum(p.numel() for p in model.mask_head.parameters())
    others = sum(p.numel() for p in model.parameters()) - of_masks
    overrides = ["study=multitask"]
    study, _ = compose_study(compose(overrides), overrides, compose)
    paper = {hypothesis.name: (hypothesis.threshold, hypothesis.paper) for hypothesis in study.hypotheses}
    assert paper["parameters"] == (pytest.approx(100 * of_masks / others, abs=0.05),) * 2
    assert paper["multiply-adds"] == (pytest.approx(100 * masks / boxes, abs=0.2),) * 2
    assert paper["time"] == (20, 20)


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.slow
def test_who_chooses_the_mask(exhibit, tmp_path):
    content = exhibit("maskclass", "budget.train.steps=2", "model.score_threshold=0.02")
    assert list(content["metrics"]) == ["specific"]  # one mask for all leaves nothing to choose
    study = read_study(tmp_path, "maskclass")
    assert study.values("specific", "mask_choice.AP_classifier") == study.values("specific", "segm.AP")
    assert 0 <= study.value("specific", 0, "mask_choice.agreement") <= 100
    (section,) = sections(analyse(study, resamples=0), Figures(tmp_path / "figures")).values()
    assert section.startswith("## Who chooses the mask") and "| the mask branch itself: the surest mask |" in section


@pytest.mark.slow
def test_each_rule_of_a_softmax_and_the_mildest(exhibit, tmp_path):
    content = exhibit("maskloss", "budget.train.steps=2", "model.score_threshold=0.02")
    assert set(content["metrics"]) == {"softmax", "sigmoid"}
    study = read_study(tmp_path, "maskloss")
    of_rules = [study.value("softmax", 0, f"competition.AP_{rule}") for rule in ("share", "argmax", "background")]
    assert study.value("softmax", 0, "competition.AP_mildest") == max(of_rules)
    assert study.value("softmax", 0, "competition.AP_background") == study.value("softmax", 0, "segm.AP")
    assert study.values("sigmoid", "competition.AP_mildest") == study.values("sigmoid", "segm.AP")

    analysis, figures = analyse(study, resamples=0), Figures(tmp_path / "figures")
    (section,) = sections(analysis, figures).values()
    assert "| softmax, classes compete | the background alone |" in section and "mildest of the three" in section
    assert mildest_rule(analysis).startswith("The mildest of the softmax's test rules: its class must beat")
    assert paired.paired(analysis, analysis.primary, figures) and analysis.primary == "competition.AP_mildest"


def test_the_surest_mask_is_taken_whatever_the_classifier_says():
    high, low, none = torch.full((2, 2), 3.0), torch.full((2, 2), 0.2), torch.full((2, 2), -1.0)
    few = torch.tensor([[4.0, -4.0], [-4.0, -4.0]])  # a small mask that is surer than a large one
    logits = torch.stack([torch.stack([low, high, none]), torch.stack([few, high, none]), torch.stack([none] * 3)])
    assert surest(logits).tolist() == [2, 1, 1]
    labels = torch.tensor([1, 2, 3])
    chosen = OwnChoice(num_classes=3).probabilities(logits, labels)
    assert torch.equal(chosen, torch.stack([high, few, none]).sigmoid())
    shifted = NextClass(num_classes=3).probabilities(logits, labels)
    assert torch.equal(shifted, torch.stack([high, none, none]).sigmoid())


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
    (section,) = sections(analyse(study, resamples=0), Figures(tmp_path / "figures")).values()
    assert "12 at each cell of stride 16 and 12 at each cell of stride 32" in section
    assert (tmp_path / "figures/anchors.png").is_file() and (tmp_path / "figures/proposals.png").is_file()

    path = tmp_path / "rpn/exhibits/proposals.json"
    save(dataclasses.replace(load_exhibit(path), content={}), path)
    (section,) = sections(analyse(study, resamples=0), Figures(tmp_path / "figures")).values()
    assert "exhibit `proposals` cannot be shown" in section and "run the study again" in section
    path.unlink()
    assert problems(study) == ["The exhibit `proposals` is not made yet."]


@pytest.mark.parametrize("num_images", [1, 5, 12, 13, 300])
def test_reports_draw_other_images_in_other_studies(num_images):
    chosen = {name: sample_indices(name, num_images) for name in ("roialign", "roiops", "maskloss", "fcis", "rpn")}
    for indices in chosen.values():
        assert len(set(indices)) == min(12, num_images) and max(indices) < num_images
    assert sample_indices("roialign", 0) == []  # none may be shown
    assert num_images < 300 or len({tuple(indices) for indices in chosen.values()}) > 3


@pytest.mark.parametrize(
    ("study", "left_out", "kept"),
    [
        ("roialign", ["phase-16", "phase-32"], ["learning"]),
        ("fcis", ["class-leakage", "class-iou"], ["overlap", "learning"]),
    ],
)
def test_other_data_go_without_the_exhibits_that_draw_images_and_without_claims_about_them(
    compose, tmp_path, study, left_out, kept
):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / f"annotations/instances_{split}.json").write_text("{}")
    drawn = cli.prepare_one([f"study={study}"], compose).study
    photographed = cli.prepare_one([f"study={study}", "data=coco", f"data.root={tmp_path}"], compose).study
    names = [item.name for item in drawn.hypotheses]
    assert [item.name for item in photographed.hypotheses] == [name for name in names if name not in left_out]
    assert photographed.exhibits == kept and set(kept) < set(drawn.exhibits) and set(left_out) < set(names)
