"""Outlines and their rasterisation, against areas and a pixel-by-pixel definition."""

import numpy as np
import pytest

from data.masks import PackedMasks
from data.silhouettes import OUTLINES, rasterise, turned


def inside(x: float, y: float, polygon: np.ndarray) -> bool:
    """The even-odd rule, one point at a time."""
    odd = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) < x:
            odd = not odd
    return odd


@pytest.mark.parametrize("name", OUTLINES)
def test_a_pixel_belongs_when_its_centre_is_inside(name):
    polygon = turned(OUTLINES[name], turn=0.1, stretch=1.2, side=18.3, max_side=30) + 0.37
    expected = [[inside(x + 0.5, y + 0.5, polygon) for x in range(24)] for y in range(26)]
    assert np.array_equal(rasterise(polygon, 26, 24), np.array(expected))


@pytest.mark.parametrize("name", OUTLINES)
def test_area_matches_the_polygon(name):
    polygon = turned(OUTLINES[name], turn=-0.15, stretch=0.8, side=180.0, max_side=250)
    (x, y), (following_x, following_y) = polygon.T, np.roll(polygon, -1, axis=0).T
    area = abs((x * following_y - y * following_x).sum()) / 2
    assert rasterise(polygon, 256, 256).sum() == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("name", OUTLINES)
def test_the_box_has_the_side_that_was_asked_for(name):
    polygon = turned(OUTLINES[name], turn=0.05, stretch=1.25, side=90.0, max_side=250)
    width, height = polygon.max(axis=0)
    assert polygon.min(axis=0).tolist() == [0, 0]
    assert np.sqrt(width * height) == pytest.approx(90)
    assert turned(OUTLINES[name], 0.05, 1.25, side=90.0, max_side=50).max() == pytest.approx(50)


def test_quarter_turn_rotates_the_mask():
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    polygon = turned(square, turn=1.0, stretch=1.0, side=np.sqrt(2), max_side=10)
    assert polygon.max(axis=0) == pytest.approx([1, 2])


def test_silhouettes_differ_from_each_other():
    """No two classes overlap by 80 % or more, whatever their attitudes within the limits."""
    attitudes = [(turn, stretch) for turn in (-0.17, 0.0, 0.17) for stretch in (0.8, 1.25)]
    drawn = {name: [canvas(turned(outline, *how, 60, 100)) for how in attitudes] for name, outline in OUTLINES.items()}
    for first in drawn:
        for second in drawn:
            if first < second:
                ious = [(a & b).sum() / (a | b).sum() for a in drawn[first] for b in drawn[second]]
                assert max(ious) < 0.85, (first, second)


def canvas(polygon: np.ndarray) -> np.ndarray:
    return rasterise(polygon - polygon.max(axis=0) / 2 + 50, 100, 100)


def test_packed_masks_come_back_at_any_size():
    rng = np.random.default_rng(0)
    boxes = [(3, 2, 3 + w, 2 + h) for w, h in ((1, 1), (8, 1), (5, 3), (16, 16), (13, 7))]
    crops = [rng.random((y2 - y1, x2 - x1)) < 0.5 for x1, y1, x2, y2 in boxes]
    packed = PackedMasks.pack(boxes, crops)
    for index, ((x1, y1, x2, y2), crop) in enumerate(zip(boxes, crops, strict=True)):
        (mask,) = packed.unpack(index, index + 1, 20, 24)
        assert np.array_equal(mask[y1:y2, x1:x2], crop)
        assert mask.sum() == crop.sum()
    assert packed.unpack(1, 4, 20, 24).shape == (3, 20, 24)
    assert PackedMasks.pack([], []).unpack(0, 0, 4, 4).shape == (0, 4, 4)
