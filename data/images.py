"""Image files of any kind to RGB, and the one rule by which images and what is drawn on them are resized."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What cameras and scanners store in 16 bits. The fewest that hold a picture's values are taken for white.
_DEPTHS = (8, 10, 12, 14, 16)

# 16-bit colours are decoded to their upper bytes; with the other order of bytes, to their lower ones.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path, height: int, width: int) -> Image.Image:
    """The RGB picture in a file, in the stated size, which is what its annotations refer to.

    Grey is repeated, transparency dropped, 16 bits scaled to 8 by as many of them as are in use. An EXIF orientation is
    followed, unless only the stored orientation has the stated size. Raises ValueError when the file is broken or of
    another size.
    """
    picture = open_image(path, (width, height))
    if picture.size != (width, height):
        raise ValueError(
            f"{path}: expected {width} x {height} pixels as the annotations say, "
            f"got {picture.width} x {picture.height}; correct the annotation file"
        )
    return picture


def open_image(path: Path, stored_size: tuple[int, int] | None = None) -> Image.Image:
    """The RGB picture in a file, turned as its EXIF orientation says.

    stored_size: (width, height) that, where only the stored orientation has it, leaves the picture unturned.
    Raises ValueError when the file is broken.
    """
    try:
        with _opened(path) as file:
            levels = _wide_levels(path, file)
            file.load()
            picture = file if levels is None else _from_levels(levels, file)
            turned = ImageOps.exif_transpose(picture)
            picture = picture if turned.size != stored_size and picture.size == stored_size else turned
            if picture.mode == "F":
                raise ValueError("floating-point pixels, whose scale is not known; save it with 8 or 16 bits")
            return picture.convert("RGB")
    except _UNREADABLE as error:
        raise ValueError(f"{path}: expected a picture that can be read, got: {error}") from error


def bits_in_use(path: Path) -> int | None:
    """How many bits the values of a 16-bit picture take; None for other pictures. Raises ValueError as open_image."""
    try:
        with _opened(path) as file:
            levels = _wide_levels(path, file)
            return None if levels is None else _bits(levels)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: expected a picture that can be read, got: {error}") from error


def _opened(path: Path) -> Image.Image:
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("a folder or a device")
    return Image.open(path)


def _wide_levels(path: Path, file: Image.Image) -> np.ndarray | None:
    """The values of a picture with more than 8 bits, int64 [H, W] or [H, W, 3]; None for other pictures."""
    if file.mode.startswith("I"):
        levels = np.asarray(file).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit pixels, whose scale is not known; save it with 8 or 16 bits")
        return levels
    raw_modes = {_raw_mode(tile) for tile in getattr(file, "tile", [])}
    if not any(";16" in mode for mode in raw_modes):
        return None
    with Image.open(path) as again:
        if raw_modes == {"LA;16B"}:  # four bytes per pixel: as red and green, those of the grey value
            again.tile = [_decoded_as(tile, "RGBA") for tile in again.tile]
            again.load()
            values = np.asarray(again).astype(np.int64)
            return 256 * values[..., 0] + values[..., 1]
        again.tile = [_decoded_as(tile, _other_order(_raw_mode(tile))) for tile in again.tile]
        again.load()
        file.load()
        return (256 * np.asarray(file).astype(np.int64) + np.asarray(again))[..., :3]


def _raw_mode(tile: Any) -> str:
    """How Pillow's decoder finds the pixels in a part of a file: "RGB;16B" and the like."""
    mode = tile[3] if isinstance(tile[3], str) else tile[3][0] if tile[3] else ""
    return mode if isinstance(mode, str) else ""


def _other_order(mode: str) -> str:
    return mode[:-1] + _OTHER_ORDER[mode[-1]]


def _decoded_as(tile: Any, mode: str) -> Any:
    """The part of a file with its pixels taken for others. A plain tuple before Pillow 11."""
    parts = (*tile[:3], mode if isinstance(tile[3], str) else (mode, *tile[3][1:]))
    return tile._make(parts) if hasattr(tile, "_make") else parts


def _bits(levels: np.ndarray) -> int:
    return next(bits for bits in _DEPTHS if levels.max() < 2**bits)


def _from_levels(levels: np.ndarray, file: Image.Image) -> Image.Image:
    """Eight bits of those in use, with the orientation that the file states."""
    picture = Image.fromarray((levels * 255 // (2 ** _bits(levels) - 1)).astype(np.uint8))
    picture.info = dict(file.info)
    return picture


def fitted_size(height: int, width: int, shorter: int, longest: int) -> tuple[int, int]:
    """The (height, width) at which the shorter side is `shorter`, or less if the longer would exceed `longest`."""
    scale = min(shorter / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
