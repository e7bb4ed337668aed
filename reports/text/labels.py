"""How numbers, metrics, arms and contrasts are written in reports: one place, so that text and charts agree."""

import math
import re
from collections.abc import Mapping, Sequence

from ablations.records.schema import DIFFERENCE
from reports.load import StudyResults

LARGE = "_96_px_and_more"  # ends the name of a metric of large objects
NOTHING = "–"  # where a value is not defined
MINUS = "−"

OPERATORS = {"align": "RoIAlign", "pool": "RoIPool", "warp": "RoIWarp"}

KINDS = {
    "segm": "mask",
    "bbox": "box",
    "overlap": "mask",
    "neighbours": "",
    "phase": "mask",
    "floor_box": "filled-box",
    "floor_ellipse": "ellipse-in-box",
    "competition": "mask",
    "mask_choice": "mask",
    "inference_cost": "",
}
BOXES = {"recall": "proposal", "anchors": "random anchor", "grid": "grid window", "random": "random box"}
"""Kinds of metrics that measure recall -> of what."""
KEYS = {
    "APs": "AP, small objects",
    "APm": "AP, medium objects",
    "APl": "AP, large objects",
    "AR1": "AR at 1 detection",
    "AR10": "AR at 10 detections",
    "AR100": "AR at 100 detections",
    "ARs": "AR, small objects",
    "ARm": "AR, medium objects",
    "ARl": "AR, large objects",
    "AP_apart": "AP, images without overlap",
    "AP_none": "AP, no overlap",
    "AP_some": "AP, some overlap",
    "AP_much": "AP, much overlap",
    "variation": "IoU's variation under the grid",
    "detected_alone": "isolated objects detected",
    "iou_alone": "mask IoU of isolated objects",
    "detected_same": "objects next to one of the same class, detected",
    "iou_loss_same": "mask IoU lost to a neighbour of the same class",
    "leakage_same": "leakage into a neighbour of the same class",
    "detected_other": "objects next to one of another class, detected",
    "iou_loss_other": "mask IoU lost to a neighbour of another class",
    "leakage_other": "leakage into a neighbour of another class",
    "AP_classifier": "AP, chosen by the classifier",
    "AP_own": "AP, chosen by the mask branch",
    "time_added": "time added by masks (%)",
    "multiply_adds_added": "multiply-adds added by masks (%)",
    "parameters_added": "parameters added by the mask branch (%)",
}
RULES = {
    "mildest": "mildest rule",
    "share": "rule of all others",
    "argmax": "rule of each other",
    "background": "rule of the background",
}
for _figure in ("AP", "AP50", "AP75"):
    KEYS |= {f"{_figure}_{rule}": f"{_figure}, {label}" for rule, label in RULES.items()}


