"""Matching and sampling: which box is trained as which object."""

import torch

from models.assign import match, sample_anchors, sample_rois
from models.config import ModelConfig, ToyConfig
from models.structures import GroundTruth, Proposals
from ops.boxes import clip_boxes, decode_boxes, encode_boxes

TRUTH = torch.tensor([[[10.0, 10.0, 30.0, 30.0], [50.0, 50.0, 90.0, 90.0], [0.0, 0.0, 0.0, 0.0]]])
LABELS = torch.tensor([[3, 5, 0]])
NO_CROWDS = torch.zeros(1, 0, 4)


def truth(boxes=TRUTH, labels=LABELS, crowds=NO_CROWDS):
    """The ground truth of as many images as `boxes` has; sampling reads no masks."""
    crowds = crowds.expand(len(boxes), -1, -1)
    return GroundTruth(boxes, labels.expand(len(boxes), -1), torch.zeros(*boxes.shape[:2], 0, 0), crowds)


def proposed(boxes, valid=None):
    """Proposals, all of them valid by default."""
    scores = torch.ones(boxes.shape[:2]) if valid is None else valid.float()
    return Proposals(boxes, scores)


def test_match_takes_the_best_object_and_ignores_padding():
    candidates = torch.tensor([[[10.0, 10.0, 30.0, 30.0], [52.0, 50.0, 90.0, 90.0], [0.0, 0.0, 0.0, 0.0]]])
    ious, indices, table = match(candidates, TRUTH, LABELS)
    assert indices[0, :2].tolist() == [0, 1]
    torch.testing.assert_close(ious, torch.tensor([[1.0, 0.95, 0.0]]))
    assert (table[..., 2] == 0).all()


def test_rois_are_a_quarter_positive_and_carry_their_class():
    generator = torch.Generator().manual_seed(0)
    near = TRUTH[:, torch.arange(40) % 2] + torch.rand(1, 40, 4, generator=generator)
    far = torch.tensor([[[100.0, 0.0, 120.0, 20.0]]]).expand(1, 60, 4)
    proposals = torch.cat([near, far], dim=1)
    random_keys = torch.rand(1, 103, generator=generator)
    rois = sample_rois(proposed(proposals), truth(), ToyConfig(rois_per_image=16, positive_fraction=0.25), random_keys)
    assert rois.num_positive_slots == 4
    assert rois.positive[0].tolist() == [True] * 4 + [False] * 12
    assert rois.valid.all()
    for label, matched, positive in zip(rois.labels[0], rois.matched[0], rois.positive[0], strict=True):
        assert label == (LABELS[0, matched] if positive else 0)


def test_a_cpu_has_as_many_slots_for_positives_as_the_fullest_image_needs():
    """The first image has two objects and five proposals on the first, the second image two objects alone."""
    proposals = torch.zeros(2, 6, 4)
    proposals[0, :5] = TRUTH[0, 0]
    valid = torch.tensor([[True] * 5 + [False], [False] * 6])
    objects, random_keys = truth(TRUTH.repeat(2, 1, 1)), torch.rand(2, 9)
    exact, rounded = (
        sample_rois(proposed(proposals, valid), objects, kind(rois_per_image=9, positive_fraction=0.9), random_keys)
        for kind in (ModelConfig, ToyConfig)
    )
    assert (exact.num_positive_slots, rounded.num_positive_slots) == (7, ToyConfig().slot_step)
    assert exact.positive.sum(1).tolist() == rounded.positive.sum(1).tolist() == [7, 2]
    assert exact.positive_slots(exact.positive).shape == (14,)


def test_too_few_positives_are_filled_with_negatives_and_too_few_candidates_are_invalid():
    proposals = torch.tensor([[[10.0, 10.0, 30.0, 31.0], [100.0, 0.0, 120.0, 20.0], [0.0, 0.0, 0.0, 0.0]]])
    valid = torch.tensor([[True, True, False]])
    rois = sample_rois(proposed(proposals, valid), truth(), ToyConfig(rois_per_image=6), torch.rand(1, 6))
    # Candidates: one proposal and two ground truths are positive, one proposal is negative; the rest is padding.
    assert rois.positive.sum() == 3 and rois.valid.sum() == 4
    assert (rois.labels[~rois.positive] == 0).all()


def test_an_image_without_objects_gives_negatives_only():
    labels = torch.zeros(1, 3, dtype=torch.int64)
    proposals = torch.tensor([[[10.0, 10.0, 30.0, 31.0], [100.0, 0.0, 120.0, 20.0]]])
    rois = sample_rois(proposed(proposals), truth(labels=labels), ToyConfig(rois_per_image=2), torch.rand(1, 5))
    assert rois.valid.all() and not rois.positive.any() and (rois.labels == 0).all()


def test_pixels_in_a_crowd_are_neither_object_nor_background():
    crowds = torch.tensor([[[100.0, 0.0, 200.0, 100.0], [torch.nan] * 4]])
    objects = truth(torch.tensor([[[10.0, 10.0, 30.0, 30.0]]]), torch.tensor([[3]]), crowds)
    inside, mostly, half = [110.0, 10.0, 130.0, 30.0], [94.0, 0.0, 114.0, 20.0], [90.0, 0.0, 110.0, 20.0]
    proposals = torch.tensor([[inside, mostly, half, [100.0, 0.0, 200.0, 100.0]]])
    rois = sample_rois(proposed(proposals), objects, ToyConfig(rois_per_image=5), torch.rand(1, 5))
    drawn = [box for box, valid in zip(rois.boxes[0].tolist(), rois.valid[0], strict=True) if valid]
    assert drawn == [[10, 10, 30, 30], half] and rois.labels[0].tolist()[:2] == [3, 0]

    positive, negative, _ = sample_anchors(proposals[0], objects, 4, torch.rand(1, 4))
    assert negative[0].tolist() == [False, False, True, False] and not positive.any()


def test_the_same_keys_draw_the_same_rois_and_other_keys_others():
    proposals = torch.rand(2, 50, 4, generator=torch.Generator().manual_seed(1)) * 60
    proposals[..., 2:] += proposals[..., :2]
    arguments = proposed(proposals), truth(TRUTH.repeat(2, 1, 1)), ToyConfig(rois_per_image=8, positive_fraction=0.25)
    random_keys = torch.rand(2, 53, generator=torch.Generator().manual_seed(2))
    first, again = sample_rois(*arguments, random_keys), sample_rois(*arguments, random_keys.clone())
    other = sample_rois(*arguments, random_keys.flip(1))
    assert torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.boxes, other.boxes)


def test_every_object_has_a_positive_anchor_however_badly_it_fits():
    anchors = torch.tensor([[0.0, 0.0, 16.0, 16.0], [100.0, 100.0, 116.0, 116.0], [60.0, 60.0, 76.0, 76.0]])
    positive, negative, matched = sample_anchors(anchors, truth(), 4, torch.rand(1, 3))
    assert positive[0].tolist() == [True, False, True]
    assert matched[0, 0] == 0 and matched[0, 2] == 1
    assert negative[0].tolist() == [False, True, False]


def test_anchor_sampling_keeps_the_numbers():
    generator = torch.Generator().manual_seed(3)
    anchors = torch.rand(500, 4, generator=generator) * 80
    anchors[:, 2:] = anchors[:, :2] + 20
    positive, negative, _ = sample_anchors(anchors, truth(), 32, torch.rand(1, 500, generator=generator))
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
