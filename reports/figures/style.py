"""What all figures share: palette, type, and files whose bytes depend on the records alone."""

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from reports.load import StudyResults

# Paul Tol's high-contrast set, extended: told apart by the colour-blind and in grey. Marks differ in shape as well.
COLOURS = ("#DDAA33", "#004488", "#BB5566", "#000000", "#6699CC", "#997700", "#EE99AA", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, MUTED, RULE = "#1a1a1a", "#6b6b6b", "#dddddd"
PAPER_MARK: dict[str, Any] = {
    "marker": "D",
    "markerfacecolor": "white",
    "markeredgecolor": INK,
    "markeredgewidth": 1.2,
    "color": INK,
}
PNG_DPI = 160

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "reports",  # without it the ids in an SVG are drawn by chance
}
plt.rcdefaults()  # a reader's own matplotlibrc must not change the figures
matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]


def figure(rows: int = 1, columns: int = 1, *, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure in the reports' style with a 2-d array of axes; sizes in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)


def save(drawn: Figure, folder: Path, name: str, vector: bool = True) -> None:
    """Writes folder/name.png and, of a drawing, name.svg, without dates, and closes the figure.

    vector: False for photographs, which an SVG would only wrap, at ten times the size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layout = drawn.get_layout_engine()
    if layout is not None:  # once is enough: every file would lay the figure out again, twice
        layout.execute(drawn)
        drawn.set_layout_engine("none")
    tight: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08}
    pixels = io.BytesIO()
    drawn.savefig(pixels, format="png", dpi=PNG_DPI, metadata={"Software": None}, **tight)
    image = Image.open(pixels).convert("RGB")
    if vector:
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, **tight)
        (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
    else:
        image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(folder / f"{name}.png", compress_level=7)
    plt.close(drawn)


def despine(axes: Axes, *sides: str) -> None:
    for side in sides:
        axes.spines[side].set_visible(False)
    if "left" in sides:
        axes.tick_params(axis="y", length=0)
    if "bottom" in sides:
        axes.tick_params(axis="x", length=0)


def arm_styles(study: StudyResults) -> dict[str, tuple[str, str]]:
    """Arm -> (colour, marker).

    Where the arms cross several factors, the colour tells the first one's value and the marker the others'; otherwise
    each arm has its own of both.
    """
    arms = study.record.arms
    first, *others = study.record.factors or [""]
    levels = list(dict.fromkeys(str(arm.factors.get(first)) for arm in arms.values()))
    contexts = list(dict.fromkeys(str([arm.factors.get(name) for name in others]) for arm in arms.values()))
    if len(levels) * len(contexts) != len(arms):
        return {arm: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, arm in enumerate(arms)}
    styles = {}
    for name, arm in arms.items():
        colour = COLOURS[levels.index(str(arm.factors.get(first))) % len(COLOURS)]
        marker = MARKERS[contexts.index(str([arm.factors.get(name) for name in others])) % len(MARKERS)]
        styles[name] = (colour, marker)
    return styles
