"""Captions whose words depend on what a figure shows."""

from collections.abc import Sequence

from reports.stats.dose import Dose
from reports.text.labels import and_list, is_of_large, metric_label, of_all_sizes
from reports.text.markup import Marked, escape


def dose(items: Sequence[Dose]) -> Marked:
    """Of the dose chart; "" where there is none."""
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
        f"At {at} the gain rises with the object's size: only on large objects are these masks precise enough to be "
        "spoilt, the opposite of what displacement alone would give, which is a larger share of a smaller object."
    )
