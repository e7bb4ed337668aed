"""Single objects from close by under each arm: what a mask misses of its object, and what it covers wrongly.

The objects are chosen by a rule, not by eye: among those in the sample images that every arm found, in the order of how
much their mask's IoU changes from one arm to the other, the ones at a quarter, half and three quarters. Where claims
are about large objects, only these are shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from data.images import fitted_size
from reports.analysis import Analysis
from reports.figures.canvas import outline
from reports.figures.style import INK, MISSED, WRONG, Figures, figure, wrap
from reports.load import StudyResults
from reports.scenes import SampleScene, Shown
from reports.stats.misalignment import LARGE
from reports.text.labels import arms_of, is_of_large

QUANTILES = (0.25, 0.5, 0.75)
SCALE = 4  # output pixels for a pixel of the image
COLUMN = 2.5  # inches, of which a picture takes three quarters
MOST_COLUMNS = 6  # of more arms, each object takes several lines
MARGIN = 8  # image pixels around what is drawn


@dataclass(frozen=True)
class Candidate:
    """An object that every arm found. matched: by arm."""

    scene: SampleScene
    truth: np.ndarray
    matched: dict[str, Shown]


def closeups(analysis: Analysis, scenes: Sequence[SampleScene], figures: Figures) -> int | None:
    """A row for each chosen object, a column for each arm that predicts masks.

    Returns how many objects there were to choose from; None when no object was found by all arms.
    """
    study, seed = analysis.study, analysis.study.shown_seed()
    arms = [arm for arm in study.record.arms if _predicts_masks(scenes, arm, seed)]
    pairs = [arms_of(weights) for weights in analysis.differences if set(arms_of(weights)) <= set(arms)]
    candidates = _candidates(scenes, arms, seed) if pairs and seed is not None else []
    if is_of_large(analysis.primary):
        candidates = [item for item in candidates if side_of(item.truth, study) >= LARGE]
    if not candidates:
        return None
    gains = [
        float(np.mean([item.matched[plus].iou - item.matched[minus].iou for plus, minus in pairs]))
        for item in candidates
    ]
    order = sorted(range(len(candidates)), key=lambda index: (gains[index], index))
    chosen = list(dict.fromkeys(order[round(quantile * (len(order) - 1))] for quantile in QUANTILES))
    titles = {arm: wrap(study.label(arm).replace(", ", "\n"), 0.74 * COLUMN, 9, bold=True) for arm in arms}
    more = 0.16 * max(0, max(title.count("\n") for title in titles.values()) - 1)  # inches, beyond two lines
    lines = math.ceil(len(arms) / MOST_COLUMNS)
    columns = math.ceil(len(arms) / lines)
    drawn, grid = figure(
        lines * len(chosen),
        columns,
        width=COLUMN * columns,
        height=(2.65 + (0.35 + more if lines > 1 else 0)) * lines * len(chosen),
        gridspec_kw={"wspace": 0.04, "hspace": 0.14 if lines == 1 else 0.3 + more / COLUMN},
    )
    rows = [[axes for line in grid[lines * row : lines * (row + 1)] for axes in line] for row in range(len(chosen))]
    for row, candidate in zip(rows, (candidates[index] for index in chosen), strict=True):
        window = square_around([candidate.truth, *(shown.mask for shown in candidate.matched.values())])
        pixels = np.asarray(Image.open(candidate.scene.path).convert("L"))
        for axes in row[len(arms) :]:
            axes.set_axis_off()
        for axes, arm in zip(row, arms, strict=False):
            shown = candidate.matched[arm]
            _paint(axes, pixels[window], candidate.truth[window], shown.mask[window])
            style = {"xycoords": "axes fraction", "ha": "center", "va": "top"}
            axes.annotate(f"IoU {shown.iou:.2f}", (0.5, -0.02), fontsize=9, **style)
    for row in rows if lines > 1 else rows[:1]:
        for axes, arm in zip(row, arms, strict=False):
            axes.set_title(titles[arm], loc="center", fontsize=9)
    figures.save(drawn, "closeups", vector=False, photographs=study.on_photographs)
    return len(candidates)


def _predicts_masks(scenes: Sequence[SampleScene], arm: str, seed: int | None) -> bool:
    matched = [shown for scene in scenes for shown in scene.matched.get((arm, seed or 0), []) if shown is not None]
    return any(not shown.is_box for shown in matched)


def _candidates(scenes: Sequence[SampleScene], arms: Sequence[str], seed: int) -> list[Candidate]:
    """The objects for which every arm has a detection of their class that shows them."""
    candidates = []
    for scene in scenes:
        for index, truth in enumerate(scene.masks):
            matched = {arm: scene.matched[arm, seed][index] for arm in arms}
            masks = {arm: shown for arm, shown in matched.items() if shown is not None}
            if len(masks) == len(arms):
                candidates.append(Candidate(scene, truth, masks))
    return candidates


def side_of(mask: np.ndarray, study: StudyResults) -> float:
    """The square root of the area of an object's box, in pixels of the image as the network gets it."""
    (height, width), data = mask.shape, study.record.config.get("data", {})
    new_height = fitted_size(height, width, data["image_size"], data["max_size"])[0] if "image_size" in data else height
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0
    return float(np.sqrt((np.ptp(rows) + 1) * (np.ptp(columns) + 1))) * new_height / height


def square_around(masks: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """A square of the image that holds all the masks, as far as the image reaches."""
    rows, columns = np.nonzero(np.any(masks, axis=0))
    side = max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * MARGIN
    slices = []
    for coordinates, length in ((rows, masks[0].shape[0]), (columns, masks[0].shape[1])):
        start = int(np.clip((coordinates.min() + coordinates.max() + 1 - side) // 2, 0, max(0, length - side)))
        slices.append(slice(start, min(start + int(side), length)))
    return slices[0], slices[1]


def _paint(axes: Axes, pixels: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
    """The image in grey, what the mask misses and what it covers wrongly in colour, the object's outline."""
    canvas = np.repeat(120 + 0.3 * np.kron(pixels, np.ones((SCALE, SCALE)))[:, :, None], 3, axis=2)
    large_truth, large_mask = (np.kron(shape, np.ones((SCALE, SCALE), bool)) for shape in (truth, mask))
    for region, colour in ((large_truth & ~large_mask, MISSED), (large_mask & ~large_truth, WRONG)):
        canvas[region] = 0.1 * canvas[region] + 0.9 * 255 * np.array(to_rgb(colour))
    canvas[outline(large_truth, 3)] = 255 * np.array(to_rgb(INK))
    axes.imshow(canvas.round().clip(0, 255).astype(np.uint8), interpolation="none")
    axes.set_axis_off()
