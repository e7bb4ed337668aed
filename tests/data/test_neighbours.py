"""Scenes whose pictures differ in an object's neighbour alone."""

import numpy as np
import pytest
import torch

from data.neighbours import CONDITIONS, DEGREES, LEAST_VISIBLE, Condition, NeighbourScenes, image_id, pictures
from data.specs import ShapesSpec

NUM_SCENES = 4


@pytest.fixture(scope="module")
def scenes():
    return NeighbourScenes(ShapesSpec(), NUM_SCENES)


def picture(scenes, scene, *condition):
    return scenes[image_id(scene, Condition(*condition)) - 1]


@pytest.mark.parametrize("scene", range(NUM_SCENES))
def test_a_picture_differs_from_the_one_without_neighbour_only_where_the_neighbour_is(scenes, scene):
    alone = picture(scenes, scene, "none")
    assert len(alone.labels) == 1
    for condition in CONDITIONS[1:]:
        with_neighbour = scenes[image_id(scene, condition) - 1]
        changed = (with_neighbour.image != alone.image).any(0)
        neighbour = with_neighbour.masks[1].bool()
        near = torch.nn.functional.max_pool2d(neighbour[None].float(), 5, stride=1, padding=2)[0].bool()  # lens blur
        assert not (changed & ~near).any()
        assert changed[neighbour].float().mean() > 0.9


@pytest.mark.parametrize("scene", range(NUM_SCENES))
def test_classes_and_depth_are_as_the_condition_says(scenes, scene):
    whole = picture(scenes, scene, "none").masks[0].bool()
    for condition in CONDITIONS[1:]:
        sample = scenes[image_id(scene, condition) - 1]
        assert (sample.labels[0] == sample.labels[1]).item() == (condition.neighbour == "same")
        visible = sample.masks[0].bool()
        assert (visible == whole).all() == (not condition.in_front)
        assert visible.sum() >= LEAST_VISIBLE * whole.sum()
        assert not (sample.masks[0] & sample.masks[1]).any()


@pytest.mark.parametrize("scene", range(NUM_SCENES))
def test_a_neighbour_in_front_covers_the_share_of_the_box_that_its_degree_says(scenes, scene):
    x1, y1, x2, y2 = picture(scenes, scene, "none").boxes[0].int().tolist()
    for kind in ("same", "other"):
        for degree in DEGREES:
            neighbour = picture(scenes, scene, kind, degree, True).masks[1]
            share = neighbour[y1:y2, x1:x2].float().mean().item()
            assert share == pytest.approx(degree, abs=0.03)  # a step of a pixel; blank rows around the silhouette


def test_scenes_are_the_same_every_time_and_all_different():
    first, again = pictures(ShapesSpec(), 0), pictures(ShapesSpec(), 0)
    assert all((one.image == two.image).all() for one, two in zip(first, again, strict=True))
    assert (pictures(ShapesSpec(), 1)[0].image != first[0].image).any()
    assert (pictures(ShapesSpec(seed=1), 0)[0].image != first[0].image).any()


def test_images_without_room_are_refused():
    with pytest.raises(ValueError, match=r"data\.image_side: expected room for two objects of 5 cells, got 64"):
        pictures(ShapesSpec(image_side=64, size_cells=(1, 4)), 0)


def test_ids_number_all_pictures(scenes):
    assert [sample.image_id for sample in scenes] == list(range(1, len(scenes) + 1))
    assert len(scenes) == NUM_SCENES * len(CONDITIONS) and np.unique(scenes.coco["images"][0]["id"]) == [1]
