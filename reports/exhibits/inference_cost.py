"""What the mask branch costs at test time: a table of parts, a table and a chart of times."""

import statistics
from typing import Any

import numpy as np

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import INK, MUTED, Figures, arm_styles, despine, figure
from reports.load import StudyResults
from reports.text.labels import NOTHING, number, plural, signed
from reports.text.markup import Marked, escape, paragraphs, table

PARTS = {"backbone": "backbone", "shared_head": "shared head", "box_head": "box head", "mask_head": "mask head"}
MASKS = {"none": "no masks", "best": "masks of the best boxes", "all": "masks of all proposals"}


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study, content = analysis.study, exhibit.content
    draw(study, content, figures)
    return paragraphs(
        Marked("## What masks cost at test time"),
        answer(study, content),
        Marked("![Time for each image in every variant](figures/inference_cost.svg)"),
        Marked(
            f"*Each dot is one of the first {content['num_images']} {study.evaluated}, one at a time, the line the "
            f"median. All variants took turns on every image in one process ({plural(content['threads'], 'thread')}, "
            f"{escape(content['device'])}), with the weights of seed {escape(content['seed'])}. The times include "
            f"neither the proposal network, because all arms share its proposals, nor pasting masks into the image. "
            f"They are times of one machine, and differ when the study is repeated.*"
        ),
        _times(study, content),
        Marked(
            '*"Added" compares the time with that of the same network without masks, image by image: it is the median '
            "of the images' ratios, which need not be the ratio of the medians. The claim is about all seeds. FLOPs "
            "count the convolutions and matrix products of the layers, a multiplication and an addition as two; "
            "they leave out the RoI operator, suppression and the proposal network.*"
        ),
        _parts(study, content),
        Marked("*Parameters of each part; FLOPs of the first image without masks, and of each mask.*"),
    )


def summary(study: StudyResults, exhibit: ExhibitRecord) -> Marked:
    """The answer and the times, for a page that says no more about them."""
    return paragraphs(answer(study, exhibit.content), _times(study, exhibit.content))


def answer(study: StudyResults, content: dict[str, Any]) -> Marked:
    """The paper's rule in one sentence for each arm with masks."""
    texts = []
    for arm in dict.fromkeys(variant["arm"] for variant in content["variants"] if variant["masks"] != "none"):
        best, every = (_variant(content, arm, name) for name in ("best", "all"))
        texts.append(
            f"The paper computes masks for the {content['most_boxes']} best boxes only (section 3.1), which, its text "
            f"says, takes about 20 % more time. In {escape(study.label(arm))}, seed {escape(content['seed'])}, the "
            f"rule leaves {number(best['masks_per_image'])} boxes of an image on average. Their masks add "
            f"**{signed(added(content, best), 0)} %** to the time without masks; masks for all "
            f"{content['num_proposals']} proposals add {signed(added(content, every), 0)} %. The mask head holds "
            f"**{number(mask_share(content, arm))} %** of the network's parameters."
        )
    return Marked(" ".join(texts))


def mask_share(content: dict[str, Any], arm: str) -> float:
    """Percent of an arm's parameters that its mask head holds."""
    parameters = content["parameters"][arm]
    return 100 * parameters["mask_head"] / sum(parameters.values())


def _times(study: StudyResults, content: dict[str, Any]) -> Marked:
    rows = []
    for variant in content["variants"]:
        times = variant["milliseconds"]
        low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else (times[0], times[0], times[0])
        more = NOTHING if variant["masks"] == "none" else f"{signed(added(content, variant), 0)} %"
        rows.append(
            [
                study.label(variant["arm"]),
                MASKS[variant["masks"]],
                number(variant["masks_per_image"]),
                f"{flops(content, variant) / 1e6:,.0f}",
                f"{number(statistics.median(times))} ({number(low)} to {number(high)})",
                more,
            ]
        )
    header = ["arm", "variant", "masks per image", "million FLOPs", "ms per image, median (quartiles)", "added"]
    return table(header, rows, left=2)


def _parts(study: StudyResults, content: dict[str, Any]) -> Marked:
    rows = []
    for arm, counts in content["parameters"].items():
        cells = [f"{counts[part]:,}" if part in counts else NOTHING for part in PARTS]
        costs = [content["flops"][arm].get(name) for name in ("without_masks", "per_mask")]
        millions = [number(None if cost is None else cost / 1e6) for cost in costs]
        rows.append([study.label(arm), *cells, f"{sum(counts.values()):,}", *millions])
    header = ["arm", *PARTS.values(), "all parts", "million FLOPs without masks", "million FLOPs for each mask"]
    return table(header, rows)


def flops(content: dict[str, Any], variant: dict[str, Any]) -> float:
    """The floating point operations of one image, with as many masks as the variant computes."""
    counts = content["flops"][variant["arm"]]
    return counts["without_masks"] + variant["masks_per_image"] * counts.get("per_mask", 0)


def added(content: dict[str, Any], variant: dict[str, Any]) -> float:
    """Percent by which a variant takes longer than its arm without masks: the median over the images."""
    base = np.array(_variant(content, variant["arm"], "none")["milliseconds"])
    return 100 * (float(np.median(np.array(variant["milliseconds"]) / base)) - 1)


def _variant(content: dict[str, Any], arm: str, masks: str) -> dict[str, Any]:
    return next(item for item in content["variants"] if (item["arm"], item["masks"]) == (arm, masks))


def draw(study: StudyResults, content: dict[str, Any], figures: Figures, name: str = "inference_cost") -> None:
    """The time of each image in every variant, and the medians."""
    variants, styles = content["variants"], arm_styles(study)
    drawn, [[axes]] = figure(width=7.6, height=0.8 + 0.52 * len(variants))
    spread = 0.3 * ((np.arange(content["num_images"]) * 0.618) % 1 - 0.5)  # dots beside each other, the same every time
    # An image that the machine interrupted is no reason for a longer axis.
    most = 1.1 * max(float(np.quantile(variant["milliseconds"], 0.98)) for variant in variants)
    for row, variant in enumerate(variants):
        times, colour = np.array(variant["milliseconds"]), styles[variant["arm"]].colour
        inside = times <= most
        dots = {"color": colour, "markersize": 2.4, "alpha": 0.35, "markeredgewidth": 0}
        axes.plot(times[inside], (spread - row)[inside], "o", **dots)
        if not inside.all():
            text = f"{plural(int((~inside).sum()), 'image')} slower,\nup to {number(float(times.max()), 0)} ms"
            beside = ("axes fraction", "data")
            axes.annotate(text, (1.01, -row), xycoords=beside, va="center", fontsize=7, color=MUTED)
        middle = float(np.median(times))
        axes.plot([middle, middle], [-row - 0.3, -row + 0.3], color=INK, linewidth=2)
        axes.annotate(number(middle), (middle, -row + 0.32), ha="center", va="bottom", fontsize=8, fontweight="bold")
    axes.set_yticks(
        [-row for row in range(len(variants))],
        [f"{study.label(variant['arm'])}:\n{MASKS[variant['masks']]}" for variant in variants],
    )
    axes.set_xlim(0, most)
    axes.set_xlabel("time for an image (ms)")
    axes.grid(axis="x")
    despine(axes, "left")
    figures.save(drawn, name)
