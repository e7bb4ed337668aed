"""`python -m ops.drawings`: the drawings of ops/README.md, computed by `geometry.py` and written to this folder."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from .. import geometry
from ..command import run_command

FOLDER = Path(__file__).parent
# The operators' colours are those of the reports' figures; their lightness differs, for grey print.
ALIGN, WARP, POOL = "#004488", "#44AA99", "#DDAA33"
SAMPLE, GREY, INK = "#B2182B", "#999999", "#1a1a1a"
BOX = (1.35, 2.55, 7.6, 6.4)  # x1, y1, x2, y2 in cells
GRID = (10, 9)  # width and height in cells
BINS = 3


def main() -> None:
    """Draw everything."""
    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    for draw in (operators, displacement, centres, redundancy):
        figure = draw()
        figure.savefig(FOLDER / f"{draw.__name__}.png", dpi=90, metadata={"Software": None})
        pyplot.close(figure)
        print(f"written: ops/drawings/{draw.__name__}.png")


def operators():
    """One box on a feature grid as each operator sees it: what it reads, bin by bin."""
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
    titles = ("RoIPool: whole cells, maximum", "RoIWarp: rounded box, samples", "RoIAlign: the box itself, samples")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.plot(*zip(*cells(), strict=True), "o", color="#cccccc", markersize=4)
        x1, y1, x2, y2 = BOX
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2, edgecolor="black"))
        axis.set(xlim=(-0.7, GRID[0] - 0.3), ylim=(GRID[1] - 0.3, -0.7), aspect="equal", xticks=[], yticks=[])
    pool_panel(axes[0])
    sample_panel(axes[1], geometry.warp_interval(BOX[0], BOX[2]), geometry.warp_interval(BOX[1], BOX[3]), WARP)
    across, down = (geometry.align_interval(BOX[axis], BOX[axis + 2], False) for axis in (0, 1))
    sample_panel(axes[2], across, down, ALIGN)
    return figure


def cells():
    return [(x, y) for x in range(GRID[0]) for y in range(GRID[1])]


def pool_panel(axis) -> None:
    """The cells of each bin: bins overlap, as their edges are rounded outwards."""
    columns = geometry.pool_bins(BOX[0], BOX[2], BINS, GRID[0])
    rows = geometry.pool_bins(BOX[1], BOX[3], BINS, GRID[1])
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            inset = 0.42 - 0.07 * ((i + j) % 3)
            corner = (left - inset, top - inset)
            size = (right - 1 - left + 2 * inset, bottom - 1 - top + 2 * inset)
            dash = ("-", "--", ":")[(i + j) % 3]
            bin_ = Rectangle(corner, *size, facecolor=(POOL, 0.12), edgecolor=POOL, linewidth=2, linestyle=dash)
            axis.add_patch(bin_)


def sample_panel(axis, interval_x, interval_y, colour) -> None:
    """The bins' edges and the four samples in each."""
    (left, width), (top, height) = interval_x, interval_y
    for p in range(BINS + 1):
        axis.plot([left + p * width / BINS] * 2, [top, top + height], color=colour, linewidth=1.6)
        axis.plot([left, left + width], [top + p * height / BINS] * 2, color=colour, linewidth=1.6)
    xs = [x for bin_ in geometry.sample_positions(left, width, BINS, 2) for x in bin_]
    ys = [y for bin_ in geometry.sample_positions(top, height, BINS, 2) for y in bin_]
    axis.plot(*zip(*[(x, y) for x in xs for y in ys], strict=True), "x", color=SAMPLE, markersize=6, markeredgewidth=2)


def displacement():
    """How far, in image pixels, a RoI's centre moves by rounding, while the object moves smoothly."""
    figure, axis = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    shifts = [i / 4 for i in range(4 * 64 + 1)]
    for stride, dash in ((16, "-"), (32, "--")):
        moved = []
        for shift in shifts:
            low, high = (100 + shift) / stride, (190 + shift) / stride
            bins = geometry.pool_bins(low, high, 7, 1000)
            centre = (bins[0][0] + bins[-1][1] - 1) / 2  # the middle of the cells that are read
            moved.append(stride * (centre - (low + high) / 2))
        axis.plot(shifts, moved, color=POOL, linestyle=dash, linewidth=2, label=f"RoIPool, stride {stride}")
    axis.axhline(0, color=ALIGN, linewidth=2, label="RoIAlign, any stride")
    axis.set(xlabel="shift of a 90-pixel object, in pixels", ylabel="displacement in pixels")
    axis.grid(color="#eeeeee")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    return figure


