"""Scenes that slide: the images of a scene are windows of one picture."""

import numpy as np
import pytest
import torch

from data.scene import CLASSES
from data.sliding import HEIGHT, LEFT, MARGIN, SHIFTS, SIDE, WIDTH, SlidingScenes, draw_scene
from data.specs import ShapesSpec

NUM_SCENES = 4


@pytest.fixture(scope="module")
def scenes():
    return SlidingScenes(ShapesSpec(), NUM_SCENES)


@pytest.mark.parametrize("scene", range(NUM_SCENES))
def test_moved_back_all_images_of_a_scene_are_equal_where_they_overlap(scenes, scene):
    first = scenes[scene * SHIFTS]
    for shift in (1, 15, 16, 31, 63):
        moved = scenes[scene * SHIFTS + shift]
        assert torch.equal(moved.image[:, :, shift:], first.image[:, :, :-shift])
        assert torch.equal(moved.masks[:, :, shift:], first.masks[:, :, :-shift])
        assert torch.equal(moved.boxes, first.boxes + torch.tensor([shift, 0, shift, 0]))
        assert not moved.masks[:, :, :shift].any()
        assert moved.image[:, :, :shift].float().std() > 0  # the background goes on


def test_the_object_is_a_median_one_whole_and_away_from_the_border(scenes):
    for index in range(len(scenes)):
        sample, shift = scenes[index], index % SHIFTS
        x1, y1, x2, y2 = sample.boxes[0].tolist()
        assert sample.image.shape == (3, HEIGHT, WIDTH) and sample.masks.shape == (1, HEIGHT, WIDTH)
        assert x1 == LEFT + shift and x2 <= WIDTH - LEFT and y1 >= MARGIN and y2 <= HEIGHT - MARGIN
        assert ((x2 - x1) * (y2 - y1)) ** 0.5 == pytest.approx(SIDE, abs=2) and SIDE == 96
        rows, columns = np.nonzero(sample.masks[0].numpy())
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
        assert 1 <= int(sample.labels) <= len(CLASSES)


@pytest.mark.parametrize("scene", range(8))
def test_objects_that_are_stretched_a_lot_find_room_too(scene):
    x1, y1, x2, y2 = draw_scene(ShapesSpec(stretch=3.0, rotation=180), scene).sample(SHIFTS - 1, 1).boxes[0].tolist()
    assert x1 == LEFT + SHIFTS - 1 and x2 <= WIDTH - LEFT and y1 >= MARGIN and y2 <= HEIGHT - MARGIN


def test_scenes_are_the_same_every_time_all_different_and_of_one_size_whatever_the_set_is():
    pixels = draw_scene(ShapesSpec(), 0).pixels
    assert (draw_scene(ShapesSpec(), 0).pixels == pixels).all()
    assert (draw_scene(ShapesSpec(image_side=64), 0).pixels == pixels).all()
    assert (draw_scene(ShapesSpec(), 1).pixels != pixels).any()
    assert (draw_scene(ShapesSpec(seed=1), 0).pixels != pixels).any()


def test_ids_number_all_images_and_no_more_can_be_asked_for(scenes):
    assert [scenes[index].image_id for index in range(len(scenes))] == list(range(1, NUM_SCENES * SHIFTS + 1))
    with pytest.raises(IndexError, match="has 256 images, got index 256"):
        scenes[len(scenes)]
