"""The tables of a report."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ablations.records.schema import DIFFERENCE
from reports.analysis import Analysis
from reports.load import StudyResults
from reports.stats.contrasts import Interaction
from reports.stats.paired import MOST_SEEDS, Estimate, estimate
from reports.text.labels import NOTHING, arms_of, context_label, interval, metric_label, number, p_value, signed
from reports.text.markup import Marked, bold, emphasis, paragraphs, table

HEADLINE = ("segm.AP", "segm.AP50", "segm.AP75", "bbox.AP")
SIZES = ("APs", "APm", "APl")
SCALES = ("segm.AP", "segm.AP50", "segm.AP75", "segm.APs", "segm.APm", "segm.APl", "bbox.AP", "bbox.AP50", "bbox.AP75")
GIB = 2**30


def headline_metrics(study: StudyResults) -> list[str]:
    """The usual four, and whatever else the hypotheses are about, of those that the runs have."""
    asked = [item.metric for item in study.record.hypotheses if DIFFERENCE not in item.metric]
    known = study.metrics()
    return [metric for metric in dict.fromkeys([*HEADLINE, *asked]) if metric in known] or list(HEADLINE[:1])


def headline(study: StudyResults) -> Marked:
    """Mean and standard deviation of every arm, with the paper's value in brackets.

    Where arms differ in size, their numbers of parameters stand beside.
    """
    metrics = headline_metrics(study)
    sizes = parameters(study)
    rows = []
    for name, arm in study.record.arms.items():
        cells = []
        for metric in metrics:
            paper = arm.paper.get(metric)
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
    """Seed by seed, the study's contrasts in one metric, with their mean and standard deviation."""
    compared = [*analysis.differences, *(item.weights for item in analysis.interactions if item.metric == metric)]
    estimates = [analysis.estimate(weights, metric) for weights in compared]
    rows: list[list[object]] = [
        [f"seed {seed}", *(signed(item.values.get(seed)) for item in estimates)] for seed in analysis.study.record.seeds
    ]
    rows.append([bold("mean"), *(bold(signed(item.mean)) for item in estimates)])
    rows.append(["sd", *(number(item.sd) for item in estimates)])
    return table([metric_label(metric), *(analysis.label(weights) for weights in compared)], rows)


def tests(analysis: Analysis) -> Marked:
    """The numbers behind the verdicts; with the 90 % interval where a claim of equality rests on it."""
    equal = [verdict.hypothesis.direction == "equal" for verdict in analysis.verdicts]
    rows = []
    for item, is_equal in zip(analysis.verdicts, equal, strict=True):
        effect, decides = item.estimate, item.interval or (None, None)
        rows.append(
            [
                item.hypothesis.claim,
                metric_label(item.hypothesis.metric),
                str(effect.n),
                signed(effect.mean),
                number(effect.sd),
                interval(effect.low, effect.high),
                *([interval(*decides) if is_equal else NOTHING] if any(equal) else []),
                p_value(item.p),
                p_value(item.p_corrected),
                number(item.detectable),
                _needed(item.seeds_needed),
            ]
        )
    intervals = ["95 % interval", "90 % interval"] if any(equal) else ["95 % interval"]
    header = ["claim", "metric", "n", "mean", "sd", *intervals, "p", "p (Holm)", "detectable", "seeds needed"]
    return table(header, rows, left=2)


def _needed(count: int | None) -> str:
    if count is None:
        return NOTHING
    return str(count) if count <= MOST_SEEDS else "too close to call"


def image_noise(analysis: Analysis) -> Marked:
    """The two kinds of interval beside each other, for the hypotheses whose image noise could be computed."""
    rows = []
    for item in analysis.verdicts:
        noise = analysis.noise.get(item.hypothesis.name)
        if noise is not None:
            seeds = interval(item.estimate.low, item.estimate.high)
            images = interval(noise.low, noise.high)
            counts = [str(noise.num_seeds), str(noise.num_images)]
            rows.append([item.hypothesis.claim, signed(noise.mean), seeds, images, *counts])
    return table(["claim", "mean", "other seeds", "other images", "seeds", "images"], rows)


def relative(analysis: Analysis, metric: str) -> Marked:
    """Differences as a share of the first arm's own level: scales on which APs differ can be compared by it."""
    study, rows = analysis.study, []
    for weights in analysis.differences:
        _, minus = arms_of(weights)
        effect, base = analysis.estimate(weights, metric), study.values(minus, metric)
        paper, paper_base = analysis.paper(weights, metric), study.record.arms[minus].paper.get(metric)
        level = statistics.fmean([base[seed] for seed in effect.values]) if effect.values else 0.0
        rows.append(
            [
                analysis.label(weights),
                signed(effect.mean),
                f"{signed(100 * effect.mean / level, 0)} %" if effect.mean is not None and level > 0 else NOTHING,
                signed(paper),
                f"{signed(100 * paper / paper_base, 0)} %" if paper is not None and paper_base else NOTHING,
            ]
        )
    return table([metric_label(metric), "points", "of the first arm's AP", "paper, points", "paper, share"], rows)


def scales(analysis: Analysis, item: Interaction) -> Marked:
    """An interaction in every metric, and as a ratio: whether it is there can depend on the scale."""
    study, rows = analysis.study, list[list[object]]()
    for metric in dict.fromkeys([item.metric, *SCALES]):
        gains = [analysis.estimate(weights, metric) for weights in (item.first, item.second, item.weights)]
        if gains[2].mean is None:
            continue
        cells: list[object] = [metric_label(metric), signed(gains[0].mean), signed(gains[1].mean), estimated(gains[2])]
        rows.append([bold(cell) for cell in cells] if metric == item.metric else cells)
    ratio = _ratio(study, item)
    if ratio is not None:
        rows.append([f"{metric_label(item.metric)}, as a ratio", *ratio])
    contexts = [context_label(study, weights) for weights in (item.first, item.second)]
    return table(["gain in", *contexts, "how much more at the second"], rows) if len(rows) > 1 else Marked("")


def _ratio(study: StudyResults, item: Interaction) -> list[str] | None:
    """The factors by which the first arms' levels grow, and the ratio of the two with its interval over seeds."""
    arms = [*arms_of(item.first), *arms_of(item.second)]
    values = [study.values(arm, item.metric) for arm in arms]
    seeds = [seed for seed in study.record.seeds if all(metric.get(seed, 0) > 0 for metric in values)]
    if len(seeds) < 2:
        return None
    logs = [{seed: math.log(metric[seed]) for seed in seeds} for metric in values]
    first = estimate({seed: logs[0][seed] - logs[1][seed] for seed in seeds})
    second = estimate({seed: logs[2][seed] - logs[3][seed] for seed in seeds})
    between = estimate({seed: second.values[seed] - first.values[seed] for seed in seeds})
    if between.mean is None or between.low is None or between.high is None or first.mean is None or second.mean is None:
        return None
    times = [f"x {math.exp(growth.mean or 0.0):.2f}" for growth in (first, second)]
    return [*times, f"x {math.exp(between.mean):.2f} ({math.exp(between.low):.2f} to {math.exp(between.high):.2f})"]


def by_size(analysis: Analysis) -> Marked:
    """Means of every arm, and the differences with their intervals, by the size of the objects: masks, then boxes."""
    study = analysis.study
    tables = []
    for kind in ("segm", "bbox"):
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
