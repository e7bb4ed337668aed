"""What competing for each pixel does to masks: one object's probabilities, where its pixels go, and the test rules."""

import statistics
from collections import Counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import INK, MUTED, WRONG, Figures, despine, figure
from reports.load import StudyResults
from reports.text.labels import NOTHING, and_list, number, plural
from reports.text.markup import Marked, escape, paragraphs, table
from reports.text.tables import mean_sd

OWN, RIVAL, GROUND = INK, WRONG, "#777777"
RULES = {
    "share": "all other channels together",
    "argmax": "the strongest other channel",
    "background": "the background alone",
}


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study, content = analysis.study, exhibit.content
    shown = content["object"]
    rival = strongest_rival(shown)
    _draw(study, shown, rival, figures)
    lost = {kind: _means(by_seed) for kind, by_seed in content["lost"].items()}
    softmax, sigmoid = lost["softmax"], lost["sigmoid"]
    return paragraphs(
        Marked("## What competition does to a mask"),
        Marked(
            "A sigmoid gives each class a probability of its own at every pixel. A softmax divides one whole among all "
            "classes and the background: what one class gains, another loses. Here both mask branches get the objects' "
            "true boxes and classes, so that nothing but the masks differs."
        ),
        Marked("![One object's probabilities under both losses](figures/competition.svg)"),
        Marked(
            f"*Of the {shown['num_objects']} objects in the sample images, this {escape(shown['class'])} loses the "
            f"median amount of IoU from sigmoid to softmax ({number(100 * shown['gap'])} points, seed "
            f"{escape(content['seed'])}). The strongest rival is the class with the largest share inside the object. "
            f"Below: the same probabilities along the row in which the rival is strongest. Two sigmoids may both be "
            f"high, which does no harm, because only the mask of the box branch's class is used.*"
        ),
        Marked(
            f"Over all objects of the {study.evaluated}, sigmoid masks miss {number(sigmoid['left_out'])} % of an "
            f"object's cells, and softmax masks {number(softmax['left_out'])} %. Of the latter, "
            f"{number(softmax['to_background'])} points go to the background, {number(softmax['to_classes'])} to other "
            f"classes, and in {number(softmax['undecided'])} the right class leads without having half of the total."
        ),
        Marked(
            "At test time, a softmax does not say what the class must beat. These are the same weights under three "
            "rules, and each seed's mildest (mean and standard deviation over seeds). **How much is lost depends on "
            "the rule**, and the paper does not state its own:"
        ),
        _rules(study),
    )


def mildest_rule(analysis: Analysis) -> Marked:
    """Which of the softmax's test rules serves it best, and in how many seeds; "" where that was not measured."""
    study, counts = analysis.study, Counter[str]()
    for arm in _softmax_arms(study):
        for seed, best in study.values(arm, "competition.AP_mildest").items():
            counts[next(rule for rule in RULES if study.value(arm, seed, f"competition.AP_{rule}") == best)] += 1
    names = [f"{RULES[rule]} ({plural(count, 'seed')})" for rule, count in counts.most_common()]
    return Marked(f"The mildest of the softmax's test rules: its class must beat {and_list(names)}." if names else "")


def _rules(study: StudyResults) -> Marked:
    """A row for each rule of a softmax, and for the arms without rules."""
    competing, rows = _softmax_arms(study), []
    for arm in study.record.arms:
        names = (
            RULES | {"mildest": "the mildest of the three in its seed"} if arm in competing else {"mildest": NOTHING}
        )
        for rule, label in names.items():
            figures = [mean_sd(study, arm, f"competition.{name}_{rule}") for name in ("AP", "AP50", "AP75")]
            rows.append([study.label(arm), label, *figures])
    return table(["arm", "the class must beat", "mask AP", "mask AP50", "mask AP75"], rows, left=2)


def _softmax_arms(study: StudyResults) -> list[str]:
    return [name for name, arm in study.record.arms.items() if arm.factors.get("mask_loss") == "softmax"]


def strongest_rival(shown: dict[str, Any]) -> str:
    """The other class with the largest softmax share, averaged over the object's cells."""
    inside = np.array(shown["target"]) > 0.5
    others = {name: np.array(share) for name, share in shown["softmax"].items()}
    del others["background"], others[shown["class"]]
    return max(others, key=lambda name: others[name][inside].mean())


def _means(by_seed: dict[str, dict[str, float]]) -> dict[str, float]:
    names = next(iter(by_seed.values()))
    return {name: statistics.fmean(values[name] for values in by_seed.values()) for name in names}


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
