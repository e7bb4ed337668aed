"""Single objects from close by under each arm: what a mask misses of its object, and what it covers wrongly.

The objects are chosen by a rule, not by eye: among those in the sample images that every arm found, in the order of how
much more IoU the mask of one arm of the first claim reaches than the other's, the ones at a quarter, half and three
quarters. Where claims are about large objects, only these are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from reports.analysis import Analysis
from reports.figures.canvas import outline
from reports.figures.style import INK, MISSED, WRONG, Figures, figure, wrap
from reports.load import StudyResults
from reports.scenes import SampleScene, Shown, arms_of_first_strides
from reports.text.labels import arms_of

QUANTILES = (0.25, 0.5, 0.75)
SCALE = 4  # output pixels for a pixel of the image
COLUMN = 2.5  # inches, of which a picture takes three quarters
MARGIN = 8  # image pixels around what is drawn


@dataclass(frozen=True)
class Candidate:
    """An object that every arm found. matched: by arm."""

    scene: SampleScene
    truth: np.ndarray
    matched: dict[str, Shown]


@dataclass(frozen=True)
class Closeups:
    """What was drawn. candidates: how many objects there were to choose from; ordered_by: the two arms whose difference
    orders them; image_ids: of the rows' images; few_arms: whether some arms are left out."""

    candidates: int
    ordered_by: tuple[str, str]
    image_ids: tuple[int, ...]
    few_arms: bool


def closeups(analysis: Analysis, scenes: Sequence[SampleScene], figures: Figures) -> Closeups | None:
    """A row for each chosen object, a column for each arm that predicts masks; of many arms those of the first strides.

    Returns None when no object was found by all of these arms.
    """
    study, seed = analysis.study, analysis.study.shown_seed()
    known = [arm for arm in study.record.arms if _predicts_masks(scenes, arm, seed)]
    arms = arms_of_first_strides(study, known)
    pairs = [arms_of(weights) for weights in analysis.differences if set(arms_of(weights)) <= set(arms)]
    candidates = _candidates(scenes, arms, seed) if pairs and seed is not None else []
    if not candidates:
        return None
    plus, minus = pairs[0]
    gains = [item.matched[plus].iou - item.matched[minus].iou for item in candidates]
    order = sorted(range(len(candidates)), key=lambda index: (gains[index], index))
    chosen = [candidates[index] for index in dict.fromkeys(order[round(at * (len(order) - 1))] for at in QUANTILES)]
    _draw(study, arms, chosen, figures)
    images = tuple(item.scene.image_id for item in chosen)
    return Closeups(len(candidates), (plus, minus), images, len(arms) < len(known))


def _draw(study: StudyResults, arms: Sequence[str], chosen: Sequence[Candidate], figures: Figures) -> None:
    titles = {arm: wrap(study.label(arm).replace(", ", "\n"), 0.74 * COLUMN, 9, bold=True) for arm in arms}
    drawn, rows = figure(
        len(chosen),
        len(arms),
        width=COLUMN * len(arms),
        height=2.65 * len(chosen),
        gridspec_kw={"wspace": 0.04, "hspace": 0.14},
    )
    for row, candidate in zip(rows, chosen, strict=True):
        window = square_around([candidate.truth, *(shown.mask for shown in candidate.matched.values())])
        pixels = np.asarray(Image.open(candidate.scene.path).convert("L"))
        for axes, arm in zip(row, arms, strict=True):
            shown = candidate.matched[arm]
            _paint(axes, pixels[window], candidate.truth[window], shown.mask[window])
            style = {"xycoords": "axes fraction", "ha": "center", "va": "top"}
            axes.annotate(f"IoU {shown.iou:.2f}", (0.5, -0.02), fontsize=9, **style)
    for axes, arm in zip(rows[0], arms, strict=True):
        axes.set_title(titles[arm], loc="center", fontsize=9)
    figures.save(drawn, "closeups", vector=False, photographs=study.on_photographs)


def _predicts_masks(scenes: Sequence[SampleScene], arm: str, seed: int | None) -> bool:
    matched = [shown for scene in scenes for shown in scene.matched.get((arm, seed or 0), []) if shown is not None]
    return any(not shown.is_box for shown in matched)


def _candidates(scenes: Sequence[SampleScene], arms: Sequence[str], seed: int) -> list[Candidate]:
    """The objects that claims are about and for which every arm has a detection of their class that shows them."""
    candidates = []
    for scene in scenes:
        for index, truth in enumerate(scene.masks):
            matched = {arm: scene.matched[arm, seed][index] for arm in arms}
            masks = {arm: shown for arm, shown in matched.items() if shown is not None}
            if scene.asked[index] and len(masks) == len(arms):
                candidates.append(Candidate(scene, truth, masks))
    return candidates


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
