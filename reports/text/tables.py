"""The tables of a report, as rows of text, and the tidy CSV files with every figure behind them."""

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ablations.records.schema import DIFFERENCE
from reports.analysis import Analysis
from reports.load import StudyResults
from reports.stats import contrasts
from reports.stats.paired import MOST_SEEDS
from reports.text.labels import NOTHING, arms_of, interval, metric_label, number, p_value, signed

HEADLINE = ("segm.AP", "segm.AP50", "segm.AP75", "bbox.AP")
SIZES = ("segm.APs", "segm.APm", "segm.APl", "bbox.APs", "bbox.APm", "bbox.APl")
GIB = 2**30


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are aligned left and the others right; "" without rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("|" + "|".join([":--"] * left + ["--:"] * (len(header) - left)) + "|")
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def headline_metrics(study: StudyResults) -> list[str]:
    """The usual four, and whatever else the hypotheses are about, of those that the runs have."""
    asked = [item.metric for item in study.record.hypotheses if DIFFERENCE not in item.metric]
    known = study.metrics()
    return [metric for metric in dict.fromkeys([*HEADLINE, *asked]) if metric in known] or list(HEADLINE[:1])


def headline(study: StudyResults) -> str:
    """Mean and standard deviation of every arm, with the paper's figure in brackets.

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
    return markdown(header + (["parameters"] if sizes else []), rows)


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
    values = list(study.values(arm, metric).values())
    if not values:
        return NOTHING
    spread = f" ± {number(statistics.stdev(values))}" if len(values) > 1 else ""
    return number(statistics.fmean(values)) + spread


def every_seed(study: StudyResults) -> str:
    """A row for each planned run, missing ones included."""
    metrics = headline_metrics(study)
    kinds = {(problem.arm, problem.seed): problem.kind for problem in study.problems}
    rows = []
    for arm in study.record.arms:
        for seed in study.record.seeds:
            figures = [number(study.value(arm, seed, metric)) for metric in metrics]
            rows.append([study.label(arm), str(seed), kinds.get((arm, seed), "done"), *figures])
    return markdown(["arm", "seed", "run", *(metric_label(metric) for metric in metrics)], rows, left=1)


def every_difference(analysis: Analysis, metric: str) -> str:
    """Seed by seed, the study's contrasts in one metric, with their mean and standard deviation."""
    compared = [*analysis.differences, *(item.weights for item in analysis.interactions if item.metric == metric)]
    estimates = [analysis.estimate(weights, metric) for weights in compared]
    rows = [
        [f"seed {seed}", *(signed(one.values.get(seed)) for one in estimates)] for seed in analysis.study.record.seeds
    ]
    rows.append(["**mean**", *(f"**{signed(one.mean)}**" for one in estimates)])
    rows.append(["sd", *(number(one.sd) for one in estimates)])
    return markdown([metric_label(metric), *(analysis.label(weights) for weights in compared)], rows)


def tests(analysis: Analysis) -> str:
    """The numbers behind the verdicts."""
    rows = []
    for item in analysis.verdicts:
        found, needed = item.estimate, item.seeds_needed
        rows.append(
            [
                item.hypothesis.claim,
                metric_label(item.hypothesis.metric),
                str(found.n),
                signed(found.mean),
                number(found.sd),
                interval(found.low, found.high),
                p_value(item.p),
                p_value(item.p_corrected),
                number(item.detectable),
                NOTHING if needed is None else f"> {MOST_SEEDS}" if needed > MOST_SEEDS else str(needed),
            ]
        )
    header = [
        "claim",
        "metric",
        "n",
        "mean",
        "sd",
        "95 % interval",
        "p",
        "p (Holm)",
        "detectable",
        "seeds needed",
    ]
    return markdown(header, rows, left=2)


def image_noise(analysis: Analysis) -> str:
    """The two kinds of interval beside each other, for the hypotheses whose image noise could be computed."""
    rows = []
    for item in analysis.verdicts:
        found = analysis.noise.get(item.hypothesis.name)
        if found is not None:
            rows.append(
                [
                    item.hypothesis.claim,
                    signed(found.mean),
                    interval(item.estimate.low, item.estimate.high),
                    interval(found.low, found.high),
                    str(found.num_seeds),
                    str(found.num_images),
                ]
            )
    return markdown(["claim", "mean", "other seeds", "other images", "seeds", "images"], rows)


