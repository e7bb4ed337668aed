"""The outline of an object in a COCO file, polygons or a run-length encoding (RLE), checked before C code sees it.

Letters: H, W sides of the image in pixels.
"""

import math
import re
from collections.abc import Sequence
from itertools import chain
from operator import mul, sub
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

from data.problems import Fault

# Numbers of up to seven characters: "P" to "o" say that more follow.
_WELL_FORMED = re.compile(r"(?:[P-o]{0,6}[0-O])+")


class Outline(NamedTuple):
    """An outline that can be used.

    value:  polygons, lists x, y, x, y, ...; or a compressed RLE with a str
    extent: x1, y1, x2, y2 around it within the image, in pixels
    area:   of the mask in pixels; where polygons are plainly large enough to be seen, what they enclose
    """

    value: Any
    extent: tuple[float, float, float, float]
    area: float


def clean(value: Any, height: int, width: int) -> tuple[Outline | None, list[Fault]]:
    """The outline of an object in an image [H, W], or None where it has none with a pixel."""
    if isinstance(value, dict):
        return _clean_rle(value, height, width)
    if not isinstance(value, list) or not value:
        reason = "" if value else "training needs masks: an object without a segmentation has none"
        return None, [Fault(f"expected polygons or an RLE, got {value!r:.80}", "skipped", reason)]
    value, faults = _as_polygons(value)
    problems = [polygon_problem(polygon, max(height, width)) for polygon in value]
    good = [polygon for polygon, problem in zip(value, problems, strict=True) if problem is None]
    bad = [problem for problem in problems if problem is not None]
    if not good:
        return None, [Fault(f"no polygon that can be used: {bad[0]}", "skipped")]
    if bad:
        faults.append(Fault(f"{len(bad)} of {len(value)} polygons: {bad[0]}", "dropped"))
    outline = _of_polygons(good, height, width)
    if outline is None:
        return None, [
            *faults,
            Fault("no pixel of its mask is in the image", "skipped", _why_unseen(good, height, width)),
        ]
    return outline, faults


def _clean_rle(value: dict[str, Any], height: int, width: int) -> tuple[Outline | None, list[Fault]]:
    problem = rle_problem(value, height, width)
    if problem:
        swapped = value.get("size") == [width, height]
        reason = "the size reads like width, height; COCO's is height, width" if swapped else ""
        return None, [Fault(problem, "skipped", reason)]
    counts, size = value["counts"], [height, width]
    if isinstance(counts, list):
        counts = rle.frPyObjects({"size": size, "counts": counts}, height, width)["counts"].decode("ascii")
    value = {"size": size, "counts": counts}
    area = int(rle.area(value))
    if area == 0:
        return None, [Fault("no pixel of its mask is set", "skipped")]
    x, y, w, h = rle.toBbox(value).tolist()
    return Outline(value, (x, y, x + w, y + h), area), []


def _as_polygons(value: list[Any]) -> tuple[list[Any], list[Fault]]:
    """A list of polygons, from what others write for it: numbers in a row, or points as pairs of numbers."""
    if all(isinstance(part, int | float) for part in value):
        return [value], [Fault("expected a list of polygons, got one list of numbers", "read as one polygon")]
    if _are_points(value):
        return [list(chain.from_iterable(value))], [
            Fault("expected a list of polygons, got a list of points", "read as one polygon")
        ]
    if all(isinstance(part, list) and _are_points(part) for part in value):
        flat = [list(chain.from_iterable(part)) for part in value]
        return flat, [Fault("expected polygons x, y, x, y, ..., got lists of points", "read as polygons")]
    return value, []


def _are_points(value: list[Any]) -> bool:
    return len(value) >= 3 and all(
        isinstance(point, list) and len(point) == 2 and all(isinstance(number, int | float) for number in point)
        for point in value
    )


def polygon_problem(polygon: Any, side: int) -> str | None:
    """What is wrong with a list x, y, x, y, ... in an image with this longer side, or None."""
    if not isinstance(polygon, list):
        return f"expected a polygon as a list of numbers, got {polygon!r:.80}"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"expected a polygon of three points or more, got {len(polygon)} numbers"
    try:
        # One pass in C; a NaN makes the sum one. Points far off would make the C code trace lines without end.
        near = -side <= min(polygon) and max(polygon) <= 2 * side and math.isfinite(sum(polygon))
    except TypeError:
        near = False
    return None if near else f"expected a polygon of numbers in or near the image, got {polygon!r:.80}"


def _of_polygons(polygons: list[list[float]], height: int, width: int) -> Outline | None:
    """None where no pixel is inside. Only what might have none is drawn: drawing takes longer than all other checks."""
    x1, y1, x2, y2, areas = float(width), float(height), 0.0, 0.0, []
    for polygon in polygons:
        xs, ys = polygon[::2], polygon[1::2]
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        x1, y1, x2, y2 = min(x1, left), min(y1, top), max(x2, right), max(y2, bottom)
        inside = left >= 0 and top >= 0 and right <= width and bottom <= height
        areas.append(_thick_area(xs, ys, (right - left) * (bottom - top)) if inside else 0)
    area = sum(areas) if all(areas) else drawn_area(polygons, height, width)
    return Outline(polygons, (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)), area) if area else None


