"""One entry of an annotation file's `annotations`, made usable or skipped: its flags, outline, box and area."""

import math
from collections.abc import Mapping
from typing import Any

from data.ids import Ids
from data.problems import Fault
from data.segmentation import Outline, clean, drawn_area, extent_by_rows

Box = tuple[float, float, float, float]

# Boxes of the official annotations reach over the border by rounding; further out is a mistake.
_BORDER = 1.0

# A narrower box is one without area: its corners cannot be told apart reliably in float32.
_NARROW = 0.01

# Overlaps (IoU) of a box with the box around its mask. Boxes of objects that are partly hidden may be larger than the
# mask: such a box contradicts it below 0.5, or if another reading of its numbers fits.
_AGREES, _FITS, _CONTRADICTS = 0.8, 0.95, 0.5

# An area this many times the mask's, or less than the mask's by as much, is not the mask's.
_WRONG_AREA = 4.0

_FLAGS = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}


def clean_object(
    raw: Mapping[str, Any], images: Mapping[Any, Mapping[str, Any]], image_ids: Ids, category_ids: Ids
) -> tuple[dict[str, Any] | None, list[Fault]]:
    """The entry made usable, without an id, or None; and what was wrong with it.

    image_id becomes the image's number and category_id the category's key. bbox is clipped to the image, area is in
    pixels, iscrowd 0 or 1, segmentation as in Outline.
    """
    image_key, category_id = image_ids.find(raw.get("image_id")), category_ids.find(raw.get("category_id"))
    if image_key is None:
        return None, [Fault(f"unknown image {raw.get('image_id')!r:.80}", "skipped")]
    if category_id is None:
        return None, [Fault(f"unknown category {raw.get('category_id')!r:.80}", "skipped")]
    crowd = _flag(raw.get("iscrowd"))
    if crowd is None:
        return None, [Fault(f"expected iscrowd 0 or 1, got {raw.get('iscrowd')!r:.80}", "skipped")]
    image = images[image_key]
    height, width = image["height"], image["width"]
    outline, faults = clean(raw.get("segmentation"), height, width)
    if outline is None:
        return None, faults
    box, of_box = _clean_box(raw.get("bbox"), outline, height, width)
    if box is None:
        return None, faults + of_box
    area, of_area = _clean_area(raw.get("area"), outline, height, width)
    entry = {"image_id": image["id"], "category_id": category_id, "bbox": box, "area": area, "iscrowd": crowd}
    return {**entry, "segmentation": outline.value}, faults + of_box + of_area


def _flag(value: Any) -> int | None:
    """0 or 1, also from true and false and as text; 0 where nothing is said; None for anything else."""
    if value is None:
        return 0
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return int(value) if isinstance(value, int | float) and value in (0, 1) else None


def _is_number(value: Any) -> bool:
    """A JSON number that arithmetic can be done with: finite as a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e15


def _clean_box(box: Any, outline: Outline, height: int, width: int) -> tuple[list[float] | None, list[Fault]]:
    """An xywh box clipped to the image, or None."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return None, [Fault(f"expected a box of four numbers, got {box!r:.80}", "skipped")]
    x, y, w, h = box
    extent = outline.extent
    reason = _likely_reason(box, extent, height, width)
    if not reason and isinstance(outline.value, dict) and _contradict(_corners(box), extent):
        by_rows = _iou(_corners(box), extent_by_rows(outline.value, height, width)) >= _FITS
        reason = "the RLE reads like rows of pixels; COCO's runs go down the columns" if by_rows else ""
    if w < _NARROW or h < _NARROW:
        return None, [Fault(f"box without area {box}", "skipped", reason)]
    x1, y1, x2, y2 = clipped = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x2 - x1 < _NARROW or y2 - y1 < _NARROW:
        return None, [Fault(f"box {box} outside the image of {width} x {height}", "skipped", reason)]
    over = max(x1 - x, y1 - y, x + w - x2, y + h - y2)
    result = box if over == 0 else [x1, y1, x2 - x1, y2 - y1]
    rule = "clipped" if over > _BORDER else "kept"
    if reason or _contradict(clipped, extent):
        around = [round(value, 1) for value in (*extent[:2], extent[2] - extent[0], extent[3] - extent[1])]
        text = f"box {box} and the box around its mask, {around}, contradict each other"
        return result, [Fault(text, rule, reason)]
    if rule == "clipped":
        return result, [Fault(f"box {box} reaches out of the image of {width} x {height}", rule)]
    return result, []


def _contradict(box: Box, extent: Box) -> bool:
    """Whether two boxes cannot be of one object. Those of tiny objects may differ by rounding."""
    return _iou(box, extent) < _CONTRADICTS and max(abs(a - b) for a, b in zip(box, extent, strict=True)) > 2


def _likely_reason(box: list[float], extent: Box, height: int, width: int) -> str:
    """Why the box is not that of the mask: how it must be read to be that; "" where it is, or nothing fits."""
    iou = _iou(_corners(box), extent)
    if iou >= _AGREES:
        return ""
    a, b, c, d = box
    readings = {
        "x1, y1, x2, y2": (a, b, c, d),
        "y, x, height, width": (b, a, b + d, a + c),
        "y1, x1, y2, x2": (b, a, d, c),
        "centre x, centre y, width, height": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
        "y counted from the lower border": (a, height - b - d, a + c, height - b),
        "x counted from the right border": (width - a - c, b, width - a, b + d),
        "shares of the image's sides": (a * width, b * height, (a + c) * width, (b + d) * height),
    }
    for name, read in readings.items():
        if _iou(read, extent) >= _FITS:
            return f"the box reads like {name}; COCO's is x, y, width, height in pixels from the upper left corner"
    if iou >= _CONTRADICTS:
        return ""
    across, down = extent[2] - extent[0], extent[3] - extent[1]
    scale = math.sqrt(max(c, 0) * max(d, 0) / (across * down)) if across * down else 0
    if scale and _iou(_corners([value / scale for value in box]), extent) >= _FITS:
        return f"box and mask are of different image sizes, by a factor of about {scale:.2g}"
    if _iou((0, 0, c, d), (0, 0, across, down)) >= _FITS:
        return "box and mask have one size in different places: they count from different origins"
    return ""


def _corners(box: list[float]) -> Box:
    x, y, w, h = box
    return x, y, x + w, y + h


def _iou(one: Box, other: Box) -> float:
    """The IoU of two xyxy boxes; 0 where one has no area."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas) - across * down)


def _clean_area(value: Any, outline: Outline, height: int, width: int) -> tuple[float, list[Fault]]:
    """The area in pixels, recomputed where it is missing or cannot be the mask's."""
    if value is None:
        return drawn_area(outline.value, height, width), []
    if _is_number(value) and outline.area / _WRONG_AREA <= value <= outline.area * _WRONG_AREA:
        return value, []
    counted = drawn_area(outline.value, height, width)
    # What tiny polygons enclose and how many pixels they cover differ; polygons may overlap or cut each other out.
    if _is_number(value) and counted / _WRONG_AREA - 4 <= value <= counted * _WRONG_AREA + 4 and value > 0:
        return value, []
    return counted, [Fault(f"expected the area of its mask, {counted} pixels, got {value!r:.80}", "recomputed")]
