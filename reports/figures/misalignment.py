"""Why rounding hurts: one region of interest on the feature grid, and how far RoIPool moves what it reads.

Frame: as in stats/misalignment.py. Letters: P bins along an axis, S samples in a bin.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from ops.geometry import align_interval, num_samples, pool_bins, sample_positions
from reports.figures.style import ALIGN, INK, MUTED, POOL, WRONG, Figures, despine, figure
from reports.load import StudyResults
from reports.stats.misalignment import Misalignment, align_error, bin_centres

Window = tuple[float, float, float, float]
"""Left, right, bottom and top in pixels; bottom is below top on the screen, and greater."""


def why(study: StudyResults, facts: Misalignment, figures: Figures, name: str = "why") -> None:
    """A row for each stride: RoIPool's bins, RoIAlign's samples, and the displacements of all objects.

    Beside the first row of a photograph, which is pale there, stands the object in full contrast.
    """
    path = dict(study.sample_images())[facts.image_id]
    window, plain = _window(facts.box, max(facts.moved)), int(study.on_photographs)
    pixels = np.asarray(Image.open(path).convert("L"))
    drawn, grid = figure(
        len(facts.moved),
        3 + plain,
        width=11 + 2.2 * plain,
        height=3.75 * len(facts.moved) + 0.3,
        layout="constrained",
        gridspec_kw={"width_ratios": [*plain * [0.65], 1, 1, 0.95]},
    )
    most = max(float(np.nanmax(values)) for values in facts.moved.values())
    for axes in grid[:, :plain].ravel():
        axes.set_axis_off()
    for axes in grid[:1, :plain].ravel():
        _image(axes, pixels, facts.size, window, vmin=0)
        axes.set(xlim=window[:2], ylim=window[2:], title="The object")
        x, y, width, height = facts.box
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="white", linewidth=4.5))
        _true_box(axes, facts.box)
    grid = grid[:, plain:]
    for row, stride in zip(grid, facts.moved, strict=True):
        for axes in row[:2]:
            _scene(axes, pixels, facts.size, stride, window)
        _pool_panel(row[0], facts, stride)
        _align_panel(row[1], facts.box, facts.bins, stride)
        _histogram(row[2], facts, stride, most)
        row[0].set_ylabel(f"stride {stride}", fontsize=11, fontweight="bold")
        row[0].set_xlabel(f"on average {facts.chosen[stride]:.1f} px off")
        row[1].set_xlabel(f"on average {align_error(facts.box, facts.bins, stride):.1f} px off")
    grid[0][0].set_title("RoIPool rounds the box to cells")
    grid[0][1].set_title("RoIAlign samples between them")
    grid[0][2].set_title("How far RoIPool's bins are off")
    drawn.legend(handles=_handles(), loc="outside lower center", ncols=3)
    figures.save(drawn, name, vector=not study.on_photographs, photographs=study.on_photographs)


def _scene(axes: Axes, pixels: np.ndarray, size: tuple[int, int], stride: int, window: Window) -> None:
    """The image, pale, under the borders of the map's cells; a dot where each cell stands."""
    _image(axes, pixels, size, window, vmin=-300)
    _cells(axes, size, stride, window)
    axes.set(xlim=window[:2], ylim=window[2:])
    axes.set_xticks([])
    axes.set_yticks([])
    despine(axes, "left", "bottom")


def _image(axes: Axes, pixels: np.ndarray, size: tuple[int, int], window: Window, vmin: int) -> None:
    """The part of the image [H, W] that the window shows; the drawing holds no more. size: width and height in it."""
    left, right, bottom, top = window
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    x1, x2 = max(math.floor(left * across), 0), min(math.ceil(right * across), pixels.shape[1])
    y1, y2 = max(math.floor(top * down), 0), min(math.ceil(bottom * down), pixels.shape[0])
    extent = (x1 / across, x2 / across, y2 / down, y1 / down)
    axes.imshow(pixels[y1:y2, x1:x2], extent=extent, cmap="gray", vmin=vmin, vmax=255, interpolation="nearest")


def _window(box: list[float], stride: int) -> Window:
    """A square around the box with room for what rounding adds at the coarsest stride: left, right, bottom, top."""
    x, y, width, height = box
    half = max(width, height) / 2 + 1.15 * stride
    return x + width / 2 - half, x + width / 2 + half, y + height / 2 + half, y + height / 2 - half


def _cells(axes: Axes, size: tuple[int, int], stride: int, window: Window) -> None:
    """The part of the map that the window shows: the borders of its cells, and a dot where each one stands."""
    left, right, bottom, top = window
    columns, rows = math.ceil(size[0] / stride), math.ceil(size[1] / stride)
    for edge in stride * (np.arange(columns + 1) - 0.5):
        if left < edge < right:
            ends = max(top, -stride / 2), min(bottom, stride * (rows - 0.5))
            axes.plot([edge, edge], ends, color="white", linewidth=0.7)
    for edge in stride * (np.arange(rows + 1) - 0.5):
        if top < edge < bottom:
            ends = max(left, -stride / 2), min(right, stride * (columns - 0.5))
            axes.plot(ends, [edge, edge], color="white", linewidth=0.7)
    x, y = (centre.ravel() for centre in np.meshgrid(stride * np.arange(columns), stride * np.arange(rows)))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    edge = {"markersize": 3.2, "markeredgecolor": MUTED, "markeredgewidth": 0.6}
    axes.plot(x[inside], y[inside], "o", color="white", **edge)