def centres():
    """Where cells lie on the image, measured: the centroid of what each cell's gradient touches."""
    figure, axis = pyplot.subplots(figsize=(8, 2.6), layout="constrained")
    stack, patch = receptive_centres()
    kinds = (
        (1.0, stack, INK, "four convolutions 3x3,\nstride 2, padding 1"),
        (0.0, patch, GREY, "one convolution 16x16,\nstride 16 (patches)"),
    )
    for height, centroids, colour, _ in kinds:
        axis.plot(centroids, [height] * len(centroids), "o", color=colour, markersize=8)
    for i in range(8):
        axis.plot([16 * i] * 2, [0.55, 1.25], color=GREY, linewidth=1)
        axis.plot([16 * (i + 0.5)] * 2, [-0.25, 0.45], color=GREY, linewidth=1, linestyle="--")
    axis.text(134, 0.9, "lines at 16 i:\naligned=False", fontsize=8, va="center")
    axis.text(134, 0.1, "lines at 16 (i + 1/2):\naligned=True", fontsize=8, va="center")
    axis.set(ylim=(-0.4, 1.4), xlim=(-4, 165), xlabel="image pixels (i + 1/2 is the middle of pixel i)")
    axis.set_yticks([kind[0] for kind in kinds], [kind[3] for kind in kinds], fontsize=8)
    return figure


def receptive_centres() -> tuple[list[float], list[float]]:
    """Centroids in image pixels of the inputs of cells 0 to 7, weights all one, away from the image's border."""
    import torch
    from torch.nn.functional import conv1d

    def measured(convolve) -> list[float]:
        centroids = []
        margin = 256
        for cell in range(8):
            signal = torch.zeros(1, 1, margin + 512, dtype=torch.float64, requires_grad=True)
            convolve(signal)[0, 0, margin // 16 + cell].backward()
            assert signal.grad is not None
            weight = signal.grad[0, 0]
            pixel = torch.arange(len(weight)) - margin + 0.5
            centroids.append(float((weight * pixel).sum() / weight.sum()))
        return centroids

    three, sixteen = torch.ones(1, 1, 3, dtype=torch.float64), torch.ones(1, 1, 16, dtype=torch.float64)

    def stack(signal):
        for _ in range(4):
            signal = conv1d(signal, three, stride=2, padding=1)
        return signal

    return measured(stack), measured(lambda signal: conv1d(signal, sixteen, stride=16))


def redundancy():
    """Rows of channels read per RoI, by box size: one sample at a time, row by row, and distinct cells."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    sizes = [1 + 0.5 * i for i in range(60)]
    for axis, num_bins in zip(axes, (7, 14), strict=True):
        counts = [reads(size, num_bins) for size in sizes]
        labels = ("every sample on its own", "rows kept between samples (our kernel)", "distinct cells")
        for index, (label, colour) in enumerate(zip(labels, (GREY, INK, SAMPLE), strict=True)):
            axis.plot(sizes, [count[index] for count in counts], color=colour, linewidth=1.8, label=label)
        axis.set(yscale="log", xlabel="side of the box in cells", ylabel="reads", title=f"{num_bins} x {num_bins} bins")
        axis.grid(color="#eeeeee")
    axes[0].legend(fontsize=8)
    return figure


def reads(size: float, num_bins: int) -> tuple[int, int, int]:
    """Reads of a square RoI somewhere inside a map, with 2 x 2 samples per bin."""
    start = 10.3
    positions = [p for bin_ in geometry.sample_positions(start, max(size, 1.0), num_bins, 2) for p in bin_]
    naive = 4 * len(positions) ** 2
    distinct = {cell for position in positions for cell, _ in geometry.hat_weights(position, 1000)}
    held, rows = -2, 0
    for position in positions:
        lower = math.floor(position)
        if lower != held:
            rows += 1 if lower == held + 1 else 2
            held = lower
    return naive, rows * 2 * len(positions), len(distinct) ** 2


if __name__ == "__main__":
    run_command(main)
