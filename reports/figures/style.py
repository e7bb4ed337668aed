"""What all figures share: colours with a meaning, type, and files whose bytes depend on the records alone."""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from reports.figures import svg
from reports.load import StudyResults

# A concept has one colour in every figure. They differ in lightness too (L* 28, 46, 64, 73), so that a grey print and
# colour-blind readers keep them apart, and marks differ in shape as well.
ALIGN, FCIS, WARP, POOL = "#004488", "#AA4499", "#44AA99", "#DDAA33"
INK, MUTED, RULE, SHADE = "#1a1a1a", "#6b6b6b", "#dddddd", "#f2f2f0"
WRONG = "#B2182B"  # displacement, and pixels that a mask covers wrongly
MISSED = "#FFE14D"  # pixels that a mask leaves out
CLAIMED = "#DCE9F5"  # the side of 0 on which a claim would have the difference, or its margin

REST = ("#997700", "#EE99AA", "#117733", "#882255", "#777777", "#DDCC77")
"""For arms that are no concept of their own, in this order."""

DARK = {
    "#ffffff": "#16181b",
    INK: "#e8e8e6",
    MUTED: "#a8a8a4",
    RULE: "#3b3e42",
    SHADE: "#212428",
    "#e6e6e6": "#2d3136",
    CLAIMED: "#1f3a55",
    ALIGN: "#62a8ee",
    FCIS: "#d488cf",
    WRONG: "#f2808c",
    "#117733": "#4cb56d",
    "#882255": "#cf6f9c",
    "#8a8a8a": "#9a9a96",
    "#555555": "#c4c4c0",
    "#08519c": "#6db3f2",
    "#3182bd": "#4f94cd",
    "#9ecae1": "#2f5f85",
    "#6baed6": "#3c7cab",
}
"""What a drawing's colours become on a dark page: a concept keeps its hue."""

CONCEPTS = {
    ("roi", "pool"): POOL,
    ("roi", "warp"): WARP,
    ("roi", "warp_max"): WARP,
    ("roi", "align"): ALIGN,
    ("roi", "align_max"): ALIGN,
    ("roi", "align_8"): "#997700",
    ("roi", "align_16"): "#EE99AA",
    ("roi", "align_32"): "#117733",
    ("system", "fcis"): FCIS,
    ("system", "mask_rcnn"): ALIGN,
    ("mask_loss", "sigmoid"): ALIGN,
    ("mask_loss", "softmax"): "#997700",
    ("mask_head", "mlp"): "#EE99AA",
    ("mask_class", "agnostic"): "#117733",
    ("mask_class", "specific"): ALIGN,
    ("mask_head", "fcn"): ALIGN,
    ("stride", "16"): "#882255",
    ("stride", "32"): "#CC6677",
}
"""(factor, its value) -> colour. What Mask R-CNN does has RoIAlign's colour in every study."""

STRIDE_MARKERS = {"8": "^", "16": "o", "32": "s"}
MARKERS = ("o", "v", "P", "X", "*")  # of arms without a stride of their own: a square or a triangle would name one
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))