def _true_box(axes: Axes, box: list[float]) -> None:
    axes.add_patch(Rectangle((box[0], box[1]), box[2], box[3], fill=False, edgecolor=INK, linewidth=2, zorder=4))


def _pool_panel(axes: Axes, facts: Misalignment, stride: int) -> None:
    """The rounded box, its bins as brackets (two rows of them, as neighbours overlap), and where each bin has gone."""
    box, size, bins = facts.box, facts.size, facts.bins
    x, y, width, height = box
    across = pool_bins(x / stride, (x + width) / stride, bins, math.ceil(size[0] / stride))
    down = pool_bins(y / stride, (y + height) / stride, bins, math.ceil(size[1] / stride))
    left, right = (stride * (edge - 0.5) for edge in (across[0][0], across[-1][1]))
    top, bottom = (stride * (edge - 0.5) for edge in (down[0][0], down[-1][1]))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor=POOL, alpha=0.3, linewidth=0))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=POOL, linewidth=2.4))
    span = abs(axes.get_xlim()[1] - axes.get_xlim()[0])
    for index, (first, last) in enumerate(across):
        level = top - span * (0.022 + 0.022 * (index % 2))
        axes.plot(
            [stride * (first - 0.5) + 0.6, stride * (last - 0.5) - 0.6],
            [level] * 2,
            color=INK,
            linewidth=1.8,
            solid_capstyle="butt",
        )
    for index, (first, last) in enumerate(down):
        level = left - span * (0.022 + 0.022 * (index % 2))
        axes.plot(
            [level] * 2,
            [stride * (first - 0.5) + 0.6, stride * (last - 0.5) - 0.6],
            color=INK,
            linewidth=1.8,
            solid_capstyle="butt",
        )
    _true_box(axes, box)
    columns = bin_centres(x, x + width, bins, math.ceil(size[0] / stride), stride)
    rows = bin_centres(y, y + height, bins, math.ceil(size[1] / stride), stride)
    starts, ends = (np.stack(np.meshgrid(columns[which], rows[which])) for which in (0, 1))
    axes.quiver(
        *starts,
        *(ends - starts),
        angles="xy",
        scale_units="xy",
        scale=1,
        units="inches",
        width=0.014,
        headwidth=4.5,
        headlength=5,
        headaxislength=5,
        color=WRONG,
        zorder=5,
    )


def _align_panel(axes: Axes, box: list[float], bins: int, stride: int) -> None:
    """The box itself, cut into P x P bins, with the points that are sampled in each (2 x 2, as in the paper)."""
    x, y, width, height = box
    across: list[float] = []
    down: list[float] = []
    for low, extent, coordinates in ((x, width, across), (y, height, down)):
        start, size = align_interval(low / stride, (low + extent) / stride, aligned=False)
        positions = sample_positions(start, size, bins, num_samples(size, bins, 2))
        coordinates += [stride * position for row in positions for position in row]
        edges = [stride * (start + index * size / bins) for index in range(bins + 1)]
        for edge in edges:
            line = ([edge] * 2, [y, y + height]) if coordinates is across else ([x, x + width], [edge] * 2)
            axes.plot(*line, color=ALIGN, linewidth=0.8, alpha=0.8)
    sampled_x, sampled_y = np.meshgrid(across, down)
    axes.plot(sampled_x.ravel(), sampled_y.ravel(), "o", color=ALIGN, markersize=2.4, markeredgewidth=0, zorder=5)
    _true_box(axes, box)


def _histogram(axes: Axes, facts: Misalignment, stride: int, most: float) -> None:
    values = facts.moved[stride]
    edges = np.linspace(0, math.ceil(most), 33)
    counts = np.histogram(values[np.isfinite(values)], edges)[0] / max(1, np.isfinite(values).sum())
    axes.stairs(100 * counts, edges, fill=True, color=POOL)
    axes.axvline(facts.medians[stride], color=INK, linewidth=1.6)
    axes.annotate(
        f"median {facts.medians[stride]:.1f} px",
        (facts.medians[stride], 1),
        (5, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        fontweight="bold",
    )
    axes.plot(
        [facts.chosen[stride]],
        [0],
        "v",
        color=WRONG,
        markersize=8,
        clip_on=False,
        zorder=6,
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlim(0, math.ceil(most))
    axes.set_ylim(0, 122 * max(counts.max(), 0.01))
    axes.set_ylabel("% of objects")
    axes.set_xlabel("mean distance over an object's bins (pixels)")
    axes.grid(axis="y")


def _handles() -> list[Line2D | Rectangle]:
    return [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=2, label="the object's box"),
        Rectangle((0, 0), 1, 1, facecolor="#f4deb0", edgecolor=POOL, linewidth=2.2, label="the box after rounding"),
        Line2D([], [], color=INK, linewidth=1.8, label="RoIPool's bins along each side (they overlap)"),
        Line2D([], [], color=WRONG, marker=">", markersize=5, label="from where a bin is to what RoIPool reads"),
        Line2D([], [], color=ALIGN, linestyle="none", marker="o", markersize=3, label="RoIAlign's sampling points"),
        Line2D([], [], color=WRONG, linestyle="none", marker="v", markersize=7, label="the object that is drawn"),
    ]
