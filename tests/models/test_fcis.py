"""FCIS: what its scores mean, that all of it trains, that it sees Mask R-CNN's RoIs, and that it learns."""

import dataclasses

import pytest
import torch
from torchvision.ops import box_iou

from models import detector
from models.build import build_fcis
from models.config import DetectorConfig, FCISConfig
from models.fcis import class_logits, mask_logits
from models.initialise import initialise
from tests.models.test_mask_rcnn import MODEL, K, draw, scene
from tests.models.test_mask_rcnn import network as mask_rcnn

SMALL = FCISConfig(parts=3, cells=9, head_channels=8, head_depth=1)


def network(stride=16, joint=False, config=SMALL, model=MODEL):
    fcis = build_fcis(DetectorConfig(model, config, stride=stride, joint_rpn=joint), K)
    initialise(fcis, 0)
    return fcis


def voted(detections):
    """The masks [B, D, H, W] in images as large as those of the scene."""
    ones = torch.ones(4)
    return torch.stack([detections.votes.count(i, ones, 64, 64) for i in range(len(detections.boxes))])


def test_scores_by_hand():
    """One RoI of two cells, background and two classes: a class is there where either of its maps says so."""
    outside = torch.tensor([[0.0, 0], [-1, 4], [2, -3]])
    inside = torch.tensor([[1.0, 1], [3, 1], [-2, -1]])
    scores = torch.stack([outside, inside], dim=1).view(1, 3, 2, 1, 2)
    torch.testing.assert_close(class_logits(scores), torch.tensor([[1.0, 3.5, 0.5]]))
    torch.testing.assert_close(mask_logits(scores, torch.tensor([1])), torch.tensor([[[4.0, -3.0]]]))
    two_way = scores[:, 2].softmax(1)[:, 1]
    torch.testing.assert_close(mask_logits(scores, torch.tensor([2])).sigmoid(), two_way)


@pytest.mark.parametrize("stride", [16, 32])
def test_every_parameter_gets_a_gradient_and_it_detects(stride):
    images, sizes, truth, proposals = scene()
    model = network(stride).train()
    losses = model.losses(images, sizes, truth, proposals, draw)
    assert set(losses) == {"class", "box", "mask"}
    maps = model.maps.weight
    for name, reaches_scores, reaches_boxes in (("class", 1, 0), ("mask", 1, 0), ("box", 0, 1)):
        (gradient,) = torch.autograd.grad(losses[name], maps, retain_graph=True)
        scores, boxes = gradient.abs().flatten(1).sum(1).split([2 * (K + 1) * 9, 4 * 9])
        assert (bool(scores.any()), bool(boxes.any())) == (reaches_scores, reaches_boxes)
    sum(losses.values()).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"maps.weight", "head.0.weight"} <= trained
    assert any(name.startswith("backbone.") for name in trained)
    assert not any(name.startswith(("backbone.stages.0", "backbone.stages.1")) for name in trained)  # frozen
    detections = model.eval().detect(images, sizes, proposals)
    weights = detections.votes.weights
    assert weights.shape == (*detections.labels.shape, 2 * proposals.scores.shape[1])
    torch.testing.assert_close(weights.sum(2)[detections.valid], torch.ones(int(detections.valid.sum())))


def test_only_the_ground_truth_classes_maps_are_trained_by_the_mask_loss():
    images, sizes, truth, proposals = scene()
    model = network().train()
    (gradient,) = torch.autograd.grad(model.losses(images, sizes, truth, proposals, draw)["mask"], model.maps.weight)
    by_class = gradient[: 2 * (K + 1) * 9].abs().flatten(1).sum(1).view(K + 1, 2 * 9).sum(1)
    assert (by_class > 0).tolist() == [False, True, False, True]  # the scene's objects are of classes 1 and 3


def test_loss_weights_are_the_settings():
    images, sizes, truth, proposals = scene()
    plain = network().losses(images, sizes, truth, proposals, draw)
    config = dataclasses.replace(SMALL, class_weight=2.0, mask_weight=10.0, box_weight=0.5)
    weighted = network(config=config).losses(images, sizes, truth, proposals, draw)
    for name, weight in (("class", 2.0), ("mask", 10.0), ("box", 0.5)):
        torch.testing.assert_close(weighted[name], weight * plain[name])


def test_it_trains_on_the_rois_that_mask_rcnn_trains_on(monkeypatch):
    images, sizes, truth, proposals = scene()
    seen = []

    def spy(*arguments):
        seen.append(sampled := original(*arguments))
        return sampled

    original = detector.sample_rois
    monkeypatch.setattr(detector, "sample_rois", spy)
    for system in (network(), mask_rcnn()):
        system.losses(images, sizes, truth, proposals, draw)
    assert torch.equal(seen[0].boxes, seen[1].boxes) and torch.equal(seen[0].labels, seen[1].labels)