PAPER_MARK: dict[str, Any] = {
    "marker": "D",
    "zorder": 1.9,  # behind our own mean, around which it shows where they coincide
    "markerfacecolor": "white",
    "markeredgecolor": INK,
    "markeredgewidth": 1.2,
    "color": INK,
}
DPI = 120  # of pictures made of images
QUALITY = 80  # of photographs, as JPEG
MARGIN = 0.08  # inches around everything that is drawn

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "text.parse_math": False,  # a "$" in the name of a class or a study is a dollar
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
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "reports",  # without it the ids in an SVG are drawn by chance
}
plt.rcdefaults()  # a reader's own matplotlibrc must not change the figures
matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn: colour and marker of its dots; dash of its lines, where they may share a colour."""

    colour: str
    marker: str
    dash: Any = "-"


class Figures:
    """Where a report's figures go: charts as <folder>/<name>.svg, pictures as .png, or as .jpg if of photographs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, drawn: Figure, name: str, vector: bool = True, photographs: bool = False) -> None:
        """Writes the file, without dates, and closes the figure.

        vector: False for images, which an SVG would only wrap, at ten times the size. photographs: they need more
        colours than a palette has.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        settle(drawn)
        # What "tight" would find for every file anew.
        renderer = drawn.canvas.get_renderer()  # type: ignore[attr-defined]
        tight: dict[str, Any] = {"bbox_inches": drawn.get_tightbbox(renderer).padded(MARGIN)}
        if vector:
            text = io.StringIO()
            drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, **tight)
            (self.folder / f"{name}.svg").write_text(svg.compact(text.getvalue(), DARK), encoding="utf-8")
        else:
            pixels = io.BytesIO()
            drawn.savefig(pixels, format="png", dpi=DPI, metadata={"Software": None}, **tight)
            image = Image.open(pixels).convert("RGB")
            if photographs:
                image.save(self.folder / f"{name}.jpg", quality=QUALITY)
            else:
                image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
                image.save(self.folder / f"{name}.png", compress_level=8)
        plt.close(drawn)

    def reference(self, name: str) -> str:
        """The path of a figure beside a report, such as "figures/<name>.svg"; "" where it was not drawn."""
        written = [path for suffix in (".svg", ".png", ".jpg") if (path := self.folder / f"{name}{suffix}").is_file()]
        return f"figures/{written[0].name}" if written else ""

    def attach(self, name: str, content: bytes) -> None:
        """Writes another file beside the figures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content)


def figure(rows: int = 1, columns: int = 1, *, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure in the reports' style with a 2-d array of axes; sizes in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)


def settle(drawn: Figure) -> None:
    """Lays a figure out, once: every file would do it again, twice."""
    layout = drawn.get_layout_engine()
    if layout is not None:
        layout.execute(drawn)
        drawn.set_layout_engine("none")


def wrap(text: str, inches: float, size: float = 9, bold: bool = False) -> str:
    """`text` in lines of at most this width, broken at spaces; a longer word has a line of its own."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}".strip()
            if line and text_width(longer, size, bold) > inches:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines)


@cache
def text_width(text: str, size: float = 9, bold: bool = False) -> float:
    """Inches that a text takes, its longest line where it has several."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    widths = [text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")]
    return max(widths) / 72


def despine(axes: Axes, *sides: str) -> None:
    for side in sides:
        axes.spines[side].set_visible(False)
    if "left" in sides:
        axes.tick_params(axis="y", length=0)
    if "bottom" in sides:
        axes.tick_params(axis="x", length=0)


def arm_styles(study: StudyResults) -> dict[str, ArmStyle]:
    """Arm -> its colour, from the concept that it stands for, and its marker, from its stride where strides differ.

    The concept is the first of an arm's factors that is not as in Mask R-CNN, else the study's first factor. Arms that
    share a colour and have no stride to tell them apart differ in marker and dash.
    """
    first = study.record.factors[0] if study.record.factors else ""
    styles: dict[str, ArmStyle] = {}
    colours: dict[tuple[str, str], str] = {}
    for name, arm in study.record.arms.items():
        factors = {key: str(value) for key, value in arm.factors.items()}
        known = [name for name in factors if name != "stride" and (name, factors[name]) in CONCEPTS]
        factor = next((name for name in known if CONCEPTS[name, factors[name]] != ALIGN), next(iter(known), first))
        concept = (factor, factors.get(factor, name))
        if concept not in colours:
            free = next((colour for colour in REST if colour not in colours.values()), MUTED)
            colours[concept] = CONCEPTS.get(concept, free)
        colour = colours[concept]
        sharing = sum(style.colour == colour for style in styles.values())
        marker = STRIDE_MARKERS.get(factors.get("stride", ""), MARKERS[sharing % len(MARKERS)])
        styles[name] = ArmStyle(colour, marker, DASHES[sharing % len(DASHES)])
    return styles
