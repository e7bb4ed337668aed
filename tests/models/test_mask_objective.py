"""Sigmoid and softmax masks: who competes with whom."""

import pytest
import torch
from torch.nn import functional as F

from models.mask_objective import SigmoidMask, SoftmaxMask

K = 4


def inputs(channels: int):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, channels, 3, 3, generator=generator, requires_grad=True)
    labels = torch.tensor([1, 4, 2, 2, 0])
    targets = (torch.rand(5, 3, 3, generator=generator) > 0.5).float()
    return logits, labels, targets, torch.tensor([1.0, 1, 1, 1, 0])


def test_sigmoid_trains_the_ground_truth_class_only():
    logits, labels, targets, weights = inputs(K)
    SigmoidMask(K).loss(logits, labels, targets, weights).backward()
    touched = logits.grad.abs().sum(dim=(2, 3)) > 0
    expected = F.one_hot(labels, K + 1)[:, 1:].bool()
    assert torch.equal(touched, expected)  # padding (label 0) touches nothing


def test_softmax_trains_all_classes_at_once():
    logits, labels, targets, weights = inputs(K + 1)
    SoftmaxMask(K).loss(logits, labels, targets, weights).backward()
    assert (logits.grad[:4].abs().sum(dim=(2, 3)) > 0).all()
    assert (logits.grad[4] == 0).all()


def test_losses_are_the_textbook_ones():
    logits, labels, targets, weights = inputs(K)
    picked = torch.stack([logits[i, labels[i] - 1] for i in range(4)])
    expected = F.binary_cross_entropy_with_logits(picked, targets[:4])
    torch.testing.assert_close(SigmoidMask(K).loss(logits, labels, targets, weights), expected)

    logits, labels, targets, weights = inputs(K + 1)
    classes = (targets * labels[:, None, None]).long()[:4]
    expected = F.cross_entropy(logits[:4], classes)
    torch.testing.assert_close(SoftmaxMask(K).loss(logits, labels, targets, weights), expected)


def test_inference_takes_the_predicted_class():
    logits, labels, _, _ = inputs(K)
    probabilities = SigmoidMask(K).probabilities(logits, labels)
    torch.testing.assert_close(probabilities[1], logits[1, 3].sigmoid())
    logits, labels, _, _ = inputs(K + 1)
    probabilities = SoftmaxMask(K).probabilities(logits, labels)
    torch.testing.assert_close(probabilities[1], logits[1].softmax(0)[4])


def test_the_softmax_rules_differ_in_the_rivals_that_a_class_must_beat():
    # One pixel, background and four classes: class 2 has the largest share (45 %), but not half of it.
    shares = torch.tensor([0.30, 0.05, 0.45, 0.15, 0.05])
    logits, label = shares.log().reshape(1, K + 1, 1, 1), torch.tensor([2])
    results = {
        rule: SoftmaxMask(K, rule=rule).probabilities(logits, label).item()
        for rule in ("share", "argmax", "background")
    }
    assert results["share"] == pytest.approx(0.45)
    assert results["argmax"] == pytest.approx(0.45 / (0.45 + 0.30))
    assert results["background"] == pytest.approx(0.45 / (0.45 + 0.30))
    runner_up = SoftmaxMask(K, rule="argmax").probabilities(logits, torch.tensor([3])).item()
    assert runner_up == pytest.approx(0.15 / (0.15 + 0.45)) and runner_up < 0.5


@pytest.mark.parametrize("objective", [SigmoidMask(K, agnostic=True), SoftmaxMask(K, agnostic=True)])
def test_agnostic_masks_do_not_depend_on_the_label(objective):
    logits, labels, targets, weights = inputs(objective.num_channels)
    others = torch.where(labels > 0, labels % K + 1, 0)
    torch.testing.assert_close(
        objective.loss(logits, labels, targets, weights), objective.loss(logits, others, targets, weights)
    )
    torch.testing.assert_close(objective.probabilities(logits, labels)[:4], objective.probabilities(logits, others)[:4])


def test_no_positive_at_all_gives_zero_not_nan():
    logits, labels, targets, _ = inputs(K)
    assert SigmoidMask(K).loss(logits, labels, targets, torch.zeros(5)) == 0
