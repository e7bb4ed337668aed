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
from reports.text.labels import NOTHING, arms_of, contrast_label, interval, number, signed
from reports.text.tables import markdown, mean_sd

BINS = {"none": "no overlap", "some": "some overlap", "much": "much overlap"}
WORKS = 0.6
"""Share of the other's mask AP on images without overlap under which a detector is not worth comparing."""


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> str:
    study, content = analysis.study, exhibit.content
    weights = analysis.differences[0]
    parts = [
        "## What overlap does to masks",
        _measures(content),
        _by_overlap(analysis, weights, content, figures),
        _finding(study, weights, content),
        _working(study, weights, content),
        _leakage_and_seams(analysis, weights, content, figures),
        _voting(study, content),
        _pairs(study, content, figures),
    ]
    return "\n\n".join(part for part in parts if part)


def _measures(content: dict[str, Any]) -> str:
    side, much = content["parts"], number(100 * content["much"], 0)
    return "\n".join(
        [
            "The paper shows in pictures what overlap does to FCIS and gives no number. **The measures here are this "
            "project's own:**",
            "",
            "- **Overlap** of an object: the share of its bounding box that lies on other objects' visible masks. "
            f"None is 0, *some* up to {much} %, *much* above: in the drawn validation images the median of the objects "
            "that overlap at all, fixed before any detector was trained. AP by overlap ignores the objects of the "
            "other bins as COCO's AP by size does.",
            "- **Leakage**: the share of a predicted mask that lies on other objects, averaged over the objects that "
            "overlap. A mask belongs to the object that its detection's class and box (IoU of 0.5 or more) belong to, "
            "however bad it is.",
            f"- **Seams**: edges of a mask along the borders of {side} x {side} parts of its box where the object has "
            "no edge, as a share of the mask's edge, less what would lie there if false edges were spread evenly. A "
            "smooth mask scores about 0 whatever its grid, a mask whose every edge is a seam 100.",
        ]
    )


def _by_overlap(analysis: Analysis, weights: Weights, content: dict[str, Any], figures: Figures) -> str:
    study, bins = analysis.study, content["bins"]
    titles = {f"overlap.AP_{name}": f"{title}\n{bins[name]['objects']} objects" for name, title in BINS.items()}
    drawn = paired.side_by_side(analysis, weights, titles, figures, "overlap", "mask AP (points)")
    rows = []
    for name in ("apart", *BINS):
        metric = f"overlap.AP_{name}"
        found = analysis.estimate(weights, metric)
        title = "images without any overlap" if name == "apart" else BINS[name]
        side = bins[name]["side"]
        rows.append(
            [
                title,
                str(bins[name]["objects"]),
                NOTHING if side is None else f"{number(side, 0)} px",
                *(mean_sd(study, arm, metric) for arm in weights),
                NOTHING if found.mean is None else f"{signed(found.mean)} ({interval(found.low, found.high)})",
            ]
        )
    header = ["mask AP", "objects", "median side", *map(study.label, weights), contrast_label(study, weights)]
    lines = [
        "### AP by overlap",
        "![Mask AP of every seed by how much objects overlap](figures/overlap.png)" if drawn else "",
        markdown(header, rows),
        "*Read along a row, not down a column: objects differ between the rows in size and place too. Those of *some* "
        "and *much* overlap have boxes of about the same size, so that is the pair on which the study asks whether the "
        "difference grows.*",
    ]
    return "\n\n".join(line for line in lines if line)


def _finding(study: StudyResults, weights: Weights, content: dict[str, Any]) -> str:
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
    return "\n\n".join(
        [
            "AP mixes two things: whether an object is found, and how good its mask is.",
            markdown(header, rows),
            "*Found: some detection of the object's class has a box IoU of 0.5 or more with it, whatever its score. "
            "IoU: of the masks of the objects that were found. The masks may differ in resolution as well: by default "
            "FCIS reads 21 x 21 cells of a region and Mask R-CNN's C4 head draws 14 x 14, so that large masks are "
            "finer in FCIS, with and without overlap.*",
        ]
    )


