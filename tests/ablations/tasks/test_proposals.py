"""The task "proposals": a run is the shared proposal network, trained with its own seed."""

import pytest
import torch
from safetensors.torch import load_file
from torchvision.ops import box_iou

from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.errors import ConfigError
from ablations.execution.run import run_arm
from ablations.records.summary import headline, table
from ablations.stages.make import make_backbone, make_proposals
from ablations.stages.proposals import ProposalNetwork
from ablations.stages.store import stages_of
from ablations.tasks.proposals import UNTRAINED, random_boxes, untrained, windows
from models.build import build_backbone, build_rpn_head


def test_seed_0_gives_the_shared_proposal_network_and_another_seed_does_not(compose, tmp_path, log):
    tiny = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", "budget.rpn.steps=2"]
    tiny += ["budget.backbone.steps=1", f"outputs={tmp_path}", "device=cpu"]
    shared = stages_of(from_hydra(compose(tiny)))
    make_backbone(shared, log)
    make_proposals(shared, log)
    network, cached = load_file(shared.rpn_folder / "model.safetensors"), shared.proposals("val")

    runs = {}
    for seed in (0, 1):
        config = from_hydra(compose([*tiny, "task=proposals", f"seed={seed}"]))
        run = Run("rpn", "arm", config)
        record = run_arm(run, log)
        assert set(record.stages) == {"backbone"} and record.steps == 2
        assert "average recall" in headline(record) and "R50" in table(record)
        assert record.metrics.keys() == {"recall", "anchors", "grid", "random"}
        runs[seed] = load_file(run.folder / "model.safetensors")
    saved = load_file(tmp_path / "rpn/arm/seed0/proposals.safetensors")
    assert all(torch.equal(runs[0][name], network[name]) for name in network)
    assert torch.equal(saved["boxes"], cached.boxes) and torch.equal(saved["scores"], cached.scores)
    assert not all(torch.equal(runs[0][name], runs[1][name]) for name in network)


def test_a_joint_rpn_is_refused(compose):
    with pytest.raises(ConfigError, match="rpn: expected separate, got joint"):
        from_hydra(compose(["task=proposals", "rpn=joint"]))


def test_untrained_boxes_are_as_many_inside_the_image_and_spread_out(compose, tmp_path):
    tiny = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", f"outputs={tmp_path}", "device=cpu"]
    stages = stages_of(from_hydra(compose(tiny)))
    backbone = build_backbone(stages.config.model, 16)
    network = ProposalNetwork(backbone, build_rpn_head(stages.config.model, backbone.out_channels, 16))
    by_kind = {kind: untrained(network, stages, "val", kind) for kind in UNTRAINED}
    for proposals in by_kind.values():
        assert proposals.boxes.shape == (4, stages.config.model.proposals, 4) and proposals.valid.all()
        assert proposals.boxes.min() >= 0 and proposals.boxes.max() <= 256
        assert (proposals.scores.diff(dim=1) <= 0).all()
        for boxes in proposals.boxes:
            assert box_iou(boxes, boxes).fill_diagonal_(0).max() <= 0.7
    assert not torch.equal(by_kind["anchors"].boxes[0], by_kind["anchors"].boxes[1])
    again = untrained(network, stages, "val", "random")
    assert torch.equal(by_kind["random"].boxes, again.boxes)


def test_a_grid_of_windows_covers_the_image_and_the_largest_come_first(compose, tmp_path):
    anchors = torch.tensor([[-45.3, -22.6, 45.3, 22.6], [-88.0, -88, 88, 88]])  # areas of 64 x 64 and 176 x 176
    boxes = windows(torch.tensor([256, 320]), anchors)
    sides = (boxes[:, 2:] - boxes[:, :2]).unique(dim=0)
    assert sides.tolist() == [[64, 64], [176, 176]] and len(boxes) == 4 * 5 + 2 * 2
    for side in (64, 176):
        of_size = boxes[boxes[:, 2] - boxes[:, 0] == side]
        assert of_size.amin(0)[:2].tolist() == [0, 0] and of_size.amax(0)[2:].tolist() == [320, 256]

    tiny = ["budget=smoke", "budget.train_images=8", "budget.val_images=4", f"outputs={tmp_path}", "device=cpu"]
    stages = stages_of(from_hydra(compose(tiny)))
    backbone = build_backbone(stages.config.model, 16)
    network = ProposalNetwork(backbone, build_rpn_head(stages.config.model, backbone.out_channels, 16))
    kept = untrained(network, stages, "val", "grid").boxes
    widths = kept[..., 2] - kept[..., 0]
    assert (widths.diff(dim=1) <= 1e-3).all() and widths[0].round().unique().tolist() == [48, 96, 176]
    assert not torch.equal(kept[0], kept[1])  # of one size the order is random


def test_random_boxes_have_sides_and_ratios_of_the_anchors():
    anchors = torch.tensor([[-8.0, -4, 8, 4], [-32, -64, 32, 64]])  # sides 11.3 and 90.5; ratios 1/2 and 2
    boxes = random_boxes(
        torch.rand(500, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 300]), anchors
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    area, ratio = sides.prod(1).sqrt(), sides[:, 1] / sides[:, 0]
    assert 11.3 <= area.min() < 13 and 80 < area.max() <= 90.6
    assert 0.5 <= ratio.min() < 0.53 and 1.9 < ratio.max() <= 2.0001
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    assert (centres >= 0).all() and 290 < centres[:, 0].max() <= 300 and 90 < centres[:, 1].max() <= 100