def drawn_area(segmentation: Any, height: int, width: int) -> int:
    """The pixels of a clean outline's mask."""
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, height, width))
    return int(rle.area(segmentation))


def extent_by_rows(encoded: dict[str, Any], height: int, width: int) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 around the mask that an RLE would have if its runs went along the rows."""
    mask = rle.decode(encoded).ravel(order="F").reshape(height, width)
    x, y, w, h = rle.toBbox(rle.encode(np.asfortranarray(mask))).tolist()
    return x, y, x + w, y + h


def _thick_area(xs: list[float], ys: list[float], box_area: float) -> float:
    """The area that a polygon encloses if a pixel is inside for sure, else 0. On lists: most polygons are short.

    A simple polygon holds a circle with a radius of area / perimeter: from 1 pixel on, some pixel's centre is in it.
    One that winds twice encloses nothing, as pixels are filled by the even-odd rule.
    """
    next_xs, next_ys = xs[1:] + xs[:1], ys[1:] + ys[:1]
    area = abs(sum(map(mul, xs, next_ys)) - sum(map(mul, next_xs, ys))) / 2
    perimeter = sum(map(abs, map(sub, next_xs, xs))) + sum(map(abs, map(sub, next_ys, ys)))  # or a bit more
    half = len(xs) // 2
    winds_twice = area > box_area or (xs[:half] == xs[half:] and ys[:half] == ys[half:])
    return area if area >= perimeter and not winds_twice else 0


def _why_unseen(polygons: list[list[float]], height: int, width: int) -> str:
    """The likely reason that not one pixel is in the mask."""
    xs, ys = ([value for polygon in polygons for value in polygon[axis::2]] for axis in (0, 1))
    if min(xs) >= width or min(ys) >= height or max(xs) <= 0 or max(ys) <= 0:
        return "the mask is outside the image"
    if min(*xs, *ys) >= 0 and max(*xs, *ys) <= 1:
        return "coordinates from 0 to 1: multiply them by the image's width and height"
    return "the mask is thinner than a pixel"


def rle_problem(value: dict[str, Any], height: int, width: int) -> str | None:
    """What is wrong with a run-length encoding, or None. Checked here because the C code trusts its input."""
    counts = value.get("counts")
    if value.get("size") != [height, width]:
        return f"expected an RLE of size {[height, width]}, got {value.get('size')!r:.80}"
    runs: np.ndarray | None = None
    if isinstance(counts, list) and all(isinstance(run, int) for run in counts):
        runs = np.array(counts, dtype=object)
    elif isinstance(counts, str):
        runs = rle_runs(counts)
    if runs is None or len(runs) == 0 or min(runs) < 0:
        return "expected RLE counts, got something that does not decode"
    total = int(sum(runs.tolist()))
    return None if total == height * width else f"expected an RLE of {height * width} pixels, got {total}"


def rle_runs(counts: str) -> np.ndarray | None:
    """The runs of a compressed RLE, int64, or None when it does not decode.

    Each number is a row of characters with five bits each, lowest first, 32 marking that more follow; from the fourth
    number on, what is stored is the difference from the number before the last.
    """
    codes = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:
        return None
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shift, starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def sound_rles(counts: Sequence[str], pixels: np.ndarray) -> np.ndarray:
    """bool [N]: which of N compressed RLEs decode to as many pixels [N] as expected; the format is that of rle_runs."""
    sound = np.array([_WELL_FORMED.fullmatch(text) is not None for text in counts], dtype=bool)
    texts = [text for text, good in zip(counts, sound, strict=True) if good]
    if not texts:
        return sound
    codes = np.frombuffer("".join(texts).encode("ascii"), np.uint8).astype(np.int64) - 48
    last = codes & 32 == 0  # of a number
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << shift, starts)
    numbers -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    sizes = np.diff(np.cumsum(last)[np.cumsum([len(text) for text in texts]) - 1], prepend=0)  # numbers in each RLE
    first = np.cumsum(sizes) - sizes
    position = np.arange(len(numbers)) - np.repeat(first, sizes)
    runs = np.where(position == 0, numbers, 0)
    for odd in (1, 0):  # differences from the number before the last, within an RLE
        own = (position % 2 == odd) & (position > 0)
        summed = np.cumsum(np.where(own, numbers, 0))
        before = np.concatenate(([0], summed[:-1]))[first]
        runs = np.where(own, summed - np.repeat(before, sizes), runs)
    totals, least = np.add.reduceat(runs, first), np.minimum.reduceat(runs, first)
    sound[sound] = (totals == np.asarray(pixels)[sound]) & (least >= 0)
    return sound