def number(value: float | None, digits: int = 1) -> str:
    """A number with a real minus sign; never "-0.0"."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else MINUS)


def signed(value: float | None, digits: int = 1) -> str:
    """A difference with its sign: "+3.4", "−0.2", "0.0"."""
    text = number(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and float(f"{value:.{digits}f}") > 0 else text


def tick(value: float, _: float | None = None) -> str:
    """A difference on an axis, with no more digits than it needs."""
    return signed(value, next((digits for digits in (0, 1) if round(value, digits) == round(value, 6)), 2))


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    return NOTHING if low is None or high is None else f"{signed(low, digits)} to {signed(high, digits)}"


def p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def metric_label(metric: str) -> str:
    """ "segm.AP75" -> "mask AP75"; "segm.AP75 - segm.AP50" -> "mask AP75 − mask AP50"."""
    if DIFFERENCE in metric:
        return f" {MINUS} ".join(metric_label(part) for part in metric.rsplit(DIFFERENCE, 1))
    kind, _, key = metric.partition(".")
    recall = re.fullmatch(r"(AR|R(\d+))@(\d+)", key)
    if kind in BOXES and recall:
        level = f"recall at IoU {int(recall[2]) / 100:g}" if recall[2] else "average recall"
        return f"{level}, {plural(int(recall[3]), BOXES[kind])}"
    if kind == "true_boxes":
        return _on_true_boxes(key)
    return f"{KINDS.get(kind, kind)} {KEYS.get(key, key.replace('_', ' '))}".strip()


def _on_true_boxes(key: str) -> str:
    """ "IoU_96_px_and_more" -> "mask IoU on true boxes, objects of 96 px and more"."""
    figure, _, sizes = key.partition("_")
    if not sizes:
        return f"mask {figure} on true boxes"
    of = "" if sizes.startswith("under") else "of "
    return f"mask {figure} on true boxes, objects {of}{sizes.replace('_', ' ')}"


def is_of_large(metric: str) -> bool:
    """Whether a metric is about objects of 96 pixels and more alone."""
    return metric.endswith(LARGE)


def of_all_sizes(metric: str) -> str:
    """The metric over objects of every size."""
    return metric.removesuffix(LARGE)


def unit_of(metric: str) -> str:
    """What differences of a metric, or of a difference of two of one kind, are counted in."""
    kind, _, key = metric.partition(".")
    if kind == "inference_cost":
        of = {"time_added": "time", "multiply_adds_added": "multiply-adds", "parameters_added": "parameters"}
        return f"% of the {of.get(key, 'value')} without masks"
    if key.startswith("leakage"):
        return "% of a mask's area"
    if key.startswith("seams"):
        return "% of a mask's edge"
    if key.startswith("detected"):
        return "% of the objects"
    if kind in BOXES or key.startswith("AR"):
        return "points of recall"
    return "points of IoU" if key.lower().startswith("iou") or kind == "phase" else "points of AP"


def contrast_label(study: StudyResults, weights: Mapping[str, float]) -> str:
    """What is subtracted from what, with what both arms share said once: "RoIAlign − RoIPool, stride 16"."""
    if not is_pair(weights):
        sides = [_sum_label(study, weights, sign) for sign in (1, -1)]
        return f" {MINUS} ".join(f"({side})" if " + " in side else side for side in sides if side)
    plus, minus = arms_of(weights)
    first, second = study.label(plus).split(", "), study.label(minus).split(", ")
    shared = [part for part in first if part in second]
    ours = ", ".join(part for part in first if part not in shared)
    theirs = ", ".join(part for part in second if part not in shared)
    if not ours or not theirs:
        return f"{study.label(plus)} {MINUS} {study.label(minus)}"
    return ", ".join([f"{ours} {MINUS} {theirs}", *shared])


def difference_label(study: StudyResults, weights: Mapping[str, float]) -> str:
    """What is subtracted from what, without what both arms share: "RoIAlign − RoIPool"."""
    return contrast_label(study, weights).removesuffix(f", {context_label(study, weights)}")


def context_label(study: StudyResults, weights: Mapping[str, float]) -> str:
    """What the two arms of a contrast share ("stride 16"), or the whole contrast where they share nothing."""
    if is_pair(weights):
        plus, minus = arms_of(weights)
        second = study.label(minus).split(", ")
        shared = [part for part in study.label(plus).split(", ") if part in second]
        if shared:
            return ", ".join(shared)
    return contrast_label(study, weights)


def changed_factors(study: StudyResults, one: Mapping[str, float], other: Mapping[str, float]) -> list[str]:
    """The factors whose values among the arms of one contrast are not those among the arms of another."""
    among = lambda weights, name: {str(study.record.arms[arm].factors.get(name)) for arm in weights}  # noqa: E731
    return [name for name in study.record.factors if among(one, name) != among(other, name)]


def factor_label(name: str) -> str:
    """ "budget.train.steps" -> "number of steps"."""
    return {"budget.train.steps": "number of steps", "budget.train.lr": "learning rate"}.get(name, name)


def is_pair(weights: Mapping[str, float]) -> bool:
    """Whether a contrast is a plain difference of two arms."""
    return sorted(weights.values()) == [-1, 1]


def arms_of(weights: Mapping[str, float]) -> tuple[str, str]:
    """(arm with weight 1, arm with weight -1) of a plain difference of two arms."""
    assert is_pair(weights)
    return max(weights, key=lambda arm: weights[arm]), min(weights, key=lambda arm: weights[arm])


def _sum_label(study: StudyResults, weights: Mapping[str, float], sign: int) -> str:
    parts = []
    for arm, weight in weights.items():
        if weight * sign > 0:
            parts.append(study.label(arm) if abs(weight) == 1 else f"{abs(weight):g} x {study.label(arm)}")
    return " + ".join(parts)


def plural(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("x") else "s"
    return f"{count} {noun}{ending}"


def and_list(words: Sequence[str], word: str = "and") -> str:
    """ "a, b and c", or with another word before the last."""
    return f" {word} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
