"""Sliding objects under networks of which it is known what they read."""

import numpy as np
import pytest
import torch
from torch import nn

from ablations.evaluation.phase import repeated_variances
from ablations.exhibits.phase import STRIP, iou_curves, median_scene, strip
from data.scene import CLASSES
from data.sliding import SHIFTS, SlidingScenes
from data.specs import ShapesSpec
from models.build import build_mask_rcnn
from models.config import DetectorConfig, MaskHeadConfig, RoIConfig, ToyConfig
from models.initialise import initialise
from ops.geometry import round_half_away

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes():
    return SlidingScenes(ShapesSpec(), 2)


class Filled:
    """Fills every box: a mask that does not depend on the grid."""

    def masks_of(self, images, boxes, labels):
        return torch.ones(*labels.shape, 28, 28)


class Rounded:
    """Fills a box from where its left edge is after rounding to whole cells, if that is within the box."""

    def __init__(self, stride):
        self.stride = stride

    def masks_of(self, images, boxes, labels):
        left, right = boxes[..., 0], boxes[..., 2]
        rounded = torch.tensor([[round_half_away(x / self.stride) * self.stride for x in row] for row in left.tolist()])
        starts = 28 * (rounded - left) / (right - left)
        return (torch.arange(28) >= starts[..., None, None]).float().expand(*labels.shape, 28, 28)


class Blind(nn.Module):
    """A backbone without padding or overlap: the mean colour of each cell of 16 px, so that cells move as images do."""

    stride, out_channels = 16, 3

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 16)


def test_a_mask_that_ignores_the_grid_has_the_same_iou_at_every_shift(scenes):
    ious = iou_curves(Filled(), scenes, CPU)
    assert ious.shape == (2, SHIFTS)
    share = [float(scene.mask.sum() / np.prod(np.ptp(np.nonzero(scene.mask), axis=1) + 1)) for scene in scenes.scenes]
    np.testing.assert_allclose(ious, np.broadcast_to(100 * np.array(share)[:, None], ious.shape), rtol=1e-5)
    assert repeated_variances(ious) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("stride", [16, 32])
def test_a_mask_of_a_rounded_box_repeats_with_the_cells_and_jumps_at_their_borders(scenes, stride):
    ious = iou_curves(Rounded(stride), scenes, CPU)
    np.testing.assert_allclose(ious[:, :-stride], ious[:, stride:], atol=1e-4)
    np.testing.assert_allclose(repeated_variances(ious), ious.var(1), rtol=1e-4)
    for curve in ious:
        jump = int(np.abs(np.diff(curve)).argmax()) + 1
        assert jump % stride == stride // 2


@pytest.mark.parametrize("op", ["pool", "align"])
def test_a_network_whose_cells_move_as_the_image_does_repeats_with_them(scenes, op):
    roi = RoIConfig(op=op, reduce="max" if op == "pool" else "ave")
    model = ToyConfig(roi_channels=3, shared_depth=0, box_hidden=8, mask_pooled_size=14)
    config = DetectorConfig(model, roi=roi, mask_head=MaskHeadConfig("fcn", depth=1, channels=8))
    network = build_mask_rcnn(config, len(CLASSES))
    initialise(network, 0)
    network.backbone = Blind()
    network.mask_head.logits.weight.data *= 1000  # masks of their own, not of one half everywhere
    ious = iou_curves(network.eval(), scenes, CPU)
    np.testing.assert_allclose(ious[:, :-16], ious[:, 16:], atol=1e-3)
    assert ious.std() > 0.1
    np.testing.assert_allclose(repeated_variances(ious), ious.var(1), atol=1e-3)


def test_the_strips_masks_are_moved_back_onto_the_object(scenes):
    scene = scenes.scenes[0]
    masks = strip(Filled(), scene, CPU)
    assert len(masks) == len(STRIP) and all(mask == masks[0] for mask in masks)
    assert masks[0]["size"] == list(scene.mask.shape)


def test_the_scene_shown_has_the_median_variance():
    wave = np.sin(2 * np.pi * np.arange(SHIFTS) / 16)
    curves = {"pool": np.array([3, 1, 2])[:, None] * wave, "align": np.array([0.1, 0.2, 0.3])[:, None] * wave}
    assert median_scene(curves) == 2
