"""Masks on true boxes, with a network whose masks are known."""

import math

import pytest
import torch

from ablations.evaluation.true_boxes import floor_ious, mask_ious, true_box_masks
from data.dataset import Sample, collate


class Halves:
    """Fills the left half of every box."""

    def masks_of(self, images, boxes, labels):
        mask = torch.zeros(14, 14)
        mask[:, :7] = 1
        return mask.expand(*labels.shape, 14, 14)


def batch():
    """Two images of 128 px: a square of 96 px that is filled, and one of 28 px whose left half alone is an object."""
    masks = torch.zeros(2, 1, 128, 128, dtype=torch.uint8)
    masks[0, 0, 8:104, 8:104] = 1
    masks[1, 0, 10:38, 10:24] = 1
    boxes = torch.tensor([[[8.0, 8.0, 104.0, 104.0]], [[10.0, 10.0, 38.0, 38.0]]])
    image = torch.zeros(3, 128, 128, dtype=torch.uint8)
    return collate([Sample(image, boxes[i], torch.tensor([1]), masks[i], i) for i in range(2)], 3)


def test_ious_are_of_objects_not_of_padding():
    sides, ious = mask_ious(Halves(), batch())
    assert sides.tolist() == [96, 28]
    assert ious.tolist() == pytest.approx([0.5, 1.0])


def test_metrics_are_means_over_objects_by_their_size_in_cells():
    metrics = true_box_masks(Halves(), [batch()]).tables(32)["true_boxes"]
    assert metrics["IoU"] == pytest.approx(75)
    assert metrics["AP"] == pytest.approx(55)  # the half reaches one threshold of ten
    assert metrics["IoU_96_px_and_more"] == metrics["IoU_2_to_4_cells"] == pytest.approx(50)
    assert metrics["IoU_under_1_cell"] == pytest.approx(100)
    assert metrics["IoU_1_to_2_cells"] is None and metrics["IoU_8_cells_and_more"] is None


def test_object_by_object_the_values_are_those_that_the_means_are_of():
    masks = true_box_masks(Halves(), [batch(), batch()])
    columns = masks.by_object()
    assert columns == {"image_ids": [0, 1] * 2, "IoU": [50, 100] * 2, "IoU_96_px_and_more": [50, None] * 2}
    for name in ("IoU", "IoU_96_px_and_more"):
        values = [value for value in columns[name] if value is not None]
        assert sum(values) / len(values) == pytest.approx(masks.tables(16)["true_boxes"][name])


def test_without_objects_nothing_is_defined():
    empty = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long),
                   torch.zeros(0, 64, 64, dtype=torch.uint8), 1)  # fmt: skip
    for table in true_box_masks(Halves(), [collate([empty])]).tables(16).values():
        assert set(table.values()) == {None}


def test_floors_are_what_the_filled_box_and_an_ellipse_in_it_reach():
    """Of a filled square an ellipse covers pi / 4; of a half-filled box it covers half of its own area rightly."""
    floors = floor_ious(batch())
    assert floors["floor_box"].tolist() == [1.0, 0.5]
    ellipse = math.pi / 4
    assert floors["floor_ellipse"].tolist() == pytest.approx([ellipse, ellipse / 2 / (0.5 + ellipse / 2)], abs=0.01)


def test_an_ellipse_fits_an_ellipse_wherever_its_box_lies():
    rows, columns = torch.arange(64)[:, None] + 0.5, torch.arange(96) + 0.5
    box = torch.tensor([[20.3, 10.6, 80.9, 50.2]])
    centre, radius = (box[0, 2:] + box[0, :2]) / 2, (box[0, 2:] - box[0, :2]) / 2
    mask = ((columns - centre[0]) / radius[0]) ** 2 + ((rows - centre[1]) / radius[1]) ** 2 <= 1
    sample = Sample(torch.zeros(3, 64, 96, dtype=torch.uint8), box, torch.tensor([1]), mask[None].byte(), 1)
    assert floor_ious(collate([sample]))["floor_ellipse"].tolist() == [1.0]


def test_floors_have_the_same_metrics_as_the_models_masks():
    tables = true_box_masks(Halves(), [batch()]).tables(32)
    assert [list(table) for table in tables.values()] == [list(tables["true_boxes"])] * 3
    assert tables["floor_box"]["IoU"] == pytest.approx(75)
    assert tables["floor_box"]["IoU_2_to_4_cells"] == pytest.approx(100)