def _working(study: StudyResults, weights: Weights, content: dict[str, Any]) -> str:
    """Whether the weaker arm is a working detector where nothing overlaps."""
    plus, minus = arms_of(weights)
    first, second = (study.values(arm, "overlap.AP_apart") for arm in (plus, minus))
    seeds = sorted(first.keys() & second.keys())
    whole = sum(first[seed] for seed in seeds)
    if not whole:
        return ""
    share = 100 * sum(second[seed] for seed in seeds) / whole
    verdict = "It works" if share >= 100 * WORKS else "**It does not, and the comparison says little**"
    values = ", ".join(f"{number(second[seed])} of {number(first[seed])}" for seed in seeds)
    return (
        f"A comparison only means something if {study.label(minus)} is a working detector by itself: on the "
        f"{content['num_apart']} of {content['num_images']} images without any overlap it should reach at least "
        f"{100 * WORKS:.0f} % of {study.label(plus)}'s mask AP. {verdict}: over the seeds it reaches "
        f"**{number(share, 0)} %** ({values})."
    )


def _leakage_and_seams(analysis: Analysis, weights: Weights, content: dict[str, Any], figures: Figures) -> str:
    study = analysis.study
    drawn = [
        paired.side_by_side(analysis, weights, {metric: ""}, figures, name, label)
        for metric, name, label in (
            ("overlap.leakage", "leakage", "leakage (% of a mask)"),
            ("overlap.seams", "seams", "seams (% of a mask's edge)"),
        )
    ]
    counts = {
        name: " and ".join(f"{number(_mean(content, arm, name), 0)} ({study.label(arm)})" for arm in weights)
        for name in ("leakage", "seams")
    }
    _draw_places(study, content, figures)
    lines = [
        "### Leakage and seams",
        "![Leakage of every seed](figures/leakage.png)" if drawn[0] else "",
        "![Seams of every seed](figures/seams.png)" if drawn[1] else "",
        f"*Means over the objects that a run found, on average {counts['leakage']} objects that overlap for leakage, "
        f"and {counts['seams']} objects for seams, whose parts must be {content['least_part']} pixels or more.*",
        "![Where in a part false edges lie](figures/places.png)",
        "*False edges by their place in the part, as a share of all edges: a thin line is a seed, the thick one the "
        "mean. A hill at 0 is seams; hills as high at equal distances from it come from the output grid, and the "
        "measure does not count them. Score maps of parts are not the only way to seams: a head that pools 7 x 7 cells "
        "and ends in a 2 x 2 deconvolution, as Mask R-CNN's C4 head does, draws each cell's piece of the mask by "
        "itself as well, and its cells have the same borders.*",
    ]
    return "\n\n".join(line for line in lines if line)


def _voting(study: StudyResults, content: dict[str, Any]) -> str:
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
        return ""
    return "\n\n".join(
        [
            "The mask that FCIS gives a detection is what all RoIs around it agree on. Their parts have borders in "
            "other places, so voting may smooth over what the score maps do. The same trained networks without it, "
            "when a detection has its own RoI's mask (mean and standard deviation over seeds; the dashed lines above):",
            markdown(["", *metrics.values()], rows),
        ]
    )


def mean_and_spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    spread = f" ± {number(float(np.std(known, ddof=1)))}" if len(known) > 1 else ""
    return number(float(np.mean(known)) if known else None) + spread


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


def _pairs(study: StudyResults, content: dict[str, Any], figures: Figures) -> str:
    if not pairs.draw(study, content, figures):
        return ""
    return "\n\n".join(
        [
            "### Overlapping pairs from close by",
            "![Pairs of overlapping objects: ground truth and both systems](figures/pairs.png)",
            f"*{pairs.caption(study, content)}*",
        ]
    )
