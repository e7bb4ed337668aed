"""RoI pooling of boxes that are rounded beforehand."""

import pytest
import torch

from models.build import build_roi_pooling
from models.config import RoIConfig, ToyConfig


def scene(seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 8, 16, 16, generator=generator).to(memory_format=torch.channels_last)
    corners = torch.rand(2, 20, 2, generator=generator) * 150
    boxes = torch.cat([corners, corners + 5 + 100 * torch.rand(2, 20, 2, generator=generator)], dim=-1)
    boxes[0, 0] = torch.tensor([8.0, 24.0, 40.0, 56.0])  # halves of cells, which round away from zero
    return features, boxes


def pooled(roi, stride):
    return build_roi_pooling(roi, ToyConfig(), 7, stride)(*scene())


@pytest.mark.parametrize("stride", [16, 32])
def test_a_step_of_the_stride_is_roi_warp(stride):
    stepped = pooled(RoIConfig(step=stride), stride)
    assert torch.equal(stepped, pooled(RoIConfig(op="warp"), stride))
    assert not torch.equal(stepped, pooled(RoIConfig(), stride))


def test_a_step_of_one_pixel_leaves_boxes_of_whole_pixels_alone():
    features, boxes = scene()
    align, stepped = (build_roi_pooling(RoIConfig(step=step), ToyConfig(), 7, 16) for step in (0, 1))
    assert torch.equal(align(features, boxes.round()), stepped(features, boxes.round()))


def test_twice_the_step_is_another_rounding():
    assert not torch.equal(pooled(RoIConfig(step=16), 16), pooled(RoIConfig(step=32), 16))
