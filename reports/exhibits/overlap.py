"""What overlap does to masks: AP by overlap, leakage and seams of every seed, and pairs of objects from close by."""

from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures import paired, pairs
from reports.figures.style import INK, Figures, arm_styles, despine, figure
from reports.load import StudyResults
from reports.stats.contrasts import Weights
from reports.text.labels import NOTHING, arms_of, contrast_label, number
from reports.text.markup import Marked, emphasis, escape, paragraphs, table
from reports.text.tables import estimated, mean_and_spread, mean_sd

BINS = {"none": "no overlap", "some": "some overlap", "much": "much overlap"}
WORKS = 0.6
"""Share of the other's mask AP on images without overlap under which a detector is not worth comparing."""


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study, content = analysis.study, exhibit.content
    weights = analysis.differences[0]
    return paragraphs(
        Marked("## What overlap does to masks"),
        _pairs(study, content, figures),
        _measures(content),
        _by_overlap(analysis, weights, content, figures),
        _working(study, weights, content),
        _found(study, weights, content),
        _boxes(study, weights),
        _leakage_and_seams(analysis, weights, content, figures),
        _voting(study, content),
    )


def _pairs(study: StudyResults, content: dict[str, Any], figures: Figures) -> Marked:
    if not pairs.draw(study, content, figures):
        return Marked("")
    return paragraphs(
        Marked("![Pairs of overlapping objects: ground truth and both systems](figures/pairs.png)"),
        emphasis(pairs.caption(study, content)),
    )


def _measures(content: dict[str, Any]) -> Marked:
    side, much = content["parts"], number(100 * content["much"], 0)
    return Marked(
        "\n".join(
            [
                "The paper shows in pictures what overlap does to FCIS and gives no number. **The measures here are "
                "this project's own:**",
                "",
                "- **Overlap** of an object: the share of its bounding box that lies on other objects' visible masks. "
                f"*None* is 0, *some* is up to {much} %, *much* is more: the median of the objects that overlap at all "
                "in the synthetic images, fixed before any detector was trained. AP by overlap ignores the "
                "objects of the other bins, as COCO's AP by size does.",
                "- **Leakage**: the share of a predicted mask that lies on other objects, averaged over the objects "
                "that overlap. A mask belongs to the object that its detection's class and box (IoU of 0.5 or more) "
                "belong to, however bad it is.",
                f"- **Seams**: edges of a mask along the borders of {side} x {side} parts of its box where the object "
                "has no edge, as a share of the mask's edge, less what would lie there if false edges were spread "
                "evenly. A smooth mask scores about 0 whatever its grid; a mask whose every edge is a seam scores 100.",
            ]
        )
    )


def _by_overlap(analysis: Analysis, weights: Weights, content: dict[str, Any], figures: Figures) -> Marked:
    study, bins = analysis.study, content["bins"]
    titles = {f"overlap.AP_{name}": f"{title}\n{bins[name]['objects']} objects" for name, title in BINS.items()}
    drawn = paired.side_by_side(analysis, weights, titles, figures, "overlap", "mask AP (points)")
    rows = []
    for name in ("apart", *BINS):
        metric, side = f"overlap.AP_{name}", bins[name]["side"]
        rows.append(
            [
                "images without any overlap" if name == "apart" else BINS[name],
                str(bins[name]["objects"]),
                NOTHING if side is None else f"{number(side, 0)} px",
                *(mean_sd(study, arm, metric) for arm in weights),
                estimated(analysis.estimate(weights, metric)),
            ]
        )
    header = ["mask AP", "objects", "median side", *map(study.label, weights), contrast_label(study, weights)]
    return paragraphs(
        Marked("### AP by overlap"),
        Marked("![Mask AP of every seed by how much objects overlap](figures/overlap.svg)" if drawn else ""),
        table(header, rows),
        Marked(
            "*Read along a row, not down a column: objects differ between the rows in size and place too. Those with "
            "some and with much overlap have boxes of about the same size, so the study asks of that pair whether the "
            "difference grows.*"
        ),
    )


