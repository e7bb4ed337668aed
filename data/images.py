"""Image files of any kind to RGB, and the one rule by which images and what is drawn on them are resized."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def read_image(path: Path, height: int, width: int) -> Image.Image:
    """The RGB picture in a file, in the stated size, which is what its annotations refer to.

    Grey is repeated, transparency dropped, 16 bits scaled to 8. An EXIF orientation is followed, unless only the
    stored orientation has the stated size. Raises ValueError when the file is broken or of another size.
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
        with Image.open(path) as file:
            file.load()
            turned = ImageOps.exif_transpose(file)
            return eight_bit(file if turned.size != stored_size and file.size == stored_size else turned)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected a picture that can be read, got: {error}") from error


def eight_bit(picture: Image.Image) -> Image.Image:
    """Any Pillow picture as RGB with eight bits a channel."""
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        # Mode "I" holds 16-bit files too, and now and then 8-bit ones.
        levels = levels // 257 if picture.mode != "I" or levels.max() > 255 else levels
        picture = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("floating-point pixels, whose scale is not known; save it with 8 or 16 bits")
    return picture.convert("RGB")


def fitted_size(height: int, width: int, shorter: int, longest: int) -> tuple[int, int]:
    """The (height, width) at which the shorter side is `shorter`, or less if the longer would exceed `longest`."""
    scale = min(shorter / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
