"""Matching and sampling: which box is trained as which object."""

import torch

from models.assign import match, sample_anchors, sample_rois
from ops.boxes import clip_boxes, decode_boxes, encode_boxes

TRUTH = torch.tensor([[[10.0, 10.0, 30.0, 30.0], [50.0, 50.0, 90.0, 90.0], [0.0, 0.0, 0.0, 0.0]]])
LABELS = torch.tensor([[3, 5, 0]])
NO_CROWDS = torch.zeros(1, 0, 4)


def test_match_takes_the_best_object_and_ignores_padding():
    candidates = torch.tensor([[[10.0, 10.0, 30.0, 30.0], [52.0, 50.0, 90.0, 90.0], [0.0, 0.0, 0.0, 0.0]]])
    overlaps, indices, table = match(candidates, TRUTH, LABELS)
    assert indices[0, :2].tolist() == [0, 1]
    torch.testing.assert_close(overlaps, torch.tensor([[1.0, 0.95, 0.0]]))
    assert (table[..., 2] == 0).all()


def test_rois_are_a_quarter_positive_and_carry_their_class():
    generator = torch.Generator().manual_seed(0)
    near = TRUTH[:, torch.arange(40) % 2] + torch.rand(1, 40, 4, generator=generator)
    far = torch.tensor([[[100.0, 0.0, 120.0, 20.0]]]).expand(1, 60, 4)
    proposals = torch.cat([near, far], dim=1)
    random_keys = torch.rand(1, 103, generator=generator)
    rois = sample_rois(
        proposals, torch.ones(1, 100, dtype=torch.bool), TRUTH, LABELS, NO_CROWDS, 16, 0.25, 8, random_keys
    )
    assert rois.num_positive_slots == 4
    assert rois.positive[0].tolist() == [True] * 4 + [False] * 12
    assert rois.valid.all()
    for label, matched, positive in zip(rois.labels[0], rois.matched[0], rois.positive[0], strict=True):
        assert label == (LABELS[0, matched] if positive else 0)


def test_a_cpu_has_as_many_slots_for_positives_as_the_fullest_image_needs():
    """The first image has two objects and five proposals on the first, the second image two objects alone."""
    proposals = torch.zeros(2, 5, 4)
    proposals[0] = TRUTH[0, 0]
    valid = torch.tensor([[True] * 5, [False] * 5])
    truth = TRUTH.repeat(2, 1, 1), LABELS.repeat(2, 1), NO_CROWDS.repeat(2, 1, 1)
    slots = {step: sample_rois(proposals, valid, *truth, 8, 1.0, step, torch.rand(2, 8)) for step in (1, 4, 8)}
    assert {step: rois.num_positive_slots for step, rois in slots.items()} == {1: 7, 4: 8, 8: 8}
    assert [rois.positive.sum(1).tolist() for rois in slots.values()] == [[7, 2]] * 3
    assert slots[1].positive_slots(slots[1].positive).shape == (14,)


def test_too_few_positives_are_filled_with_negatives_and_too_few_candidates_are_invalid():
    proposals = torch.tensor([[[10.0, 10.0, 30.0, 31.0], [100.0, 0.0, 120.0, 20.0], [0.0, 0.0, 0.0, 0.0]]])
    valid = torch.tensor([[True, True, False]])
    rois = sample_rois(proposals, valid, TRUTH, LABELS, NO_CROWDS, 6, 0.5, 8, torch.rand(1, 6))
    # Candidates: one proposal and two ground truths are positive, one proposal is negative; the rest is padding.
    assert rois.positive.sum() == 3 and rois.valid.sum() == 4
    assert (rois.labels[~rois.positive] == 0).all()