def _working(study: StudyResults, weights: Weights, content: dict[str, Any]) -> Marked:
    """Whether the weaker arm is a working detector where nothing overlaps."""
    plus, minus = arms_of(weights)
    first, second = (study.values(arm, "overlap.AP_apart") for arm in (plus, minus))
    seeds = sorted(first.keys() & second.keys())
    whole = sum(first[seed] for seed in seeds)
    if not whole:
        return Marked("")
    share = 100 * sum(second[seed] for seed in seeds) / whole
    verdict = "It works" if share >= 100 * WORKS else "**It does not, and the comparison says little**"
    values = ", ".join(f"{number(second[seed])} of {number(first[seed])}" for seed in seeds)
    return Marked(
        f"A comparison only means something if {escape(study.label(minus))} is a working detector by itself: on the "
        f"{content['num_apart']} of {content['num_images']} images without any overlap it should reach at least "
        f"{100 * WORKS:.0f} % of {escape(study.label(plus))}'s mask AP. {verdict}: over the seeds it reaches "
        f"**{number(share, 0)} %** ({values})."
    )


def _found(study: StudyResults, weights: Weights, content: dict[str, Any]) -> Marked:
    """What an AP mixes, apart: how many objects are found at all, and how good the masks of those are."""
    rows = []
    for name, title in BINS.items():
        objects, row = content["bins"][name]["objects"], [title]
        for key in ("objects", "iou"):
            for arm in weights:
                runs = [run["found"][name][key] for run in content["runs"].get(arm, {}).values()]
                values = [100 * value / objects if key == "objects" else value for value in runs if value is not None]
                row.append(number(float(np.mean(values))) if values and objects else NOTHING)
        rows.append(row)
    header = ["mean over seeds", *(f"{what}, {study.label(arm)}" for what in ("found (%)", "IoU") for arm in weights)]
    return paragraphs(
        Marked("AP mixes two things: whether an object is found, and how good its mask is."),
        table(header, rows),
        Marked(
            "*Found: some detection of the object's class has a box IoU of 0.5 or more with it, whatever its score. "
            "IoU: of the masks of the objects that were found. The masks may differ in resolution too (see the "
            "settings that differ, below): then large masks are finer in one of the systems, with and without "
            "overlap.*"
        ),
    )


def _boxes(study: StudyResults, weights: Weights) -> Marked:
    """Why FCIS's boxes are worse than its masks, where they are."""
    levels = {arm: list(study.values(arm, "bbox.AP").values()) for arm in weights}
    first, second = (levels[arm] for arm in arms_of(weights))
    fcis = arms_of(weights)[1]
    if study.record.arms[fcis].factors.get("system") != "fcis" or not first or not second:
        return Marked("")
    gap = float(np.mean(first)) - float(np.mean(second))
    if gap <= 0:
        return Marked("")
    return Marked(
        f"**Boxes.** {escape(study.label(fcis))}'s box AP is {number(float(np.mean(second)))}, "
        f"{number(gap)} points lower. No layer of FCIS looks at a region by itself: its boxes are the average of four "
        f"position-sensitive maps, shared by all classes and read at rounded cells, as RoIPool rounds, where Mask "
        f"R-CNN's box branch has layers of its own for every region. Mask AP ignores boxes, so this does not "
        f"explain the gap in mask AP."
    )


