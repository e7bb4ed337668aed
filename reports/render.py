"""A study's records to report.md, report.html, figures and tables. The same records give the same bytes."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ablations.records.summary import duration
from reports import exhibits
from reports.analysis import Analysis, analyse
from reports.figures import by_cells, closeups, compare, curves, dose, forest, misalignment, paired, recall, samples
from reports.figures.style import Figures
from reports.load import StudyResults
from reports.page import write_page
from reports.published import Published, drop_unused, keep_figures
from reports.scenes import read_scenes
from reports.stats import contrasts
from reports.stats.bootstrap import RESAMPLES
from reports.stats.contrasts import Interaction
from reports.stats.misalignment import Misalignment, measure
from reports.stats.paired import MOST_SEEDS
from reports.text import (
    captions,
    comparisons,
    floors,
    frames,
    identify,
    photographs,
    provenance,
    reproduce,
    scope,
    tables,
    wording,
)
from reports.text.labels import (
    and_list,
    changed_factors,
    context_label,
    difference_label,
    factor_label,
    is_of_large,
    is_pair,
    metric_label,
    number,
)
from reports.text.markup import Marked, code, escape

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = ("dose", "by_cells", "paired", "forest", "curves", "recall", "why", "samples", "closeups")


def render(
    study: StudyResults, folder: Path, resamples: int = RESAMPLES, page: bool = True, keep: Path | None = None
) -> Path:
    """Writes the report into `folder` and returns the path of report.md.

    resamples: of the evaluated images; 0 for none. page: False for Markdown alone, without report.html.
    keep:      folder for what it takes to render the report again when the runs' detections are not there any more.
    """
    if (folder / "figures").is_dir():
        shutil.rmtree(folder / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    analysis = analyse(study, resamples)
    if analysis.published is not None:
        keep_figures(study.folder, folder / "figures")
    shown = content(analysis, Figures(folder / "figures"))
    if keep is not None and analysis.published is None:
        known = {"images": identify.images(study), "weights": identify.weights(study)}
        shown["pictures"] = dataclasses.replace(shown["pictures"], **known)
    shown["identified"] = reproduce.sentences(study, shown["pictures"])
    frames.write_csv(frames.runs_frame(study), folder / "runs.csv")
    frames.write_csv(frames.contrasts_frame(analysis), folder / "contrasts.csv")
    text = template("report.md.j2").render(shown)
    (folder / "report.md").write_text(text, encoding="utf-8")
    drop_unused(folder / "report.md")
    if keep is not None:
        shown["pictures"].save(keep)
    if page:
        write_page(folder / "report.md")
    return folder / "report.md"


def content(analysis: Analysis, figures: Figures) -> dict[str, Any]:
    """Everything that the template of a report asks for; draws the figures on the way."""
    evidence = _evidence(analysis, figures)  # first: what it cannot read is told in the answer
    return {
        "study": analysis.study,
        **_answer(analysis),
        **evidence,
        **_statistics(analysis),
        **_account(analysis),
    }


def template(name: str) -> Template:
    """A template of this package.

    What is put into it is escaped unless it is Marked; a name that it uses and nobody fills is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = code
    environment.filters["path"] = lambda name: Marked(quote(name))
    return environment.get_template(name)


def _answer(analysis: Analysis) -> dict[str, Any]:
    """What came out, and how large the experiment is."""
    study, verdicts = analysis.study, analysis.verdicts
    primary = metric_label(analysis.primary)
    charted = [verdict for verdict in verdicts if verdict.hypothesis.metric == analysis.primary]
    return {
        "answer": wording.answer(analysis),
        "sentences": [
            wording.sentence(
                verdict,
                len(verdicts),
                noise=analysis.noise.get(verdict.hypothesis.name),
                of=analysis.label(verdict.hypothesis.contrast) if is_pair(verdict.hypothesis.contrast) else "",
            )
            for verdict in verdicts
        ],
        "shares": comparisons.shares(analysis),
        "family": len(verdicts),
        "most_seeds": MOST_SEEDS,
        "primary": primary[0].upper() + primary[1:],
        "measure": captions.measure(analysis.primary),
        "without_values": captions.without_values(study.record.hypotheses),
        "terms": captions.terms(study),
        "thresholds": any(verdict.hypothesis.threshold for verdict in charted),
        "equivalences": any(verdict.hypothesis.direction == "equal" for verdict in charted),
        "planned": len(study.record.seeds),
        "complete": len(study.seeds()),
        "num_planned": len(study.record.seeds) * len(study.record.arms),
        "setting": scope.setting(study),
        "toy": study.record.config.get("model", {}).get("name", "toy") == "toy",
        "has_paper": any(arm.paper for arm in study.record.arms.values()) and not study.boxes_are_given,
        "boxes_are_given": study.boxes_are_given,
        "floor": floors.passed(analysis),
        "floor_table": floors.floor_table(analysis),
        "warnings": wording.cautions(analysis),
    }


