"""Instance masks stored as the pixels within their bounding boxes, eight to a byte.

As bitmaps of the whole image, 100 masks in 12 megapixels would take 1.2 GB. Letters: H and W, the image's sides; h and
w, those of a mask's bounding box.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as rle

from data.segmentation import rle_runs

Window = tuple[slice, slice]
"""Rows and columns of an image, all within it."""


@dataclass(frozen=True)
class Mask:
    """The mask of an object in an image.

    size:          (H, W) of the image
    rows, columns: the mask's bounding box; empty if the mask is
    bits:          the pixels [h, w] in it, row by row, packed
    """

    size: tuple[int, int]
    rows: slice
    columns: slice
    bits: np.ndarray

    @classmethod
    def decoded(cls, encoded: dict[str, Any]) -> "Mask":
        """From a compressed RLE. Raises ValueError if it does not decode.

        Runs go down the columns, so only the columns of the bounding box are decoded.
        """
        counts = encoded["counts"]
        runs = rle_runs(counts.decode("ascii") if isinstance(counts, bytes) else counts)
        if runs is None or runs.min() < 0:
            raise ValueError("expected RLE counts, got something that does not decode")
        height, width = encoded["size"]
        x, y, w, h = (int(value) for value in rle.toBbox(encoded))
        ends = np.clip(np.cumsum(runs) - x * height, 0, w * height)
        lengths = np.diff(ends, prepend=0)
        strip = np.repeat(np.arange(len(runs)) % 2 == 1, lengths).reshape(w, height)
        return cls((height, width), slice(y, y + h), slice(x, x + w), np.packbits(strip[:, y : y + h].T))

    @cached_property
    def area(self) -> int:
        """In pixels."""
        return int(np.count_nonzero(np.unpackbits(self.bits)))

    @property
    def pixels(self) -> np.ndarray:
        """bool [h, w]: the pixels at `rows` and `columns`."""
        h, w = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        return np.unpackbits(self.bits, count=h * w).reshape(h, w).view(bool)

    def within(self, window: Window) -> np.ndarray:
        """bool: the mask's pixels in a window of the image."""
        rows, columns = window
        part = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        common = _intersection(rows, self.rows), _intersection(columns, self.columns)
        if all(side.start < side.stop for side in common):
            part[_relative(common, window)] = self.pixels[_relative(common, (self.rows, self.columns))]
        return part

    def coverage(self, window: Window) -> float:
        """The share of a window's pixels that are the mask's."""
        rows, columns = window
        common = _intersection(rows, self.rows), _intersection(columns, self.columns)
        if not all(side.start < side.stop for side in common):
            return 0.0
        covered = int(np.count_nonzero(self.pixels[_relative(common, (self.rows, self.columns))]))
        return covered / ((rows.stop - rows.start) * (columns.stop - columns.start))


def _intersection(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _relative(inner: Window, outer: Window) -> Window:
    """A window with its rows and columns counted from those of one around it."""
    rows, columns = (
        slice(side.start - around.start, side.stop - around.start) for side, around in zip(inner, outer, strict=True)
    )
    return rows, columns


def window(box: np.ndarray, size: tuple[int, int]) -> Window:
    """The pixels that a box touches, at least one. box: xyxy in pixels; size: H and W."""
    height, width = size
    x1, y1 = np.floor(box[:2]).astype(int).clip(min=0).tolist()
    x2, y2 = np.ceil(box[2:]).astype(int).tolist()
    rows = slice(min(y1, height - 1), min(max(y1 + 1, y2), height))
    return rows, slice(min(x1, width - 1), min(max(x1 + 1, x2), width))


def count_masks(masks: list[Mask], size: tuple[int, int]) -> np.ndarray:
    """[H, W]: how many of the masks cover each pixel."""
    counts = np.zeros(size, np.min_scalar_type(len(masks)))
    for mask in masks:
        counts[mask.rows, mask.columns] += mask.pixels
    return counts


def share(pixels: np.ndarray) -> float:
    """The share of bool pixels that are set."""
    return int(np.count_nonzero(pixels)) / pixels.size


def dilate(pixels: np.ndarray, reach: int, axis: int) -> np.ndarray:
    """bool [H, W]: the pixels with a set pixel of bool [H, W] at most `reach` away along an axis.

    Each round doubles the length of the stretch that a pixel has gathered.
    """
    lines = np.swapaxes(pixels, 0, axis)
    gathered = np.pad(lines, ((0, reach), (0, 0)))
    covered = 1
    while covered < 2 * reach + 1:
        step = min(covered, 2 * reach + 1 - covered)
        gathered[step:] |= gathered[:-step]
        covered += step
    return np.swapaxes(gathered[reach : reach + len(lines)], 0, axis)


def edge_pixels(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: the pixels on both sides of a mask's edge."""
    edge = np.zeros(mask.shape, bool)
    across, down = np.diff(mask, axis=1), np.diff(mask, axis=0)
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge
