"""Mask targets and pasting are exact: what is cut out of an image and pasted back is the same object."""

import pytest
import torch

from models import masks as module
from models.masks import crop_masks, interpolation, paste_masks, windows_of

FIRST = torch.zeros(1, dtype=torch.int64)


def disc(height: int, width: int, y: float, x: float, radius: float) -> torch.Tensor:
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    return ((rows[:, None] - y) ** 2 + (columns - x) ** 2 <= radius**2).to(torch.uint8)


def test_target_of_a_box_on_the_pixel_grid_is_the_mask_itself():
    mask = torch.zeros(1, 20, 20, dtype=torch.uint8)
    mask[0, 4:8, 6:10] = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
    target = crop_masks(mask, FIRST, torch.tensor([[6.0, 4.0, 10.0, 8.0]]), 4)
    assert torch.equal(target[0], mask[0, 4:8, 6:10].float())


def test_target_counts_exact_areas_at_fractional_boxes():
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :, 4:] = 1  # everything right of x = 4
    # Cells of 2 px from x = 2.9: the first spans 2.9 to 4.9 and is covered by 0.45, the second wholly.
    assert crop_masks(mask, FIRST, torch.tensor([[2.9, 0.0, 6.9, 4.0]]), 2)[0].tolist() == [[0, 1], [0, 1]]
    # From x = 3.1 the first is covered by 0.55.
    assert crop_masks(mask, FIRST, torch.tensor([[3.1, 0.0, 7.1, 4.0]]), 2)[0].tolist() == [[1, 1], [1, 1]]


def test_targets_are_exact_under_autocast_too():
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(20, 64, 64, generator=generator) > 0.5).to(torch.uint8)
    boxes = torch.rand(20, 4, generator=generator) * 20
    boxes[:, 2:] += boxes[:, :2] + 20
    objects = torch.arange(20)
    exact = crop_masks(masks, objects, boxes, 14)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(crop_masks(masks, objects, boxes, 14), exact)