def _evidence(analysis: Analysis, figures: Figures) -> dict[str, Any]:
    """The figures, and what their captions say of them."""
    study = analysis.study
    displacements, rounded, gains = measure(study), analysis.doses, by_cells.curves_of(analysis)
    if displacements:
        misalignment.why(study, displacements, figures)
    dose.dose(rounded, figures)
    by_cells.by_cells(analysis, figures)
    paired.paired(analysis, analysis.primary, figures)
    forest.forest(analysis, figures)
    curves.curves(study, figures)
    has_recall = recall.recall_curves(study, figures)
    interactions = _interactions(analysis, figures)
    pictures = analysis.published or _pictures(analysis, figures, displacements)
    why = _why_text(displacements) if displacements else pictures.why
    sections, lead = exhibits.sections(analysis, figures), _leading_exhibit(study)
    return {
        "figures": {name: Marked(figures.reference(name)) for name in FIGURES},
        "about_large": is_of_large(analysis.primary),
        "weak_ranges": any(curve.weak for curve in gains),
        "rising": captions.rising([curve.stride for curve in gains if curve.rises]),
        "interactions": interactions,
        "dose": {
            "caption": captions.dose(rounded),
            "table": tables.doses(rounded),
            "of_large": any(is_of_large(item.metric) for item in rounded),
            "has_pool": any(item.op == "pool" and not item.study for item in rounded),
        },
        "why": why,
        "recall": {"table": recall.recall_table(study), "numbers": recall.shown_numbers(study)} if has_recall else None,
        "lead": sections.pop(lead, ""),
        "lead_interaction": interactions[0]["figure"] if _leads_with_interaction(analysis) else Marked(""),
        "exhibits": list(sections.values()),
        "unshown": exhibits.problems(study),
        "boxes_only": any(
            study.values(arm, "bbox.AP") and not study.values(arm, "segm.AP") for arm in study.record.arms
        ),
        "pictures": dataclasses.replace(pictures, why=why, doses=rounded),
        "credits": photographs.credits(study, pictures.credits),
        "photographs": Marked(" [Sources and licences](#photographs)." if pictures.credits else ""),
        "most_notes": samples.MOST_NOTES,
    }


def _leading_exhibit(study: StudyResults) -> str:
    """The exhibit that measures what the first claim is about, where that is no difference of two arms; else ""."""
    first = next(iter(study.record.hypotheses), None)
    return "" if first is None or is_pair(first.contrast) else first.metric.partition(".")[0]


def _leads_with_interaction(analysis: Analysis) -> bool:
    """Whether the first claim is about a difference of differences."""
    first = next(iter(analysis.study.record.hypotheses), None)
    return first is not None and any(item.weights == first.contrast for item in analysis.interactions[:1])


def _pictures(analysis: Analysis, figures: Figures, measured: Misalignment | None) -> Published:
    """Draws what needs detections, and returns what the text says of it. measured: of the object on the grid."""
    study = analysis.study
    analysis.wait()  # only now: charts need no detections
    scenes = read_scenes(study)
    shown = samples.samples(study, scenes, figures)
    close = closeups.closeups(analysis, scenes, figures)
    used = photographs.uses(
        samples=shown.image_ids if shown else (),
        slider=compare.compare(study, scenes, figures),
        closeups=close.image_ids if close else (),
        why=measured.image_id if measured else None,
    )
    return Published(
        resamples=analysis.resamples,
        noise=analysis.noise,
        seed=shown.seed if shown else None,
        crowded=shown is not None and shown.crowded,
        candidates=close.candidates if close else None,
        floor=analysis.floor_noise,
        credits=photographs.licensed(study, used),
        few_arms=shown is not None and shown.few_arms,
        few_close=close is not None and close.few_arms,
        few_notes=shown is not None and shown.few_notes,
        ordered_by=[study.label(arm) for arm in close.ordered_by] if close else [],
    )


