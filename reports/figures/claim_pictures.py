"""The picture of a claim in the ledger, of one of the kinds that the studies' reports have, and what it shows."""

from pathlib import Path
from typing import Any

from reports.analysis import Analysis
from reports.exhibits import MALFORMED, inference_cost, neighbours
from reports.figures import dose, forest, misalignment, paired, pairs, recall, samples
from reports.figures.style import Figures
from reports.load import StudyResults
from reports.scenes import read_scenes
from reports.stats.misalignment import measure
from reports.text.labels import metric_label
from reports.text.markup import Marked, escape

EXHIBITS = {"pairs": "overlap", "neighbours": "neighbours", "inference_cost": "inference_cost"}
"""Kinds that an exhibit's content is needed for -> its name."""

CAPTIONS = {
    "paired": "{metric} of every seed: a line joins two runs that share a seed. On the right, on the same scale, the "
    "differences with their mean and interval; the hollow diamond is the paper's.",
    "forest": "The differences in the usual metrics with their 95 % intervals.",
    "interaction": "The gain of every seed at either setting, and on the right by how much the second exceeds the "
    "first.",
    "why": "One object on the feature grid, a row for each stride. RoIPool rounds the black box to the amber one; its "
    "bins read what the arrows point to. RoIAlign samples the box where it lies. On the right, how far RoIPool's bins "
    "are off over all objects.",
    "samples": "Images chosen beforehand and about as hard as the median: for each object the best "
    "detection and its IoU with the truth.",
    "inference_cost": "The time of single images, one dot each, with masks and without, and the medians.",
    "dose": "How far rounding moves the bins that a network reads, on average over the objects, and how many points of "
    "{primary} are lost to it beside the arm that rounds nothing on the same backbone: means over seeds with 95 % "
    "intervals.",
    "recall": "How many of the objects an image's best proposals cover, and how exactly.",
}


def draw(analysis: Analysis, picture: dict[str, Any], figures: Figures, name: str) -> bool:
    """Draws a picture. picture: its `kind`, and for some kinds more. Returns whether there was anything to draw."""
    study, kind = analysis.study, picture.get("kind")
    if kind == "paired":
        return paired.paired(analysis, picture["metric"], figures, name)
    if kind == "forest":
        return forest.forest(analysis, figures, name)
    if kind == "interaction" and analysis.interactions:
        return paired.interaction(analysis, analysis.interactions[0], figures, name)
    if kind == "why" and (facts := measure(study)) is not None:
        misalignment.why(study, facts, figures, name)
        return True
    if kind == "samples":
        return samples.samples(study, read_scenes(study), figures, name) is not None
    if kind == "dose":
        return dose.dose(analysis.doses, figures, name)
    if kind == "recall":
        return recall.recall_curves(study, figures, name)
    return _draw_exhibit(study, str(kind), figures, name)


def _draw_exhibit(study: StudyResults, kind: str, figures: Figures, name: str) -> bool:
    exhibit = study.exhibit(EXHIBITS[kind]) if kind in EXHIBITS else None
    if exhibit is None:
        return False
    try:
        if kind == "inference_cost":
            inference_cost.draw(study, exhibit.content, figures, name)
            return True
        if kind == "neighbours":
            return neighbours.draw_scene(study, exhibit.content["shown"], figures, name)
        return pairs.draw(study, exhibit.content, figures, name)
    except MALFORMED:  # its report says so
        return False


def of_report(analysis: Analysis, picture: dict[str, Any], reports: Path) -> str:
    """The path, relative to `reports`, of the same picture in the study's own report; "" where it has none."""
    kind, name = picture.get("kind"), analysis.study.name
    if kind == "paired" and picture["metric"] != analysis.primary:
        return ""
    drawn = Figures(reports / name / "figures").reference(str(kind))
    return f"{name}/{drawn}" if drawn else ""


def caption(analysis: Analysis, picture: dict[str, Any]) -> Marked:
    """What the picture shows, in a sentence or two."""
    kind = str(picture.get("kind"))
    exhibit = analysis.study.exhibit(EXHIBITS[kind]) if kind in EXHIBITS else None
    if exhibit is not None and kind == "pairs":
        return pairs.caption(analysis.study, exhibit.content)
    if exhibit is not None and kind == "neighbours":
        return neighbours.caption(exhibit.content["shown"])
    label = metric_label(str(picture.get("metric", "")))
    names = {"metric": escape(label[:1].upper() + label[1:]), "primary": escape(metric_label(analysis.primary))}
    return Marked(CAPTIONS.get(kind, "").format(**names))