def _leakage_and_seams(analysis: Analysis, weights: Weights, content: dict[str, Any], figures: Figures) -> Marked:
    study = analysis.study
    drawn = [
        paired.side_by_side(analysis, weights, {metric: ""}, figures, name, label)
        for metric, name, label in (
            ("overlap.leakage", "leakage", "leakage (% of a mask)"),
            ("overlap.seams", "seams", "seams (% of a mask's edge)"),
        )
    ]
    counts = {
        name: " and ".join(f"{number(_mean(content, arm, name), 0)} ({escape(study.label(arm))})" for arm in weights)
        for name in ("leakage", "seams")
    }
    _draw_places(study, content, figures)
    return paragraphs(
        Marked("### Leakage and seams"),
        Marked("![Leakage of every seed](figures/leakage.svg)" if drawn[0] else ""),
        Marked("![Seams of every seed](figures/seams.svg)" if drawn[1] else ""),
        Marked(
            f"*Means over the objects that a run found: on average {counts['leakage']} objects that overlap for "
            f"leakage, and {counts['seams']} objects for seams, whose parts must measure {content['least_part']} "
            f"pixels or more.*"
        ),
        Marked("![Where in a part false edges lie](figures/places.svg)"),
        Marked(
            "*False edges by their place in the part, as a share of all edges: a thin line is a seed, the thick one "
            "the mean. A peak at 0 means seams. Equal peaks at equal distances from it come from the output grid, "
            "and the measure does not count them. Score maps of parts are not the only source of seams: a head that "
            "pools 7 x 7 cells and ends in a 2 x 2 deconvolution, as Mask R-CNN's C4 head does, draws each cell's "
            "piece of the mask by itself as well, and its cells have the same borders.*"
        ),
    )


def _voting(study: StudyResults, content: dict[str, Any]) -> Marked:
    """FCIS as it is, and with each RoI's own mask."""
    metrics = {
        "leakage": "leakage (%)",
        "seams": "seams (%)",
        "AP_none": "mask AP, no overlap",
        "AP_some": "some overlap",
        "AP_much": "much overlap",
    }
    rows = []
    for arm, by_seed in content.get("unvoted", {}).items():
        rows.append([study.label(arm), *(mean_sd(study, arm, f"overlap.{name}") for name in metrics)])
        alone = [[run["metrics"][name] for run in by_seed.values()] for name in metrics]
        rows.append([f"{study.label(arm)}, without voting", *map(mean_and_spread, alone)])
    if not rows:
        return Marked("")
    return paragraphs(
        Marked(
            "The mask that FCIS gives a detection is what all regions around it agree on. Their parts have borders in "
            "other places, so voting may smooth over what the score maps do. Here are the same trained networks "
            "without it, when a detection keeps the mask of its own region (mean and standard deviation over seeds; "
            "the dashed lines above):"
        ),
        table(["", *metrics.values()], rows),
    )


def _mean(content: dict[str, Any], arm: str, name: str) -> float | None:
    values = [run[name] for run in content["runs"].get(arm, {}).values()]
    return float(np.mean(values)) if values else None


def _draw_places(study: StudyResults, content: dict[str, Any], figures: Figures) -> None:
    drawn, [[axes]] = figure(width=6.4, height=2.8)
    axes.axvline(0, color=INK, linewidth=1)
    handles = []
    styles = arm_styles(study)
    lines = [(arm, "-", study.label(arm), content["runs"].get(arm, {})) for arm in study.record.arms]
    lines += [
        (arm, "--", f"{study.label(arm)}, without voting", runs) for arm, runs in content.get("unvoted", {}).items()
    ]
    for arm, dash, label, runs in lines:
        shares = np.array([[100 * count / max(1, run["edges"]) for count in run["places"]] for run in runs.values()])
        if not shares.size:
            continue
        places = (np.arange(shares.shape[1]) + 0.5) / shares.shape[1] - 0.5
        style: dict[str, Any] = {"color": styles[arm].colour, "linestyle": dash}
        axes.plot(places, shares.T, linewidth=0.5, alpha=0.4, **style)
        style |= {"linewidth": 1.8, "marker": styles[arm].marker, "markersize": 4}
        axes.plot(places, shares.mean(axis=0), **style)
        handles.append(Line2D([], [], label=label, **style))
    axes.set_xlim(-0.5, 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xticks([-0.5, -0.25, 0, 0.25, 0.5], ["−½\nmidway", "−¼", "0\npart border", "¼", "½\nmidway"])
    axes.set_xlabel("distance from the nearest part border, in parts")
    axes.set_ylabel("false edges\n(% of all edges)")
    axes.grid(axis="y")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=INK)
    despine(axes)
    figures.save(drawn, "places")
