"""The tables of a report."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.records.schema import DIFFERENCE
from reports.analysis import Analysis
from reports.load import StudyResults
from reports.stats.bootstrap import ImageNoise
from reports.stats.dose import Dose
from reports.stats.paired import MOST_SEEDS, Estimate, Verdict
from reports.text import captions, wording
from reports.text.labels import (
    NOTHING,
    OPERATORS,
    interval,
    metric_label,
    number,
    of_all_sizes,
    p_value,
    plural,
    signed,
)
from reports.text.markup import Marked, bold, emphasis, paragraphs, table

HEADLINE = ("segm.AP", "segm.AP50", "segm.AP75", "bbox.AP")
SIZES = ("APs", "APm", "APl")
GIB = 2**30


def headline_metrics(study: StudyResults) -> list[str]:
    """The usual four, and whatever else the hypotheses are about, of those that the runs have.

    Where they are about large objects, the same of all objects stands before it.
    """
    claimed = [item.metric for item in study.record.hypotheses if DIFFERENCE not in item.metric]
    asked = [metric for name in claimed for metric in (of_all_sizes(name), name)]
    known = study.metrics()
    usual = [metric for metric in HEADLINE if not (study.boxes_are_given and metric.startswith("bbox."))]
    return [metric for metric in dict.fromkeys([*usual, *asked]) if metric in known] or list(HEADLINE[:1])


def headline(study: StudyResults) -> Marked:
    """Mean and standard deviation of every arm, with the paper's value in brackets where it measures the same.

    Where arms differ in size, their numbers of parameters stand beside.
    """
    metrics = headline_metrics(study)
    sizes = parameters(study)
    rows = []
    for name, arm in study.record.arms.items():
        cells = []
        for metric in metrics:
            paper = None if study.boxes_are_given else arm.paper.get(metric)
            cells.append(mean_sd(study, name, metric) + (f" ({number(paper)})" if paper is not None else ""))
        count = sum((name, seed) in study.runs for seed in study.record.seeds)
        rows.append([arm.label, str(count), *cells, *([sizes[name]] if sizes else [])])
    header = ["arm", "n", *(metric_label(metric) for metric in metrics)]
    return table(header + (["parameters"] if sizes else []), rows)


def parameters(study: StudyResults) -> dict[str, str]:
    """For each arm its millions of parameters and, where that is what differs, the mask head's; {} if all are alike."""
    first = {name: run for (name, _), run in reversed(study.runs.items())}
    if len({run.num_parameters for run in first.values()}) < 2:
        return {}
    heads = {name: run.parameters.get("mask_head", 0) for name, run in first.items()}
    sizes = dict.fromkeys(study.record.arms, NOTHING)
    for name, run in first.items():
        sizes[name] = f"{run.num_parameters / 1e6:.2f} M"
        if len(set(heads.values())) > 1 and heads[name]:
            sizes[name] += f" (mask head {heads[name] / 1e6:.2f} M)"
    return sizes


def mean_sd(study: StudyResults, arm: str, metric: str) -> str:
    """ "45.1 ± 0.5" over the arm's seeds."""
    return mean_and_spread(study.values(arm, metric).values())


def mean_and_spread(values: Any) -> str:
    """ "45.1 ± 0.5" over the values that are not None."""
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING
    spread = f" ± {number(statistics.stdev(known))}" if len(known) > 1 else ""
    return number(statistics.fmean(known)) + spread


def estimated(effect: Estimate) -> str:
    """ "+3.4 (+1.2 to +5.6)"."""
    if effect.mean is None:
        return NOTHING
    return signed(effect.mean) + (f" ({interval(effect.low, effect.high)})" if effect.low is not None else "")


def every_seed(study: StudyResults) -> Marked:
    """A row for each planned run, missing ones included."""
    metrics = headline_metrics(study)
    kinds = {(problem.arm, problem.seed): problem.kind for problem in study.problems}
    rows = []
    for arm in study.record.arms:
        for seed in study.record.seeds:
            values = [number(study.value(arm, seed, metric)) for metric in metrics]
            rows.append([study.label(arm), str(seed), kinds.get((arm, seed), "done"), *values])
    return table(["arm", "seed", "run", *(metric_label(metric) for metric in metrics)], rows)


