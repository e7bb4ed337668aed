"""Proposals made of true boxes: how far they are off, and that nothing but the image decides it."""

from pathlib import Path

import pytest
import torch

from ablations.config.loading import from_hydra, from_settings
from ablations.config.study import Run
from ablations.errors import ConfigError
from ablations.execution.jobs import plan
from ablations.stages.jitter import jittered
from ablations.stages.proposals import proposal_source
from ablations.stages.store import Stages
from data.dataset import Sample, collate

BOXES = {7: [[10.0, 20, 50, 40], [60, 5, 70, 55]], 8: [[0, 0, 96, 64]], 9: []}


def sample(image_id):
    boxes = torch.tensor(BOXES[image_id]).reshape(-1, 4)
    masks = torch.zeros(len(boxes), 64, 96, dtype=torch.uint8)
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    return Sample(image, boxes, torch.ones(len(boxes), dtype=torch.long), masks, image_id)


def proposed(*image_ids, share=0.2, copies=6, least=0, flipped=None):
    return jittered(collate([sample(key) for key in image_ids], flipped=flipped), share, copies, least)


def test_each_side_is_moved_by_up_to_a_share_of_the_box():
    boxes = proposed(7, copies=100).boxes[0].unflatten(0, (2, 100))
    for of_object, (x1, y1, x2, y2) in zip(boxes, BOXES[7], strict=True):
        size = torch.tensor([x2 - x1, y2 - y1] * 2)
        moves = (of_object - torch.tensor([x1, y1, x2, y2])) / size
        inside = moves[:, [0, 2, 3]] if y1 == 5 else moves  # the second object's upper side meets the border
        assert inside.abs().max() <= 0.2 + 1e-5 and inside.min() < -0.15 and inside.max() > 0.15
        assert moves.std(0).min() > 0.05


def test_an_image_has_the_same_proposals_in_whatever_batch_it_comes():
    alone, among = proposed(7), proposed(9, 8, 7)
    assert torch.equal(alone.boxes[0], among.boxes[2]) and torch.equal(alone.scores[0], among.scores[2])
    assert among.scores.sum(1).tolist() == [0, 6, 12]
    assert not torch.equal(alone.boxes[0, :6], alone.boxes[0, 6:])


def test_a_mirrored_image_has_mirrored_proposals():
    plain, mirrored = proposed(7), proposed(7, flipped=[True])
    x1, y1, x2, y2 = plain.boxes.unbind(-1)
    assert torch.allclose(mirrored.boxes, torch.stack([96 - x2, y1, 96 - x1, y2], -1), atol=1e-4)


def test_proposals_stay_in_the_image_and_keep_an_area():
    boxes = proposed(8, share=0.49, copies=100).boxes[0]
    assert boxes.min() >= 0 and (boxes <= torch.tensor([96.0, 64, 96, 64])).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_no_share_gives_the_true_boxes_and_what_is_missing_is_padding():
    proposals = proposed(7, 9, share=0.0, copies=1, least=5)
    assert proposals.boxes.shape == (2, 5, 4) and proposals.boxes[0, :2].tolist() == BOXES[7]
    assert proposals.valid.tolist() == [[True, True, False, False, False], [False] * 5]


def test_the_seed_does_not_change_proposals(compose):
    batch = collate([sample(7)])
    boxes = []
    for seed in (0, 1):
        config = from_hydra(compose(["rpn=jitter", f"seed={seed}", "device=cpu"]))
        boxes.append(proposal_source(Stages(Path("nowhere"), config), "val")(batch).boxes)
    assert torch.equal(*boxes) and boxes[0].shape == (1, 16, 4)


def test_there_is_no_proposal_network_to_make(compose):
    config = from_hydra(compose(["rpn=jitter"]))
    stages = Stages(Path("outputs"), config)
    assert set(stages.keys) == {"backbone", "data"}
    assert [job.name.split()[0] for job in plan([Run("single", "a", config)])] == ["data", "backbone", "single:"]
    assert from_settings(config.settings()).hash() == config.hash()


def test_runs_without_jitter_are_called_what_they_always_were(compose):
    assert "jitter" not in from_hydra(compose([])).settings()
    hashes = {from_hydra(compose(["rpn=jitter", *more])).hash() for more in ([], ["jitter.share=0.1"])}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (["rpn=jitter", "jitter.share=0.5"], "jitter.share: expected a number, 0 or more and less than 0.5, got 0.5"),
        (["rpn=jitter", "jitter.copies=0"], "jitter.copies: expected a whole number, 1 or more"),
        (["rpn=jitter", "task=proposals"], "rpn: expected separate, got jitter: task=proposals trains"),
    ],
)
def test_what_cannot_be_is_refused(compose, overrides, expected):
    with pytest.raises(ConfigError, match=expected):
        from_hydra(compose(overrides))
