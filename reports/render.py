"""A study's records to report.md, report.html, figures and tables. The same records give the same bytes."""

import statistics
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports import exhibits
from reports.figures import closeups, forest, pictures, plots, recall
from reports.figures.misalignment import Displacements, why
from reports.load import Study
from reports.page import to_html
from reports.stats.bootstrap import RESAMPLES, ImageBootstrap, ImageNoise
from reports.stats.contrasts import contrast_of, interactions, paper_contrast, primary_metric, verdicts
from reports.stats.paired import MOST_SEEDS, POWER, Verdict, detectable_effect, seeds_for
from reports.text import provenance, tables, wording
from reports.text.labels import and_list, context_label, contrast_label, interval, metric_label, number, plural, signed

TEMPLATES = Path(__file__).parent / "templates"


def render(study: Study, folder: Path, resamples: int = RESAMPLES) -> Path:
    """Writes the report into `folder` and returns the path of report.md. resamples: of the images; 0 for none."""
    figures = folder / "figures"
    for stale in [*figures.glob("*.png"), *figures.glob("*.svg")]:
        stale.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    found = verdicts(study)
    noise = image_noise(study, found, resamples)
    tables.runs_frame(study).to_csv(folder / "runs.csv", index=False, lineterminator="\n")
    tables.contrasts_frame(study, found, noise).to_csv(folder / "contrasts.csv", index=False, lineterminator="\n")
    text = template("report.md.j2").render(
        content(study, found, figures)
        | {
            "noise": tables.image_noise(found, noise),
            "without_noise": unresampled(found, noise),
            "resamples": f"{resamples:,}",
        }
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(to_html(text, folder), encoding="utf-8")
    return folder / "report.md"


def template(name: str):
    """A template of this package; a name that it uses and nobody fills is an error."""
    loader = FileSystemLoader(TEMPLATES)
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    ).get_template(name)


def image_noise(study: Study, found: list[Verdict], resamples: int) -> dict[str, ImageNoise]:
    """Hypothesis -> bootstrap over the images, where the stored detections allow it."""
    bootstrap = ImageBootstrap(study, resamples)
    noise = {
        item.hypothesis.name: bootstrap.noise(item.hypothesis.contrast, item.hypothesis.metric)
        for item in found
        if resamples and item.estimate.n and not item.hypothesis.threshold
    }
    return {name: value for name, value in noise.items() if value is not None}


def unresampled(found: list[Verdict], noise: dict[str, ImageNoise]) -> str:
    """The metrics, of hypotheses that have figures, whose noise of the images is not known."""
    metrics = [item.hypothesis.metric for item in found if item.estimate.n and item.hypothesis.name not in noise]
    return and_list([metric_label(metric) for metric in dict.fromkeys(metrics)])


def content(study: Study, found: list[Verdict], figures: Path) -> dict[str, Any]:
    """Everything that the template of a report asks for; draws the figures on the way."""
    metric = primary_metric(study)
    family = len(found)
    difference = provenance.config_difference(study)
    displacements = why(study, figures)
    samples = pictures.samples(study, figures)
    candidates = closeups.closeups(study, figures)
    drawn = {
        "paired": plots.paired(study, metric, figures),
        "forest": forest.forest(study, figures),
        "curves": plots.curves(study, figures),
        "recall": recall.curves(study, figures),
        "why": displacements is not None,
        "samples": samples is not None,
        "closeups": candidates is not None,
    }
    has_paper = any(arm.paper for arm in study.record.arms.values())
    return {
        "study": study,
        "summary": wording.summary(found),
        "sentences": [wording.sentence(item, family) for item in found],
        "family": family,
        "planned": len(study.record.seeds),
        "complete": len(study.seeds()),
        "num_planned": len(study.record.seeds) * len(study.record.arms),
        "warnings": provenance.warnings(study),
        "setting": setting(study),
        "toy": study.record.config.get("model", {}).get("name", "toy") == "toy",
        "has_paper": has_paper,
        "primary": metric_label(metric)[0].upper() + metric_label(metric)[1:],
        "headline": tables.headline(study),
        "figures": {name: f"figures/{name}.png" if there else "" for name, there in drawn.items()},
        "tests": tables.tests(study, found) or "The study states no hypotheses.",
        "interactions": [_interaction(study, index, figures) for index in range(len(interactions(study)))],
        "why": _why_text(displacements) if displacements else None,
        "recall": {"table": recall.table(study), "numbers": recall.shown_numbers(study)} if drawn["recall"] else None,
        "exhibits": exhibits.sections(study, figures),
        "boxes_only": any(
            study.values(arm, "bbox.AP") and not study.values(arm, "segm.AP") for arm in study.record.arms
        ),
        "sample_seed": samples.seed if samples else None,
        "without_notes": pictures.MOST_NOTES if samples and samples.crowded else None,
        "candidates": candidates,
        "every_seed": tables.every_seed(study),
        "differences": [
            tables.every_difference(study, name) for name in dict.fromkeys(item.hypothesis.metric for item in found)
        ],
        "by_size": tables.by_size(study),
        "difference": {
            "declared": provenance.difference_table(study, difference.declared),
            "undeclared": provenance.difference_table(study, difference.undeclared),
            "same": difference.same,
        },
        "factors": and_list([f"`{name}`" for name in study.record.factors]),
        "cost": tables.cost(study),
        "total": _duration(
            sum(run.cost.get("train_seconds", 0) + run.cost.get("eval_seconds", 0) for run in study.runs.values())
        ),
        "provenance": provenance.provenance_table(study) or "No run is done yet.",
        "stages": provenance.stage_table(study),
        "taken_over": provenance.taken_over(study),
        "problems": tables.problems(study),
        "unshown": exhibits.problems(study),
        "limits": limits(study, found),
    }


