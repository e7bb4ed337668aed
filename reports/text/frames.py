"""Every number behind a report as CSV files: a row for each run, and for each contrast and metric."""

from pathlib import Path
from typing import Any

import pandas as pd

from reports.analysis import Analysis
from reports.load import StudyResults
from reports.stats import contrasts

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame, numbers to six digits. A text that a spreadsheet would take for a formula gets an apostrophe."""
    texts = frame.select_dtypes(exclude="number").columns
    frame = frame.assign(**{column: frame[column].map(_harmless) for column in texts})
    frame.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def runs_frame(study: StudyResults) -> pd.DataFrame:
    """One row for each run, one column for each of its quantities: metrics, losses, costs."""
    head = ["study", "arm", "label", *study.record.factors, "seed", "steps", "num_parameters"]
    rows = []
    for (arm, seed), run in study.runs.items():
        row: dict[str, Any] = {
            "study": study.name,
            "arm": arm,
            "label": study.label(arm),
            **study.record.arms[arm].factors,
            "seed": seed,
            "steps": run.steps,
            "num_parameters": run.num_parameters,
        }
        for kind, metrics in run.metrics.items():
            row |= {f"{kind}.{key}": value for key, value in metrics.items()}
        row |= {f"loss.{key}": value for key, value in run.losses.items()}
        row |= {f"cost.{key}": value for key, value in run.cost.items()}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*head, *(name for row in rows for name in row)])))


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
            effect, verdict = analysis.estimate(weights, metric), asked.get((key, metric))
            images = analysis.noise.get(verdict.hypothesis.name) if verdict else None
            stated = verdict.hypothesis.paper if verdict else None
            rows.append(
                {
                    "study": study.name,
                    "contrast": analysis.label(weights),
                    "metric": metric,
                    "n": effect.n,
                    "mean": effect.mean,
                    "sd": effect.sd,
                    "low": effect.low,
                    "high": effect.high,
                    "p": effect.p,
                    "paper": analysis.paper(weights, metric) if stated is None else stated,
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
