"""Colours, textures and the camera: what covers silhouettes and background, drawn from the same families for all.

Everything is integer arithmetic (or float32 holding integers below 2^24, which is exact in any order of summation),
so that pixels are the same on every machine.
"""

import numpy as np

PATTERNS = ("plain", "stripes", "checks", "dots", "clouds")

CELL = 16
"""Pixels of the grid between whose random values clouds are interpolated."""


def random_colour(rng: np.random.Generator, others: list[np.ndarray], contrast: int) -> np.ndarray:
    """int64 [3]: the first of 16 random colours that is `contrast` away from all others, or else the furthest.

    The distance is Euclidean in RGB levels.
    """
    candidates = 24 + (rng.random((16, 3)) * 208).astype(np.int64)
    if not others:
        return candidates[0]
    distances = ((candidates[:, None] - np.stack(others)) ** 2).sum(axis=2).min(axis=1)
    enough = distances >= contrast * contrast
    return candidates[np.argmax(enough) if enough.any() else np.argmax(distances)]


def texture(rng: np.random.Generator, colour: np.ndarray, strength: int, height: int, width: int) -> np.ndarray:
    """int16 [3, height, width]: a random pattern around a colour, each channel within `strength` of it."""
    pattern = PATTERNS[int(rng.random() * len(PATTERNS))]
    # From channel to channel the pattern differs in strength and sign, so it changes hue as well as brightness.
    swing = ((rng.random(3) * 2 - 1) * strength).astype(np.int16)
    levels = _tone(rng, pattern, height, width) * swing[:, None, None]
    levels >>= 7
    levels += colour.astype(np.int16)[:, None, None]
    return levels


def _tone(rng: np.random.Generator, pattern: str, height: int, width: int) -> np.ndarray:
    """int16 [height, width] within -128..127."""
    if pattern == "clouds":
        return _clouds(rng, height, width)
    # Two perpendicular waves, 1024 units per period of 8 to 32 pixels, along a random direction.
    step = 32 + rng.random() * 96
    along, across = (np.array([1.0, rng.random() * 2 - 1]) * step).astype(np.int64).tolist()
    x, y = np.arange(width, dtype=np.int32), np.arange(height, dtype=np.int32)[:, None]
    u = (along * x + across * y + int(rng.random() * 1024)) & 1023
    if pattern == "plain":
        ramp = (along * x + across * y) * 256 // max(1, along * width + abs(across) * height)
        return np.clip(ramp - 128, -128, 127).astype(np.int16)
    if pattern == "stripes":
        return (np.abs(u - 512) // 2 - 128).astype(np.int16).clip(-128, 127)
    v = (-across * x + along * y + int(rng.random() * 1024)) & 1023
    if pattern == "checks":
        return np.where((u ^ v) & 512, np.int16(127), np.int16(-128))
    return np.where((u - 512) ** 2 + (v - 512) ** 2 < 300**2, np.int16(127), np.int16(-128))


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation of random values on a grid of CELL pixels: int16 [height, width] in -128..127."""
    rows, columns = _interpolation(height), _interpolation(width)
    grid = np.floor(rng.random((rows.shape[1], columns.shape[1])) * 256).astype(np.float32)
    return (rows @ grid @ columns.T).astype(np.int32) // (CELL * CELL) - 128


def _interpolation(length: int) -> np.ndarray:
    """float32 [length, points] holding integer weights that add up to CELL in each row."""
    pixels = np.arange(length)
    weights = np.zeros((length, (length - 1) // CELL + 2), np.float32)
    weights[pixels, pixels // CELL] = CELL - pixels % CELL
    weights[pixels, pixels // CELL + 1] = pixels % CELL
    return weights


def photograph(rng: np.random.Generator, scene: np.ndarray, noise: int) -> np.ndarray:
    """uint8 [H, W, 3] from int16 levels [3, H, W]: a lens that blurs by [1 2 1] / 4 both ways, then noise.

    noise: greatest deviation, in levels. The blur makes an edge between two pixels look as in photographs: neither a
    staircase nor a giveaway.
    """
    padded = np.pad(scene, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = padded[:, :-2] + padded[:, 2:]
    down += 2 * padded[:, 1:-1]
    levels = down[:, :, :-2] + down[:, :, 2:]
    levels += 2 * down[:, :, 1:-1]
    levels += 8
    levels >>= 4
    if noise:
        words = rng.bit_generator.random_raw(-(-scene.size // 8)).astype("<u8")
        grain = words.view(np.uint8)[: scene.size].reshape(scene.shape).astype(np.int16)
        grain *= 2 * noise + 1
        grain >>= 8
        levels += grain
        levels -= noise
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8).transpose(1, 2, 0)