def relative(analysis: Analysis, metric: str) -> str:
    """Differences as a share of the first arm's own level, which scales on which APs differ can be compared by."""
    study, rows = analysis.study, []
    for weights in analysis.differences:
        _, minus = arms_of(weights)
        found, base = analysis.estimate(weights, metric), study.values(minus, metric)
        paper, paper_base = analysis.paper(weights, metric), study.record.arms[minus].paper.get(metric)
        level = statistics.fmean([base[seed] for seed in found.values]) if found.values else 0.0
        rows.append(
            [
                analysis.label(weights),
                signed(found.mean),
                f"{signed(100 * found.mean / level, 0)} %" if found.mean is not None and level > 0 else NOTHING,
                signed(paper),
                f"{signed(100 * paper / paper_base, 0)} %" if paper is not None and paper_base else NOTHING,
            ]
        )
    return markdown([metric_label(metric), "points", "of the first arm's AP", "paper, points", "paper, share"], rows)


def by_size(analysis: Analysis) -> str:
    """Means of every arm, and the differences with their intervals, by the size of the objects."""
    study = analysis.study
    metrics = [metric for metric in SIZES if any(study.values(arm, metric) for arm in study.record.arms)]
    if not metrics:
        return ""
    rows = [[study.label(arm), *(mean_sd(study, arm, metric) for metric in metrics)] for arm in study.record.arms]
    for weights in analysis.differences:
        estimates = [analysis.estimate(weights, metric) for metric in metrics]
        rows.append(
            [
                f"*{analysis.label(weights)}*",
                *(
                    NOTHING if one.mean is None else f"{signed(one.mean)} ({interval(one.low, one.high)})"
                    for one in estimates
                ),
            ]
        )
    return markdown(["", *(metric_label(metric).removesuffix(" objects") for metric in metrics)], rows)


def cost(study: StudyResults) -> str:
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
    return markdown(header, rows)


def problems(study: StudyResults) -> str:
    rows = [
        [
            study.record.arms[item.arm].label if item.arm in study.record.arms else item.arm,
            str(item.seed),
            item.kind,
            item.detail,
        ]
        for item in study.problems
    ]
    return markdown(["arm", "seed", "state", "detail"], rows, left=4)


def runs_frame(study: StudyResults) -> pd.DataFrame:
    """Tidy: one row for each run and quantity (metrics, losses, costs)."""
    rows = []
    for (arm, seed), run in study.runs.items():
        head = {
            "study": study.name,
            "arm": arm,
            "label": study.label(arm),
            **study.record.arms[arm].factors,
            "seed": seed,
        }
        quantities: dict[str, Any] = {
            f"{kind}.{key}": value for kind, table in run.metrics.items() for key, value in table.items()
        }
        quantities |= {f"loss.{key}": value for key, value in run.losses.items()}
        quantities |= {f"cost.{key}": value for key, value in run.cost.items()}
        quantities |= {"steps": run.steps, "num_parameters": run.num_parameters}
        rows += [{**head, "quantity": name, "value": value} for name, value in quantities.items()]
    columns = ["study", "arm", "label", *study.record.factors, "seed", "quantity", "value"]
    frame = pd.DataFrame(rows)
    return frame if len(frame) else pd.DataFrame(columns=list(dict.fromkeys(columns)))


def contrasts_frame(analysis: Analysis) -> pd.DataFrame:
    """Every contrast in every metric, and with its verdict where it was a hypothesis."""
    study, hypotheses = analysis.study, [item.hypothesis for item in analysis.verdicts]
    asked = {(contrasts.key(item.hypothesis.contrast), item.hypothesis.metric): item for item in analysis.verdicts}
    compared = [*analysis.differences, *(item.weights for item in analysis.interactions)]
    compared += [hypothesis.contrast for hypothesis in hypotheses]
    metrics = list(dict.fromkeys([*study.metrics(), *(hypothesis.metric for hypothesis in hypotheses)]))
    rows = []
    for key, weights in {contrasts.key(weights): weights for weights in compared}.items():
        for metric in metrics:
            found, verdict = analysis.estimate(weights, metric), asked.get((key, metric))
            images = analysis.noise.get(verdict.hypothesis.name) if verdict else None
            rows.append(
                {
                    "study": study.name,
                    "contrast": analysis.label(weights),
                    "metric": metric,
                    "n": found.n,
                    "mean": found.mean,
                    "sd": found.sd,
                    "low": found.low,
                    "high": found.high,
                    "p": found.p,
                    "paper": analysis.paper(weights, metric),
                    "threshold": verdict.hypothesis.threshold if verdict else None,
                    "hypothesis": verdict.hypothesis.name if verdict else None,
                    "verdict": verdict.kind if verdict else None,
                    "p_test": verdict.p if verdict else None,
                    "p_holm": verdict.p_corrected if verdict else None,
                    "detectable": verdict.detectable if verdict else None,
                    "seeds_needed": verdict.seeds_needed if verdict else None,
                    "images_low": images.low if images else None,
                    "images_high": images.high if images else None,
                }
            )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["study", "contrast"])
