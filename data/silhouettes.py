"""The eight class-defining outlines, and exact rasterisation of polygons.

Pixels must not depend on the machine. Sums, products, quotients and square roots are rounded the same way
everywhere (IEEE 754); sines and tangents are not, so those are rounded to 20 binary digits before use.
"""

import math

import numpy as np

_GRID = 2.0**20


def _snap(values: list[tuple[float, float]]) -> np.ndarray:
    return np.round(np.array(values) * _GRID) / _GRID


def _polar(radii: list[float], turn: float = 0.0) -> list[tuple[float, float]]:
    """Points at equal angles, the first at the top, y down; `turn` in parts of a full circle."""
    angles = [2 * math.pi * (k / len(radii) + turn) for k in range(len(radii))]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    points = []
    for k in range(48):
        t = 2 * math.pi * k / 48
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3, -y))
    return points


def _crescent() -> list[tuple[float, float]]:
    """A disc of radius 1 without a disc of radius 0.8 around (0.5, 0); the two circles meet at x = 0.61."""
    x = (1 - 0.8**2 + 0.5**2) / (2 * 0.5)
    outer, inner = math.acos(x), math.acos((x - 0.5) / 0.8)
    steps = 28
    arc = [outer + (2 * math.pi - 2 * outer) * k / steps for k in range(steps + 1)]
    back = [2 * math.pi - inner - (2 * math.pi - 2 * inner) * k / steps for k in range(1, steps)]
    return [(math.cos(a), math.sin(a)) for a in arc] + [(0.5 + 0.8 * math.cos(a), 0.8 * math.sin(a)) for a in back]


def _cross() -> list[tuple[float, float]]:
    arm = 0.36  # half of an arm's width; the cross reaches from -1 to 1
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


# Class names in the order of their labels 1..K, with unit outlines [V, 2] (x right, y down).
OUTLINES: dict[str, np.ndarray] = {
    "disc": _snap(_polar([1.0] * 48)),
    "square": _snap(_polar([1.0] * 4, turn=1 / 8)),
    "triangle": _snap(_polar([1.0] * 3)),
    "star": _snap(_polar([1.0, 0.45] * 5)),
    "cross": _snap(_cross()),
    "heart": _snap(_heart()),
    "crescent": _snap(_crescent()),
    "arrow": _snap([(0, -1), (0.9, 0), (0.38, 0), (0.38, 1), (-0.38, 1), (-0.38, 0), (-0.9, 0)]),
}


def turned(outline: np.ndarray, turn: float, stretch: float, side: float, max_side: float) -> np.ndarray:
    """Stretch, rotate and scale an outline [V, 2], its bounding box starting at (0, 0).

    turn:     tangent of half the angle: with it, sine and cosine are quotients of sums of products
    stretch:  width over height before the rotation, relative to the outline's own
    side:     square root of the bounding box's area, in pixels
    max_side: the box's longer edge is scaled down to this if need be
    """
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    x, y = outline[:, 0] * stretch, outline[:, 1]
    points = np.stack((cosine * x - sine * y, sine * x + cosine * y), axis=1)
    points -= points.min(axis=0)
    width, height = points.max(axis=0).tolist()
    return points * min(side / math.sqrt(width * height), max_side / max(width, height))


def rasterise(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [height, width]: the pixels whose centre is inside the polygon [V, 2] (even-odd rule).

    Each edge toggles, in each row whose centre line it crosses, all pixels to its right.
    """
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    rows = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((y0 <= rows) != (y1 <= rows))
    x = x0[edge] + (row + 0.5 - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    toggles = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).astype(np.uint8)
    inside = np.add.accumulate(toggles.reshape(height, width + 1), axis=1, dtype=np.uint8)[:, :width]
    return (inside & 1).astype(bool)
