"""What competing for each pixel does to masks: one object's probabilities, where its pixels go, and the test rules."""

import statistics
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import INK, MUTED, WRONG, Figures, despine, figure
from reports.load import StudyResults
from reports.text.labels import number
from reports.text.tables import markdown

OWN, RIVAL, GROUND = INK, WRONG, "#777777"
RULES = {
    "share": "all other channels together",
    "argmax": "the strongest other channel",
    "background": "the background alone",
}


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> str:
    study, content = analysis.study, exhibit.content
    shown = content["object"]
    rival = strongest_rival(shown)
    _draw(study, shown, rival, figures)
    lost = {kind: _means(by_seed) for kind, by_seed in content["lost"].items()}
    softmax, sigmoid = lost["softmax"], lost["sigmoid"]
    return "\n\n".join(
        [
            "## What competition does to a mask",
            "Here both mask branches get the objects' true boxes and classes, so that nothing but the masks differs.",
            "![One object's probabilities under both losses](figures/competition.png)",
            f"*Of the {shown['num_objects']} objects in the sample images this {shown['class']} is the one whose loss "
            f"of overlap from sigmoid to softmax is the median ({number(100 * shown['gap'])} points of IoU, seed "
            f"{content['seed']}). The strongest rival is the class with the largest share inside the object. Below: "
            f"the same probabilities along the row in which the rival is strongest. Under a softmax what one class "
            f"gains, another loses; sigmoids may both be high, because only the box branch's class is asked.*",
            f"Over all objects of the validation images, sigmoid masks leave out {number(sigmoid['left_out'])} % of an "
            f"object's cells and softmax masks {number(softmax['left_out'])} %. Of the latter, "
            f"{number(softmax['to_background'])} points go to the background, {number(softmax['to_classes'])} to other "
            f"classes, and in {number(softmax['undecided'])} the class leads without having half of the total.",
            "At test time a softmax leaves open what the class must beat. The same weights under three rules "
            "(mean and standard deviation over seeds; the study's arm uses the first):",
            markdown(
                ["the class must beat", "rule", "mask AP", "mask AP50", "mask AP75"],
                [
                    [RULES[rule], f"`{rule}`", *(_mean_sd(by_seed, key) for key in ("AP", "AP50", "AP75"))]
                    for rule, by_seed in content["rules"].items()
                ],
                left=2,
            ),
        ]
    )


def strongest_rival(shown: dict[str, Any]) -> str:
    """The other class with the largest softmax share, averaged over the object's cells."""
    inside = np.array(shown["target"]) > 0.5
    others = {name: np.array(share) for name, share in shown["softmax"].items()}
    del others["background"], others[shown["class"]]
    return max(others, key=lambda name: others[name][inside].mean())


def _means(by_seed: dict[str, dict[str, float]]) -> dict[str, float]:
    names = next(iter(by_seed.values()))
    return {name: statistics.fmean(values[name] for values in by_seed.values()) for name in names}


def _mean_sd(by_seed: dict[str, dict[str, float | None]], key: str) -> str:
    values = [value for seed in by_seed.values() if (value := seed[key]) is not None]
    if not values:
        return number(None)
    spread = f" ± {number(statistics.stdev(values))}" if len(values) > 1 else ""
    return number(statistics.fmean(values)) + spread


def _draw(study: StudyResults, shown: dict[str, Any], rival: str, figures: Figures) -> None:
    own = shown["class"]
    softmax = {name: np.array(values) for name, values in shown["softmax"].items()}
    sigmoid = {name: np.array(values) for name, values in shown["sigmoid"].items()}
    target = np.array(shown["target"])
    drawn, grid = figure(2, 6, width=11.4, height=4.5, gridspec_kw={"hspace": 0.34, "wspace": 0.08})
    _image(grid[0][0], study, shown)
    maps = [
        (target, "target"),
        (sigmoid[own], f"sigmoid:\n{own}"),
        (softmax[own], f"softmax:\n{own}"),
        (softmax[rival], f"softmax, strongest\nrival: {rival}"),
        (softmax["background"], "softmax:\nbackground"),
    ]
    row = int(np.where(target > 0.5, softmax[rival], -1).max(1).argmax())
    for axes, (values, title) in zip(grid[0][1:], maps, strict=True):
        axes.imshow(values, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.contour(target, levels=[0.5], colors="#6BAED6", linewidths=1.2)
        axes.axhline(row, color="#FF6F61", linewidth=0.9, linestyle=":")
        axes.set_title(title, loc="center")
        axes.set_axis_off()
        axes.set_aspect("auto")
    for axes in grid[1]:
        axes.set_axis_off()
    panels = [drawn.add_subplot(grid[1][0].get_gridspec()[1, columns]) for columns in (slice(0, 3), slice(3, 6))]
    lines = [(own, OWN, "-"), (rival, RIVAL, "--")]
    _along(panels[0], sigmoid, row, target, lines, "sigmoid: each class on its own")
    _along(panels[1], softmax, row, target, [*lines, ("background", GROUND, ":")], "softmax: all add up to 1")
    panels[0].set_ylabel("probability")
    panels[1].tick_params(axis="y", labelleft=False)
    figures.save(drawn, "competition")


def _image(axes: Axes, study: StudyResults, shown: dict[str, Any]) -> None:
    """The object's box cut out of its image, where the study kept the image."""
    axes.set_axis_off()
    axes.set_title("image", loc="center")
    path = dict(study.sample_images()).get(shown["image_id"])
    if path is None:
        return
    x1, y1, x2, y2 = shown["box"]
    axes.imshow(np.asarray(Image.open(path).convert("RGB")), interpolation="nearest")
    axes.set_xlim(x1 - 0.5, x2 - 0.5)
    axes.set_ylim(y2 - 0.5, y1 - 0.5)
    axes.set_aspect("auto")


def _along(
    axes: Axes,
    probabilities: dict[str, np.ndarray],
    row: int,
    target: np.ndarray,
    lines: list[tuple[str, str, str]],
    title: str,
) -> None:
    cells = np.arange(target.shape[1])
    axes.fill_between(cells, 0, 1, where=target[row] > 0.5, step="mid", color="#e6e6e6", linewidth=0)
    axes.axhline(0.5, color=MUTED, linewidth=0.7)
    for name, colour, style in lines:
        axes.plot(cells, probabilities[name][row], color=colour, linestyle=style, linewidth=1.8, label=name)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.5, target.shape[1] - 0.5)
    axes.set_xlabel(f"cell of the {target.shape[0]} x {target.shape[1]} mask, along row {row} (grey: the object)")
    axes.set_title(title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3, labelcolor=INK)
    despine(axes)