def test_the_mask_on_a_given_box_is_read_in_the_given_classs_maps_by_that_box_alone():
    """Maps that say "inside" in the upper row of parts for class 1, and in the left column for class 3."""
    images, _, truth, _ = scene()
    model = network().eval()
    model.maps.weight.data.zero_()
    bias = model.maps.bias.data[: 2 * (K + 1) * 9].zero_().view(K + 1, 2, 3, 3)  # outside, inside
    bias[1, 1, 0], bias[3, 1, :, 0] = 2.0, 2.0
    inside, undecided = torch.tensor(2.0).sigmoid(), 0.5
    masks = model.masks_of(images, truth.boxes[:, :1], truth.labels[:, :1])
    assert masks.shape == (2, 1, 9, 9)
    torch.testing.assert_close(masks[0, 0, :3], inside.expand(3, 9))
    torch.testing.assert_close(masks[0, 0, 3:], torch.full((6, 9), undecided))
    torch.testing.assert_close(masks[1, 0, :, :3], inside.expand(9, 3))
    torch.testing.assert_close(masks[1, 0, :, 3:], torch.full((9, 6), undecided))


def test_masks_on_given_boxes_do_not_depend_on_the_other_boxes():
    images, _, truth, proposals = scene()
    model = network().eval()
    alone = model.masks_of(images, truth.boxes[:, :1], truth.labels[:, :1])
    boxes = torch.cat([truth.boxes[:, :1], proposals.boxes], dim=1)
    together = model.masks_of(images, boxes, truth.labels[:, :1].expand(boxes.shape[:2]))
    torch.testing.assert_close(together[:, :1], alone)


def test_joint_training_proposes_by_itself():
    images, sizes, truth, _ = scene()
    model = network(joint=True)
    losses = model.losses(images, sizes, truth, None, draw)
    assert {"rpn_objectness", "rpn_box"} <= set(losses)
    sum(losses.values()).backward()
    assert model.rpn.conv.weight.grad.abs().sum() > 0
    assert model.eval().detect(images, sizes, None).boxes.shape[0] == 2


def test_refined_boxes_compete_beside_the_proposals():
    """With box maps that shift by a constant, both the proposals and the shifted boxes are among the detections."""
    images, sizes, _, proposals = scene()
    one = dataclasses.replace(proposals, boxes=proposals.boxes[:, :1], scores=proposals.scores[:, :1])
    model = network(model=dataclasses.replace(MODEL, score_threshold=0.0, nms_threshold=0.999)).eval()
    model.maps.weight.data[-4 * 9 :] = 0
    model.maps.bias.data[-4 * 9 : -3 * 9] = -0.5  # dx, divided by 5: a tenth of the width to the left
    detections = model.detect(images, sizes, one)
    for i in range(2):
        x1, _, x2, _ = one.boxes[i, 0].tolist()
        expected = {round(x1, 3), round(max(x1 - 0.1 * (x2 - x1), 0), 3)}
        assert {round(x, 3) for x in detections.boxes[i, detections.scores[i] > 0, 0].tolist()} == expected


def test_padded_proposals_are_neither_detected_nor_voting():
    images, sizes, _, proposals = scene()
    model = network(model=dataclasses.replace(MODEL, score_threshold=0.0)).eval()
    alone = model.detect(images, sizes, proposals)
    padding = torch.tensor([10.0, 10, 45, 45]).expand(2, 3, 4)
    padded = dataclasses.replace(
        proposals,
        boxes=torch.cat([proposals.boxes, padding], 1),
        scores=torch.cat([proposals.scores, torch.zeros(2, 3)], 1),
    )
    again = model.detect(images, sizes, padded)
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(getattr(again, name), getattr(alone, name))
    assert torch.equal(voted(again), voted(alone))


def test_no_detection_at_all_is_an_empty_result():
    images, sizes, _, proposals = scene()
    detections = network(model=dataclasses.replace(MODEL, score_threshold=1.0)).eval().detect(images, sizes, proposals)
    assert (detections.scores == 0).all() and not voted(detections).any()


def test_it_overfits_two_images():
    images, sizes, truth, proposals = scene()
    model = network(config=FCISConfig(head_channels=16, head_depth=2)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        losses = model.losses(images, sizes, truth, proposals, draw)
        sum(losses.values()).backward()
        optimizer.step()
    assert sum(losses.values()) < 0.6
    detections = model.eval().detect(images, sizes, proposals)
    assert detections.labels[:, 0].tolist() == [1, 3]
    # A detection's box is a proposal or a proposal refined once, so near the object and no nearer.
    assert torch.stack([box_iou(detections.boxes[i, :1], truth.boxes[i, :1]) for i in range(2)]).min() > 0.7
    for i, mask in enumerate(voted(detections)[:, 0]):
        expected = truth.masks[i, 0].bool()
        assert (mask & expected).sum() > 0.8 * (mask | expected).sum()
