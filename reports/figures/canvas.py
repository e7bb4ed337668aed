"""Masks on images: outlines that follow the mask's own edges, and notes that keep clear of each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from reports.figures.style import DPI, INK, text_width

SATURATION = 0.35  # of the image's own colour, so that outlines stand out
SCALE = 2  # output pixels for a pixel of the image
THICKNESS = 4  # output pixels of an outline where the image is drawn at about its size
OBJECT_COLOURS = ("#FFB000", "#0090FF", "#FF4F6B", "#00C08B", "#C77DFF", "#FFF04D", "#FF8AD8", "#7CFF6B")
NOTE_SIZE = 7.5
NOTE_HEIGHT = 0.125  # inches


@dataclass(frozen=True)
class Instance:
    """An outline to draw. mask: [H, W] bool; note: a few characters on it, such as an IoU; dashed: not found there."""

    mask: np.ndarray
    colour: str
    note: str = ""
    dashed: bool = False


def paint(axes: Axes, pixels: np.ndarray, instances: Sequence[Instance], inches: float, notes: bool = True) -> None:
    """Draws outlines over the image `pixels` [H, W, 3].

    inches: how wide the image is drawn; notes: whether to write them.
    """
    height, width = pixels.shape[:2]
    size = (width * SCALE, height * SCALE)
    canvas = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)).astype(float)
    canvas = SATURATION * canvas + (1 - SATURATION) * canvas.mean(axis=2, keepdims=True)
    canvas = 8 * np.round((50 + 0.75 * canvas) / 8)  # noise of a level or two would only make the file larger
    times = max(1, round(size[0] / (SCALE * inches * DPI)))  # by which a large photograph is made smaller
    for item in instances:
        _draw_outline(canvas, item, times * THICKNESS)
    smooth = "none" if times == 1 else "hanning"
    axes.imshow(canvas.round().clip(0, 255).astype(np.uint8), extent=(0, width, height, 0), interpolation=smooth)
    if notes:
        write_notes(axes, instances, (height, width), inches)
    axes.set_axis_off()


def _draw_outline(canvas: np.ndarray, item: Instance, thickness: int) -> None:
    """Draws an outline with a dark edge on the inside into `canvas` [H x SCALE, W x SCALE, 3]."""
    rows, columns = np.nonzero(item.mask)
    if not len(rows):
        return
    window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    large = np.kron(item.mask[window], np.ones((SCALE, SCALE), bool))
    part = canvas[tuple(slice(SCALE * span.start, SCALE * span.stop) for span in window)]
    for edge, colour in (
        (outline(large, thickness + thickness // THICKNESS), INK),
        (outline(large, thickness), item.colour),
    ):
        if item.dashed:
            down, across = np.indices(edge.shape)
            edge &= (down + across) // (5 * SCALE * thickness // THICKNESS) % 2 == 0
        part[edge] = 255 * np.array(to_rgb(colour))


def outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The pixels of `mask` within `thickness` steps of its border."""
    inner = mask.copy()
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def write_notes(axes: Axes, instances: Sequence[Instance], size: tuple[int, int], inches: float) -> None:
    """Writes every note on the middle of its mask, or as near as the others and the image's border leave room.

    It has its outline's colour, which tells whose it is where masks lie in each other.
    A mask that the note would hide has it below, or above where there is no room.
    """
    height, width = size
    scale = width / inches  # pixels of an inch
    taken: list[tuple[float, float, float]] = []
    for item in instances:
        rows, columns = np.nonzero(item.mask)
        if not item.note or not len(rows):
            continue
        half = 0.5 * text_width(item.note, NOTE_SIZE, bold=True) * scale + 0.02 * width
        step = NOTE_HEIGHT * scale
        x = float(np.clip(columns.mean(), half, max(half, width - half)))
        y = float(np.clip(rows.mean(), 0.6 * step, height - 0.6 * step))
        if np.ptp(rows) < 3 * step and np.ptp(columns) < 4 * half:
            below, above = rows.max() + 0.8 * step, rows.min() - 0.8 * step
            y = float(below if below <= height - 0.55 * step else max(above, 0.55 * step))
        for shift in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6):
            place = y + shift * step
            free = all(abs(x - other) > half + reach or abs(place - level) >= step for other, level, reach in taken)
            if free and 0.55 * step <= place <= height - 0.55 * step:
                y = place
                break
        taken.append((x, y, half))
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": NOTE_SIZE, "weight": "bold"}
        text = axes.text(x, y, item.note, color=item.colour, **style)
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground=INK)])