def test_an_image_without_objects_gives_negatives_only():
    labels = torch.zeros(1, 3, dtype=torch.int64)
    proposals = torch.tensor([[[10.0, 10.0, 30.0, 31.0], [100.0, 0.0, 120.0, 20.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    rois = sample_rois(proposals, valid, TRUTH, labels, NO_CROWDS, 2, 0.5, 8, torch.rand(1, 5))
    assert rois.valid.all() and not rois.positive.any() and (rois.labels == 0).all()


def test_pixels_in_a_crowd_are_neither_object_nor_background():
    truth, labels = torch.tensor([[[10.0, 10.0, 30.0, 30.0]]]), torch.tensor([[3]])
    crowds = torch.tensor([[[100.0, 0.0, 200.0, 100.0], [torch.nan] * 4]])
    inside, mostly, half = [110.0, 10.0, 130.0, 30.0], [94.0, 0.0, 114.0, 20.0], [90.0, 0.0, 110.0, 20.0]
    proposals = torch.tensor([[inside, mostly, half, [100.0, 0.0, 200.0, 100.0]]])
    rois = sample_rois(
        proposals, torch.ones(1, 4, dtype=torch.bool), truth, labels, crowds, 5, 0.5, 8, torch.rand(1, 5)
    )
    drawn = [box for box, valid in zip(rois.boxes[0].tolist(), rois.valid[0], strict=True) if valid]
    assert drawn == [[10, 10, 30, 30], half] and rois.labels[0].tolist()[:2] == [3, 0]

    positive, negative, _ = sample_anchors(proposals[0], truth, labels, crowds, 4, torch.rand(1, 4))
    assert negative[0].tolist() == [False, False, True, False] and not positive.any()


def test_the_same_keys_draw_the_same_rois_and_other_keys_others():
    proposals = torch.rand(2, 50, 4, generator=torch.Generator().manual_seed(1)) * 60
    proposals[..., 2:] += proposals[..., :2]
    truth = TRUTH.repeat(2, 1, 1), LABELS.repeat(2, 1), NO_CROWDS.repeat(2, 1, 1)
    arguments = (proposals, torch.ones(2, 50, dtype=torch.bool), *truth, 8, 0.25, 8)
    random_keys = torch.rand(2, 53, generator=torch.Generator().manual_seed(2))
    first, again = sample_rois(*arguments, random_keys), sample_rois(*arguments, random_keys.clone())
    other = sample_rois(*arguments, random_keys.flip(1))
    assert torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.boxes, other.boxes)


def test_every_object_has_a_positive_anchor_however_badly_it_fits():
    anchors = torch.tensor([[0.0, 0.0, 16.0, 16.0], [100.0, 100.0, 116.0, 116.0], [60.0, 60.0, 76.0, 76.0]])
    positive, negative, matched = sample_anchors(anchors, TRUTH, LABELS, NO_CROWDS, 4, torch.rand(1, 3))
    assert positive[0].tolist() == [True, False, True]
    assert matched[0, 0] == 0 and matched[0, 2] == 1
    assert negative[0].tolist() == [False, True, False]


def test_anchor_sampling_keeps_the_numbers():
    generator = torch.Generator().manual_seed(3)
    anchors = torch.rand(500, 4, generator=generator) * 80
    anchors[:, 2:] = anchors[:, :2] + 20
    positive, negative, _ = sample_anchors(
        anchors, TRUTH, LABELS, NO_CROWDS, 32, torch.rand(1, 500, generator=generator)
    )
    assert positive.sum() <= 16
    assert positive.sum() + negative.sum() == 32
    assert not (positive & negative).any()


def test_boxes_survive_encoding_and_clipping_respects_each_image():
    generator = torch.Generator().manual_seed(4)
    boxes, references = (torch.rand(3, 7, 4, generator=generator) * 50 for _ in range(2))
    for b in (boxes, references):
        b[..., 2:] += b[..., :2] + 1
    weights = (10.0, 5.0)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, references, weights), references, weights), boxes)
    clipped = clip_boxes(torch.tensor([[[-5.0, -5.0, 99.0, 99.0]]] * 2), torch.tensor([[20, 40], [50, 10]]))
    assert clipped.tolist() == [[[0, 0, 40, 20]], [[0, 0, 10, 50]]]