def _statistics(analysis: Analysis) -> dict[str, Any]:
    """The numbers behind the verdicts, seed by seed."""
    study = analysis.study
    metrics = dict.fromkeys(verdict.hypothesis.metric for verdict in analysis.verdicts)
    return {
        "headline": tables.headline(study),
        "all_sizes": scope.all_sizes(analysis),
        "tests": tables.tests(analysis) or Marked("The study states no hypotheses."),
        "noise": tables.image_noise(analysis),
        "image_errors": any(noise.error is not None for noise in analysis.noise.values()),
        "without_noise": _without_noise(analysis),
        "resamples": f"{analysis.resamples:,}",
        "every_seed": tables.every_seed(study),
        "differences": list(filter(None, (tables.every_difference(analysis, metric) for metric in metrics))),
        "by_size": tables.by_size(analysis),
        "limits": scope.limits(analysis),
    }


def _account(analysis: Analysis) -> dict[str, Any]:
    """What was run, on what, at what cost, and what is missing."""
    study = analysis.study
    difference = provenance.config_difference(study)
    costs = [run.cost.get("train_seconds", 0) + run.cost.get("eval_seconds", 0) for run in study.runs.values()]
    return {
        "difference": {
            "declared": provenance.difference_table(study, difference.declared),
            "undeclared": provenance.difference_table(study, difference.undeclared),
            "same": difference.same,
        },
        "factors": Marked(and_list([code(name) for name in study.record.factors])),
        "cost": tables.cost(study),
        "total": duration(sum(costs)) if sum(costs) > 0 else "",
        "provenance": provenance.provenance_table(study) or Marked("No run is done yet."),
        "stages": provenance.stage_table(study),
        "origins": [*provenance.reused(study), *provenance.unchecked(study)],
        "problems": tables.problems(study),
    }


def _without_noise(analysis: Analysis) -> str:
    """The metrics, of hypotheses that have figures, whose noise of the images is not known."""
    missing = [
        verdict.hypothesis.metric
        for verdict in analysis.verdicts
        if verdict.estimate.n and verdict.hypothesis.name not in analysis.noise
    ]
    return and_list([metric_label(metric) for metric in dict.fromkeys(missing)])


def _interactions(analysis: Analysis, figures: Figures) -> list[dict[str, Any]]:
    """A section for each difference of two differences, in all the metrics in which the hypotheses ask about it."""
    groups: dict[contrasts.Key, list[Interaction]] = {}
    for item in analysis.interactions:
        groups.setdefault(contrasts.key(item.weights), []).append(item)
    return [_interaction(analysis, items, index, figures) for index, items in enumerate(groups.values())]


def _interaction(analysis: Analysis, items: list[Interaction], index: int, figures: Figures) -> dict[str, Any]:
    """items: one for each metric; the figure is of the first."""
    study, first = analysis.study, items[0]
    name = "interaction" if index == 0 else f"interaction{index + 1}"
    others = [factor_label(name) for name in changed_factors(study, first.first, first.second)]
    paired.interaction(analysis, first, figures, name)
    asked = [item for item in analysis.verdicts if item.hypothesis.contrast == first.weights]
    contexts = [context_label(study, weights) for weights in (first.first, first.second)]
    compared = difference_label(study, first.first)
    return {
        "title": f"{compared}: does the difference depend on {f'the {and_list(others)}' if others else 'the setting'}?",
        "figure": Marked(figures.reference(name)),
        "metric": metric_label(first.metric),
        "texts": [comparisons.interaction(analysis, item) for item in items],
        "scales": tables.scales(asked, contexts),
        "depends": any(verdict.kind == "depends on the scale" for verdict in asked),
    }


def _why_text(measured: Misalignment) -> dict[str, Any]:
    strides = list(measured.medians)
    return {
        "first": strides[0],
        "bins": measured.bins,
        "num_boxes": measured.num_boxes,
        "several": len(strides) > 1,
        "of_large": measured.of_large,
        "medians": and_list([f"{number(measured.medians[stride])} pixels at stride {stride}" for stride in strides]),
        "shares": and_list([f"{number(100 * measured.shares[stride], 0)} %" for stride in strides]),
    }
