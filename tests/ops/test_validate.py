"""Arguments that make no sense are refused with what was expected, what came and what to pass."""

import pytest
import torch

from ops.roi_align import roi_align
from ops.roi_pool import roi_pool
from ops.roi_warp import roi_warp
from ops.validate import check_boxes

MAP = torch.zeros(2, 3, 8, 8)
BOXES = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])] * 2


@pytest.mark.parametrize("operator", [roi_align, roi_pool, roi_warp])
@pytest.mark.parametrize(
    ("feature", "boxes", "size", "words"),
    [
        (torch.zeros(3, 8, 8), BOXES, 7, r"\[B, C, H, W\].*\[3, 8, 8\] float32 on cpu"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int32), BOXES, 7, "floating.*int32"),
        (torch.zeros(2, 3, 0, 8), BOXES, 7, "at least one cell"),
        (MAP, BOXES[:1], 7, "2 images.*list of 1"),
        (MAP, [BOXES[0], torch.zeros(1, 5)], 7, r"boxes\[1\].*\[1, 5\]"),
        (MAP, torch.zeros(4, 4), 7, r"\[\.\.\., 5\].*\[4, 4\]"),
        (MAP, torch.zeros(3, 5, 4), 7, r"B = 2.*\[3, 5, 4\]"),
        (MAP, torch.zeros(4, 5, dtype=torch.int64), 7, "floating.*int64"),
        (MAP, torch.tensor([[2.0, 0, 0, 1, 1]]), 7, "0 to 1.*got 2 to 2"),
        (MAP, torch.tensor([[-1.0, 0, 0, 1, 1]]), 7, "0 to 1.*got -1"),
        (MAP, "boxes", 7, "boxes: expected a list"),
        (MAP, BOXES, 0, "output_size.*got 0"),
        (MAP, BOXES, (7, 7, 7), "output_size"),
        (MAP, BOXES, (7, 2.5), "output_size"),
        (MAP.to("meta"), BOXES, 7, "device meta"),
    ],
)
def test_bad_tensors(operator, feature, boxes, size, words):
    with pytest.raises(ValueError, match=words):
        operator(feature, boxes, size)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spatial_scale": 0.0}, "spatial_scale.*positive"),
        ({"spatial_scale": float("nan")}, "spatial_scale"),
        ({"sampling_ratio": 2.0}, "sampling_ratio.*2.0"),
        ({"reduce": "mean"}, "ave, max.*'mean'"),
        ({"backend": "cuda"}, "auto, reference, compiled, pytorch, triton, torchvision.*'cuda'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        roi_align(MAP, BOXES, 7, **options)


def test_every_form_of_boxes_names_the_images():
    device = torch.device("cpu")
    assert check_boxes([BOXES[0], torch.zeros(0, 4)], 2, device).image.tolist() == [0]
    assert check_boxes(torch.zeros(2, 3, 4), 2, device).image.tolist() == [0] * 3 + [1] * 3
    assert check_boxes(torch.tensor([[1.0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]), 2, device).image.tolist() == [1, 0]


def test_half_precision_boxes_become_float32():
    boxes = torch.tensor([[[1000.0, 0, 1001, 4]]])
    assert check_boxes(boxes.half(), 1, torch.device("cpu")).boxes.dtype == torch.float32
    assert check_boxes(boxes.double(), 1, torch.device("cpu")).boxes.dtype == torch.float64
