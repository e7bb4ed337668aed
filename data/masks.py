"""Masks at rest: each object keeps its visible pixels inside its own box, eight to a byte."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PackedMasks:
    """The masks of N objects in a row.

    boxes:   int16 [N, 4], xyxy pixel edges of each mask's bounding box
    offsets: int64 [N + 1], where each object's bits start in `bits`
    bits:    uint8, row after row inside the box, padded with 0 to whole bytes at the end of each object
    """

    boxes: np.ndarray
    offsets: np.ndarray
    bits: np.ndarray

    @classmethod
    def pack(cls, boxes: list[tuple[int, int, int, int]], crops: list[np.ndarray]) -> "PackedMasks":
        """boxes as above; crops: for each object a bool array of its box's height and width."""
        packed = [np.packbits(crop) for crop in crops]
        offsets = np.cumsum([0] + [len(part) for part in packed], dtype=np.int64)
        bits = np.concatenate(packed) if packed else np.zeros(0, np.uint8)
        return cls(np.array(boxes, np.int16).reshape(-1, 4), offsets, bits)

    def unpack(self, first: int, last: int, height: int, width: int) -> np.ndarray:
        """Objects first..last-1 as full-size masks: uint8 [last - first, height, width]."""
        masks = np.zeros((last - first, height, width), np.uint8)
        for mask, index in zip(masks, range(first, last), strict=True):
            x1, y1, x2, y2 = self.boxes[index].tolist()
            bits = self.bits[self.offsets[index] : self.offsets[index + 1]]
            count = (y2 - y1) * (x2 - x1)
            mask[y1:y2, x1:x2] = np.unpackbits(bits, count=count).reshape(y2 - y1, x2 - x1)
        return masks