def setting(study: Study) -> str:
    """One sentence on the size of the experiment, from what the records say."""
    record = study.record
    data = study.data
    text = f"{plural(len(record.arms), 'arm')} x {plural(len(record.seeds), 'seed')}"
    steps = sorted({run.steps for run in study.runs.values()})
    if steps:
        text += f", {' or '.join(f'{count:,}' for count in steps)} training steps each"
    if data.get("num_train") and data.get("num_val"):
        text += f", on {data['num_train']:,} training and {data['num_val']:,} validation images"
    return f"{text} ({data['name']})." if data.get("name") else f"{text}."


def _interaction(study: Study, index: int, figures: Path) -> dict[str, str]:
    item = interactions(study)[index]
    name = "interaction" if index == 0 else f"interaction{index + 1}"
    there = plots.interaction(study, item, figures, name)
    estimates = [contrast_of(study, weights, item.metric) for weights in (item.first, item.second, item.weights)]
    first, second = context_label(study, item.first), context_label(study, item.second)
    paper = paper_contrast(study, item.weights, item.metric)
    text = "There are not enough runs for this comparison yet."
    if estimates[2].mean is not None:
        text = (
            f"{contrast_label(study, item.first).split(', ')[0]} in {metric_label(item.metric)}: "
            f"{signed(estimates[0].mean)} points at {first}, {signed(estimates[1].mean)} at {second}. The second "
            f"exceeds the first by **{signed(estimates[2].mean)} points** (95 % interval "
            f"{interval(estimates[2].low, estimates[2].high)}, n = {plural(estimates[2].n, 'seed')}"
            + (f"; the paper {signed(paper)}" if paper is not None else "")
            + ")."
        )
    return {
        "title": f"Does the difference depend on {_other_factor(study)}?",
        "figure": f"figures/{name}.png" if there else "",
        "text": text,
        "table": tables.relative(study, item.metric),
    }


def _other_factor(study: Study) -> str:
    others = study.record.factors[1:]
    return f"the {and_list(others)}" if others else "the setting"


def _why_text(found: Displacements) -> dict[str, Any]:
    strides = list(found.medians)
    return {
        "first": strides[0],
        "bins": found.bins,
        "num_boxes": found.num_boxes,
        "several": len(strides) > 1,
        "medians": and_list([f"{number(found.medians[stride])} pixels at stride {stride}" for stride in strides]),
        "shares": and_list([f"{number(100 * found.shares[stride], 0)} %" for stride in strides]),
    }


def limits(study: Study, found: list[Verdict]) -> list[str]:
    """What the study cannot say, as far as the records show it."""
    texts = [
        "The intervals hold the chance of the seeds: initial weights, the order and flips of the images. They do "
        "not hold that of other validation images, other data or other hyper-parameters."
    ]
    shared = provenance.shared_by_seeds(study)
    if shared:
        texts.append(
            f"All seeds of an arm stand on the same {and_list(shared)}: trained once, so the luck of that "
            f"training is in every run and in no interval."
        )
    if study.data.get("name") == "shapes":
        texts.append(
            "The images are drawn, small, and of few classes. What holds here need not hold on photographs, "
            "in size above all; the paper's figures stand beside for the direction."
        )
    spreads = [item.estimate.sd for item in found if item.estimate.sd]
    count = max((item.estimate.n for item in found), default=0)
    if spreads and count > 1:
        spread = statistics.median(spreads)
        small = detectable_effect(spread, count)
        texts.append(
            f"With the usual spread of a claim here (sd {number(spread)} points), {count} seeds find a true "
            f"difference of {number(small)} points in {100 * POWER:.0f} % of the cases. Smaller ones need "
            f"more: {_needed(spread, 1.0)} seeds for 1 point, {_needed(spread, 0.5)} for half a point."
        )
    texts.append(
        "One schedule, the same for all arms and not tuned for any of them: an arm that needed another one "
        "would look worse than it is."
    )
    return texts


def _needed(spread: float, effect: float) -> str:
    count = seeds_for(effect, spread)
    return str(count) if count <= MOST_SEEDS else f"more than {MOST_SEEDS}"


def _duration(seconds: float) -> str:
    if seconds <= 0:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