def test_the_part_of_a_mask_that_rois_reach_gives_what_the_whole_mask_gives(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([disc(60, 90, 30, 20 + 10 * i, 8 + 3 * i) for i in range(5)])
    objects = torch.randint(5, (40,), generator=generator)
    boxes = 70 * torch.rand(40, 4, generator=generator) - 10  # some reach beyond the image, one lies outside
    boxes[:, 2:] = boxes[:, :2] + 50 * torch.rand(40, 2, generator=generator)
    boxes[1] = torch.tensor([100.0, 20.0, 110.0, 30.0])
    boxes[0] = torch.tensor([10.0, 20.0, 10.0, 20.0])
    by_object = crop_masks(masks, objects, boxes, 14)
    monkeypatch.setattr(module, "_areas_by_object", module._areas_by_chunk)
    assert torch.equal(crop_masks(masks, objects, boxes, 14), by_object) and 0.1 < by_object.mean() < 0.5


def test_without_rois_there_are_no_targets():
    assert crop_masks(torch.zeros(0, 8, 8), FIRST[:0], torch.zeros(0, 4), 14).shape == (0, 14, 14)


def test_target_outside_the_image_is_background():
    mask = torch.ones(1, 8, 8, dtype=torch.uint8)
    target = crop_masks(mask, FIRST, torch.tensor([[-8.0, 0.0, 8.0, 8.0]]), 4)
    assert target[0].tolist() == [[0, 0, 1, 1]] * 4


def test_target_is_the_intersection_with_the_roi_not_the_whole_object():
    mask = disc(64, 64, 32, 32, 20)[None]
    whole = crop_masks(mask, FIRST, torch.tensor([[12.0, 12.0, 52.0, 52.0]]), 28)
    quarter = crop_masks(mask, FIRST, torch.tensor([[32.0, 32.0, 52.0, 52.0]]), 14)
    assert torch.equal(quarter[0], whole[0, 14:, 14:])


def test_pasting_a_full_mask_fills_exactly_the_pixels_whose_centres_are_in_the_box():
    pasted = paste_masks(torch.ones(1, 14, 14), torch.tensor([[2.4, 3.6, 9.5, 7.0]]), 12, 12)[0]
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[4:7, 2:9] = True  # centres 2.5 .. 8.5 and 4.5 .. 6.5
    assert torch.equal(pasted, expected)


def test_pasting_is_bilinear_between_cell_centres():
    """Two columns of probability 1 and 0: their border is half way, so the threshold cuts the box in the middle."""
    probabilities = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    pasted = paste_masks(probabilities, torch.tensor([[0.0, 0.0, 20.0, 20.0]]), 20, 20)[0]
    assert pasted[:, :10].all() and not pasted[:, 10:].any()
    # At a threshold of 0.25 the border moves to a quarter of the way between the centres at 5 and 15.
    wider = paste_masks(probabilities, torch.tensor([[0.0, 0.0, 20.0, 20.0]]), 20, 20, threshold=0.25)[0]
    assert wider[:, :12].all() and not wider[:, 13:].any()


@pytest.mark.parametrize("box", [(30.0, 30.0, 90.0, 90.0), (28.3, 26.9, 93.1, 91.7), (10.0, 20.0, 110.0, 100.0)])
def test_round_trip_keeps_the_object(box):
    """Crop at 28 x 28 and paste back: what is lost is the grid's resolution, with no shift in any direction."""
    mask = disc(120, 120, 60, 60, 28)
    boxes = torch.tensor([box])
    pasted = paste_masks(crop_masks(mask[None], FIRST, boxes, 28), boxes, 120, 120)[0]
    both, either = (pasted & mask.bool()).sum(), (pasted | mask.bool()).sum()
    assert both / either > 0.95
    ys, xs = torch.nonzero(pasted, as_tuple=True)
    assert abs(ys.float().mean() + 0.5 - 60) < 0.35 and abs(xs.float().mean() + 0.5 - 60) < 0.35


def test_masks_are_pasted_as_whole_images_of_them_would_be():
    """Twenty boxes of many sizes, some of which reach beyond the image or lie outside."""
    generator = torch.Generator().manual_seed(0)
    boxes = 70 * torch.rand(20, 4, generator=generator) - 10
    boxes[:, 2:] = boxes[:, :2] + 50 * torch.rand(20, 2, generator=generator)
    boxes[3] = torch.tensor([100.0, 20.0, 110.0, 30.0])
    boxes[7] = torch.tensor([-30.0, -20.0, 120.0, 90.0])
    probabilities = torch.rand(20, 14, 14, generator=generator)
    rows = interpolation(boxes[:, 1], boxes[:, 3], 14, torch.arange(60) + 0.5)
    columns = interpolation(boxes[:, 0], boxes[:, 2], 14, torch.arange(90) + 0.5)
    whole = rows @ probabilities @ columns.mT >= 0.5
    pasted = paste_masks(probabilities, boxes, 60, 90)
    assert torch.equal(pasted, whole) and not pasted[3].any() and pasted[7].float().mean() > 0.3


@pytest.mark.parametrize(
    "box, window",
    [
        ((2.0, 3.0, 5.0, 7.0), (slice(3, 8), slice(2, 6))),
        ((2.4, 3.6, 5.5, 7.1), (slice(3, 8), slice(2, 6))),
        ((-4.0, -3.0, 5.0, 70.0), (slice(0, 10), slice(0, 6))),
        ((30.0, 2.0, 40.0, 3.0), (slice(2, 4), slice(20, 20))),
        ((-9.0, -9.0, -5.0, -5.0), (slice(0, 0), slice(0, 0))),
        ((9.0, 9.0, 3.0, 3.0), (slice(9, 9), slice(9, 9))),
    ],
)
def test_a_window_has_all_pixels_of_the_image_that_its_box_reaches(box, window):
    assert windows_of(torch.tensor([box]), 10, 20) == [window]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_boxes_that_are_not_finite_paste_without_an_error(value):
    pasted = paste_masks(torch.ones(2, 4, 4), torch.tensor([[1.0, 1.0, 3.0, 3.0], [value, 2.0, value, 5.0]]), 10, 10)
    assert pasted[0, 1:3, 1:3].all() and pasted[0].sum() == 4 and not pasted[1].any()


def test_boxes_without_area_paste_nothing():
    assert not paste_masks(torch.ones(1, 4, 4), torch.tensor([[5.0, 5.0, 5.0, 5.0]]), 10, 10).any()
