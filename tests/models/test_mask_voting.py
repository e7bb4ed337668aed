"""Mask voting on masks made by hand."""

import torch

from models.mask_voting import vote, voting_weights
from models.masks import paste_masks


def test_those_that_overlap_enough_vote_by_their_probability_of_the_class():
    detections = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 0, 0]]])
    labels = torch.tensor([[1, 2, 1, 0]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.9], [50, 50, 60, 60]]])  # IoU 1, 0.5, 0.49, 0
    probabilities = torch.tensor([[[0.6, 0.1], [0.2, 0.3], [0.9, 0.9], [0.0, 0.5]]])
    weights = voting_weights(detections, labels, boxes, probabilities, 0.5)
    expected = [[0.75, 0.25, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(weights[0], torch.tensor(expected))


def test_votes_are_binary_and_reach_beyond_the_detections_box():
    boxes = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8]])
    masks = torch.stack([torch.full((2, 2), 0.45), torch.full((2, 2), 0.9)])
    shares = vote(boxes, masks, torch.tensor([[0.7, 0.3]]), 10, 16, threshold=0.4)
    row = torch.tensor([0.7] * 4 + [1.0] * 4 + [0.3] * 4 + [0.0] * 4)
    torch.testing.assert_close(shares[0, :8], row.expand(8, -1))
    assert not shares[0, 8:].any()
    shares = vote(boxes, masks, torch.tensor([[0.7, 0.3]]), 10, 16, threshold=0.5)
    torch.testing.assert_close(shares[0, 0], torch.tensor([0.0] * 4 + [0.3] * 8 + [0.0] * 4))


def test_a_single_vote_is_its_mask_pasted_into_the_image():
    generator = torch.Generator().manual_seed(0)
    box, mask = torch.tensor([[3.0, 5.0, 21.4, 11.7]]), torch.rand(1, 5, 5, generator=generator)
    shares = vote(box, mask, torch.ones(1, 1), 16, 24, threshold=0.5)
    assert torch.equal(shares.bool(), paste_masks(mask, box, 16, 24))


def test_detections_and_portions_do_not_mix(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(5, 2, generator=generator) * 10
    boxes, masks = torch.cat([low, low + 10], dim=1), torch.rand(5, 6, 6, generator=generator)
    weights = torch.rand(4, 5, generator=generator)
    together = vote(boxes, masks, weights, 20, 24, threshold=0.5)
    monkeypatch.setattr("models.mask_voting.ELEMENTS_AT_ONCE", 400)
    torch.testing.assert_close(vote(boxes, masks, weights, 20, 24, threshold=0.5), together)
    for d in range(4):
        torch.testing.assert_close(vote(boxes, masks, weights[d : d + 1], 20, 24, threshold=0.5)[0], together[d])


def test_no_votes_give_no_mask():
    shares = vote(torch.zeros(3, 4), torch.ones(3, 6, 6), torch.zeros(2, 3), 12, 14, 0.4)
    assert shares.shape == (2, 12, 14) and not shares.any()
