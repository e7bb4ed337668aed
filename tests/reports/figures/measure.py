"""What a reader would stumble over in a figure: text on text, and data outside its axes."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from reports.figures.style import Figures, settle

TOUCH = 1.0  # pixels by which boxes may overlap: a text's box has a little air around its ink


class Measured(Figures):
    """Measures figures in place of writing them. faults: name -> what is wrong; drawn: the names of all."""

    def __init__(self) -> None:
        self.faults: dict[str, list[str]] = {}
        self.drawn: list[str] = []

    def save(self, drawn: Figure, name: str, vector: bool = True, photographs: bool = False) -> None:
        settle(drawn)
        drawn.canvas.draw()
        self.drawn.append(name)
        faults = text_on_text(drawn) + [fault for axes in drawn.axes for fault in outside(axes)]
        if faults:
            self.faults[name] = faults
        plt.close(drawn)

    def reference(self, name: str) -> str:
        return name if name in self.drawn else ""

    def attach(self, name: str, content: bytes) -> None:
        """Nothing is written."""


def text_on_text(drawn: Figure) -> list[str]:
    """Every pair of visible texts whose boxes overlap."""
    renderer = drawn.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(drawn)]
    return [f"'{one}' on '{other}'" for (one, first), (other, second) in combinations(boxes, 2) if meet(first, second)]


def meet(one: Bbox, other: Bbox) -> bool:
    shared = np.minimum(one.max, other.max) - np.maximum(one.min, other.min)
    return bool((shared > TOUCH).all())


def texts(drawn: Figure) -> list[Text]:
    """The texts that are drawn: of ticks only those within their axis's range."""
    ticks = {axes: [text for axis in (axes.xaxis, axes.yaxis) for text in tick_labels(axis)] for axes in drawn.axes}
    ignored = {
        id(text)
        for axes in drawn.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for text in (tick.label1, tick.label2)
    }
    # An axes that is switched off draws neither its ticks nor its axis labels, but its title and its own texts.
    ignored |= {id(axis.label) for axes in drawn.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)}
    others = [text for text in drawn.findobj(Text) if id(text) not in ignored]
    artists = others + [text for axes, labels in ticks.items() if axes.axison for text in labels]
    return [text for text in artists if text.get_visible() and text.get_text().strip()]


def tick_labels(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    spare = 1e-6 * (high - low)
    ticks = [tick for tick in axis.get_major_ticks() if low - spare <= tick.get_loc() <= high + spare]
    return [text for tick in ticks for text in (tick.label1, tick.label2)]


def outside(axes: Axes) -> list[str]:
    """Points of lines and scatters, in data coordinates, that lie beyond the axes' limits."""
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    points = [line.get_xydata() for line in axes.lines if line.get_transform().contains_branch(axes.transData)]
    points += [np.asarray(dots.get_offsets()) for dots in axes.collections if isinstance(dots, PathCollection)]
    faults = []
    for xy in points:
        across, up = 1e-6 * (right - left), 1e-6 * (high - low)
        inside = (xy[:, 0] >= left - across) & (xy[:, 0] <= right + across)
        inside &= (xy[:, 1] >= low - up) & (xy[:, 1] <= high + up)
        known = np.isfinite(xy).all(axis=1)
        faults += [f"({x:g}, {y:g}) outside {axes.get_title()!r}" for x, y in xy[known & ~inside]]
    return faults
