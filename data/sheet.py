"""A sheet of samples with their masks outlined: what the synthetic set looks like.

python -m data.sheet OUT.png
"""

import argparse
import sys

import numpy as np
from PIL import Image, ImageDraw

from data.scene import CLASSES, Drawing, draw_image
from data.specs import ShapesSpec
from data.terminal import run_command

_GAP = 6
_PAPER = (255, 255, 255)


def outline(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: the pixels of a bool mask [H, W] that touch a pixel outside it, or the border."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def annotated(drawing: Drawing) -> Image.Image:
    """The image with each visible part outlined in white and named where it can be seen."""
    pixels = drawing.pixels.copy()
    for (x1, y1, x2, y2), crop in zip(drawing.boxes, drawing.crops, strict=True):
        pixels[y1:y2, x1:x2][outline(crop)] = 255
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    for label, (x1, y1, _, _), crop in zip(drawing.labels, drawing.boxes, drawing.crops, strict=True):
        name = CLASSES[label - 1]
        # The visible pixel nearest to the middle of the visible part: the middle itself may be hidden.
        seen = np.argwhere(crop)
        y, x = seen[((seen - seen.mean(axis=0)) ** 2).sum(axis=1).argmin()] + (y1, x1)
        left, top, right, bottom = pen.textbbox((int(x), int(y)), name, anchor="mm")
        pen.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=(0, 0, 0))
        pen.text((int(x), int(y)), name, fill=(255, 255, 255), anchor="mm")
    return image


def sheet(spec: ShapesSpec, rows: int, columns: int) -> Image.Image:
    """The first validation images, in pairs: as the network sees them, and with their ground truth."""
    side = spec.image_side
    paper = Image.new("RGB", (columns * 2 * side + (2 * columns - 1) * _GAP, rows * (side + _GAP) - _GAP), _PAPER)
    for index in range(rows * columns):
        drawing = draw_image(spec, "val", index)
        x, y = index % columns * 2 * (side + _GAP), index // columns * (side + _GAP)
        paper.paste(Image.fromarray(drawing.pixels), (x, y))
        paper.paste(annotated(drawing), (x + side + _GAP, y))
    return paper


def main(arguments: list[str] | None = None) -> None:
    """The command line: see the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m data.sheet", description="Draw a sheet of samples.")
    parser.add_argument("out", help="the picture to write, .png")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=2)
    parsed = parser.parse_args(arguments)
    try:
        # A palette keeps the file a third of the size; camera noise hides that it is one.
        sheet(ShapesSpec(), parsed.rows, parsed.columns).quantize(256).save(parsed.out, optimize=True)
    except (OSError, ValueError) as error:
        sys.exit(f"data.sheet: {error}")


if __name__ == "__main__":
    run_command(main)