def every_difference(analysis: Analysis, metric: str) -> Marked:
    """Seed by seed, the study's contrasts in one metric, with their mean and standard deviation; "" without any.

    Of a difference of two metrics only the contrasts that claims are about.
    """
    claimed: list[Mapping[str, float]] = [
        item.contrast for item in analysis.study.record.hypotheses if item.metric == metric
    ]
    if DIFFERENCE not in metric:
        claimed = [*analysis.differences, *(item.weights for item in analysis.interactions if item.metric == metric)]
    compared = [weights for weights in claimed if analysis.estimate(weights, metric).n]
    estimates = [analysis.estimate(weights, metric) for weights in compared]
    if not compared:
        return Marked("")
    rows: list[list[object]] = [
        [f"seed {seed}", *(signed(item.values.get(seed)) for item in estimates)] for seed in analysis.study.record.seeds
    ]
    rows.append([bold("mean"), *(bold(signed(item.mean)) for item in estimates)])
    rows.append(["sd", *(number(item.sd) for item in estimates)])
    return table([metric_label(metric), *(analysis.label(weights) for weights in compared)], rows)


def tests(analysis: Analysis) -> Marked:
    """The numbers behind the verdicts; with the 90 % interval where a claim of equality rests on it."""
    equal = [verdict.hypothesis.direction == "equal" for verdict in analysis.verdicts]
    asked = [verdict.hypothesis.threshold != 0 for verdict in analysis.verdicts]
    rows = []
    for item, is_equal in zip(analysis.verdicts, equal, strict=True):
        effect = item.measured
        at_90 = effect.interval(0.9) or (None, None)
        rows.append(
            [
                item.hypothesis.claim,
                metric_label(item.hypothesis.metric),
                str(effect.n),
                signed(effect.mean),
                number(effect.sd),
                wording.beside_paper(item, effect.low, effect.high),
                *([interval(*at_90) if is_equal else NOTHING] if any(equal) else []),
                *([f"{item.hypothesis.threshold:g}"] if any(asked) else []),
                p_value(item.p),
                p_value(item.p_corrected),
                number(item.detectable),
                _needed(item.seeds_needed),
            ]
        )
    extra = [*(["90 % interval"] if any(equal) else []), *(["threshold"] if any(asked) else [])]
    header = ["claim", "metric", "n", "mean", "sd", "95 % interval", *extra]
    header += ["p", "p (Holm)", "detectable", "seeds needed"]
    return table(header, rows, left=2)


def _needed(count: int | None) -> str:
    if count is None:
        return NOTHING
    return str(count) if count <= MOST_SEEDS else "too close to call"


def image_noise(analysis: Analysis) -> Marked:
    """The two kinds of interval beside each other, for the hypotheses whose image noise could be computed.

    With the smallest difference that other images would show, where the bootstrap's error was kept.
    """
    shown = [(item, noise) for item in analysis.verdicts if (noise := analysis.noise.get(item.hypothesis.name))]
    has_error = any(noise.error is not None for _, noise in shown)
    rows = []
    for item, noise in shown:
        seeds, images = interval(item.measured.low, item.measured.high), wording.over_images(item, noise)
        if wording.is_open_over_images(item, noise):
            images += f" (covers {'the threshold' if item.hypothesis.threshold else '0'})"
        least = [number(noise.detectable)] if has_error else []
        counts = [str(noise.num_seeds), counted_images(noise)]
        rows.append([item.hypothesis.claim, signed(noise.mean), seeds, images, *least, *counts])
    header = ["claim", "mean", "other seeds", "other images", *(["detectable"] if has_error else [])]
    return table([*header, "seeds", "images"], rows)


def counted_images(noise: ImageNoise) -> str:
    """ "184 objects in 84 of 103 images"; where objects are not counted, the images alone."""
    if noise.num_objects is None or noise.with_objects is None:
        return str(noise.num_images)
    of = "" if noise.with_objects == noise.num_images else f" of {noise.num_images}"
    return f"{plural(noise.num_objects, 'object')} in {noise.with_objects}{of} images"


