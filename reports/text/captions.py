"""Captions, and sentences beside figures, whose words depend on what is shown."""

from collections.abc import Sequence

from ablations.records.schema import Hypothesis
from reports.load import StudyResults
from reports.stats.dose import Dose
from reports.text.labels import OPERATORS, and_list, is_of_large, metric_label, of_all_sizes, unit_of
from reports.text.markup import Marked, escape


def dose(items: Sequence[Dose]) -> Marked:
    """The caption of the dose chart; "" where there is none."""
    if not items:
        return Marked("")
    metric = items[0].metric
    objects, of = ("objects of 96 px and more", " of these objects") if is_of_large(metric) else ("objects", "")
    steps = "the arms whose boxes were rounded beforehand, to the step written above"
    if any(item.op == "warp" and item.on_curve for item in items):
        steps += "; RoIWarp is one of them, as it reads boxes rounded to the stride as RoIAlign does"
    hollow = " Hollow points come from networks that differ in more than the operator."
    return Marked(
        f"The dose: how far rounding moves the bins that a network reads, averaged over the bins of an object and over "
        f"all {objects}. The response: how many points of {escape(metric_label(of_all_sizes(metric)))}{of} are lost "
        "against the arm that rounds nothing on the same backbone. Each point is the mean over seeds, the bar its 95 % "
        f"interval. Lines join {steps}. Circles are the map of stride 16, squares that of stride 32."
        + ("" if all(item.same_net for item in items) else hollow)
    )


def rising(strides: Sequence[int]) -> Marked:
    """Below the chart of gains by size, what it means that they rise at these strides; "" where they do at none."""
    if not strides:
        return Marked("")
    at = f"stride{'s' if len(strides) > 1 else ''} {and_list([str(stride) for stride in strides])}"
    return Marked(
        f"At {at} the largest objects gain most, and on the smallest no gain is resolved: only on large objects are "
        "these masks precise enough to be spoilt. Displacement alone would give the opposite, as it is a larger share "
        "of a smaller object."
    )


def operator_of(dose: Dose) -> str:
    """What an arm does with boxes, and where it comes from if not from the study that is reported."""
    if dose.op == "align":
        return "RoIAlign of rounded boxes"
    notes = [f"study {dose.study}" if dose.study else "", "" if dose.same_net else "with another head"]
    said = ", ".join(filter(None, notes))
    return OPERATORS[dose.op] + (f" ({said})" if said else "")


def measure(metric: str) -> str:
    """What the values of a metric are, for a reader who meets them first in a chart; "" for those that say it."""
    return {
        "points of AP": "AP is average precision, from 0 to 100: how many objects are found, and how exactly.",
        "points of IoU": "IoU, intersection over union, is the area that a mask and its object share, as a share of "
        "the area that they cover together, from 0 to 100.",
    }.get(unit_of(metric), "")


TERMS = {
    "FCIS": "fully convolutional instance-aware segmentation (Li and others, 2017): it reads classes, boxes and masks "
    "from one set of score maps, in which each part of a region has maps of its own.",
    "FCN": "fully convolutional network, here a mask head of convolutions, in which each position of a mask comes "
    "from the features around the same position.",
    "MLP": "multilayer perceptron, here a mask head of fully connected layers, in which every position of a mask is "
    "computed from all features of the region.",
    "RoIWarp": "rounds the box to whole cells as RoIPool does, and then samples it as RoIAlign does.",
}
"""Names that arms have, for those who meet them first."""


def terms(study: StudyResults) -> list[Marked]:
    """What names in the labels of a study's arms mean, as lines of a list."""
    labels = [arm.label for arm in study.record.arms.values()]
    return [Marked(f"**{name}**: {meaning}") for name, meaning in TERMS.items() if any(name in text for text in labels)]


def without_values(hypotheses: Sequence[Hypothesis]) -> Marked:
    """That the paper has no values for some claims; "" where it has them for all."""
    return Marked(
        "Where no value from the paper is given, the paper has none."
        if any(item.paper is None for item in hypotheses)
        else ""
    )
