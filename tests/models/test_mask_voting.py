"""Mask voting on masks made by hand."""

import torch

from models.mask_voting import vote, voting_weights


def test_those_that_overlap_enough_vote_by_their_probability_of_the_class():
    detections = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 0, 0]]])
    labels = torch.tensor([[1, 2, 1, 0]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.9], [50, 50, 60, 60]]])  # IoU 1, 0.5, 0.49, 0
    probabilities = torch.tensor([[[0.6, 0.1], [0.2, 0.3], [0.9, 0.9], [0.0, 0.5]]])
    weights = voting_weights(detections, labels, boxes, probabilities, 0.5)
    expected = [[0.75, 0.25, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(weights[0], torch.tensor(expected))


def test_votes_are_binary_and_fall_only_within_the_voters_box():
    detection = torch.tensor([[[0.0, 0, 8, 8]]])
    boxes = torch.tensor([[[0.0, 0, 8, 8], [4, 0, 12, 8]]])
    masks = torch.stack([torch.full((2, 2), 0.45), torch.full((2, 2), 0.9)])[None]
    share = vote(detection, boxes, masks, torch.tensor([[[0.7, 0.3]]]), 4, threshold=0.4)
    torch.testing.assert_close(share[0, 0], torch.tensor([[0.7, 0.7, 1.0, 1.0]]).expand(4, -1))
    share = vote(detection, boxes, masks, torch.tensor([[[0.7, 0.3]]]), 4, threshold=0.5)
    torch.testing.assert_close(share[0, 0], torch.tensor([[0.0, 0.0, 0.3, 0.3]]).expand(4, -1))


def test_a_single_voter_with_the_detections_own_box_gives_its_mask():
    """Checkerboards would be smoothed by the interpolation: a mask of whole quarters is not."""
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, 2:] = 1
    box = torch.tensor([[[3.0, 5.0, 21.0, 11.0]]])
    share = vote(box, box, mask, torch.ones(1, 1, 1), 8, threshold=0.5)
    assert torch.equal(share[0, 0], mask[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_images_and_portions_do_not_mix(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(3, 5, 2, generator=generator) * 10
    boxes = torch.cat([low, low + 10], dim=2)
    masks, weights = torch.rand(3, 5, 6, 6, generator=generator), torch.rand(3, 4, 5, generator=generator)
    together = vote(boxes[:, :4], boxes, masks, weights, 12, threshold=0.5)
    monkeypatch.setattr("models.mask_voting.PAIRS_AT_ONCE", 7)
    for i in range(3):
        some = slice(i, i + 1)
        alone = vote(boxes[some, :4], boxes[some], masks[some], weights[some], 12, threshold=0.5)
        torch.testing.assert_close(together[some], alone)


def test_no_votes_give_no_mask():
    share = vote(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4), torch.ones(1, 3, 6, 6), torch.zeros(1, 2, 3), 12, 0.4)
    assert share.shape == (1, 2, 12, 12) and not share.any()