def scales(verdicts: Sequence[Verdict], contexts: Sequence[str]) -> Marked:
    """One interaction in every metric that was asked for and on every scale: whether it is there can depend on it.

    contexts: where the first and where the second of its differences was measured.
    """
    asked = {metric_label(verdict.hypothesis.metric) for verdict in verdicts}
    known = {scale.label: scale for verdict in verdicts for scale in verdict.scales}
    has_paper = any(scale.paper is not None for scale in known.values())
    rows = []
    for scale in sorted(known.values(), key=lambda scale: scale.is_subset and scale.label not in asked):
        cells = [
            scale.label,
            *(signed(effect.mean, scale.digits) for effect in (scale.first, scale.second, scale.between)),
            interval(scale.between.low, scale.between.high, scale.digits),
            *([signed(scale.paper, scale.digits)] if has_paper else []),
        ]
        rows.append([bold(cell) for cell in cells] if scale.label in asked else cells)
    header = ["gain in", *contexts, "how much more", "95 % interval", *(["the paper"] if has_paper else [])]
    return table(header, rows) if rows else Marked("")


def doses(items: Sequence[Dose]) -> Marked:
    """How far each arm's rounding moves its bins, and how much of the metric it loses."""
    rows = []
    for item in items:
        name = captions.operator_of(item)
        if item.on_curve:
            name = f"{OPERATORS[item.op]}, boxes rounded to {item.step} px"
        cells = [number(item.pixels), f"{number(item.share)} %", estimated(item.lost), str(item.lost.n)]
        rows.append([name, str(item.stride), *cells])
    lost = metric_label(items[0].metric) if items else ""
    return table(["operator", "stride", "displacement (px)", "of the object's side", f"lost in {lost}", "n"], rows)


def by_size(analysis: Analysis) -> Marked:
    """Means of every arm, and the differences with their intervals, by the size of the objects: masks, then boxes."""
    study = analysis.study
    tables = []
    for kind in ("segm",) if study.boxes_are_given else ("segm", "bbox"):
        metrics = [f"{kind}.{key}" for key in SIZES]
        metrics = [metric for metric in metrics if any(study.values(arm, metric) for arm in study.record.arms)]
        if not metrics:
            continue
        rows: list[list[object]] = [
            [study.label(arm), *(mean_sd(study, arm, metric) for metric in metrics)] for arm in study.record.arms
        ]
        for weights in analysis.differences:
            cells = [estimated(analysis.estimate(weights, metric)) for metric in metrics]
            rows.append([emphasis(analysis.label(weights)), *cells])
        tables.append(table(["arm", *(metric_label(metric).removesuffix(" objects") for metric in metrics)], rows))
    return paragraphs(*tables)


def cost(study: StudyResults) -> Marked:
    """What an arm costs: medians over its seeds, the largest peak memory."""
    rows = []
    for arm in study.record.arms:
        runs = [run for (name, _), run in study.runs.items() if name == arm]
        if not runs:
            rows.append([study.label(arm)] + [NOTHING] * 5)
            continue

        def median(key: str, runs: Sequence[Any] = runs) -> float | None:
            values = [run.cost[key] for run in runs if run.cost.get(key) is not None]
            return statistics.median(values) if values else None

        memory = [run.cost["peak_memory_bytes"] for run in runs if run.cost.get("peak_memory_bytes")]
        step = median("seconds_per_step")
        rows.append(
            [
                study.label(arm),
                number(None if step is None else 1000 * step, 0),
                number(median("train_seconds"), 0),
                number(median("eval_seconds"), 1),
                number(max(memory) / GIB if memory else None, 2),
                " / ".join(f"{count:,}" for count in sorted({run.num_parameters for run in runs})),
            ]
        )
    header = ["arm", "ms per step", "training (s)", "evaluation (s)", "peak memory (GiB)", "parameters"]
    return table(header, rows)


def problems(study: StudyResults) -> Marked:
    """The planned runs that are missing, and finished ones that were not planned."""
    arms = study.record.arms
    rows = [
        [arms[item.arm].label if item.arm in arms else item.arm, str(item.seed), item.kind, item.detail]
        for item in study.problems
    ]
    return table(["arm", "seed", "state", "detail"], rows, left=4)
