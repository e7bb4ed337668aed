"""The study of tests/reports/conftest.py in memory, with values of mask AP that can be checked by hand."""

import dataclasses
from pathlib import Path

from ablations.records.schema import RunRecord
from reports.load import StudyResults
from tests.reports.conftest import run_record, study_record

VALUES = {"pool16": (30.0, 32.0), "align16": (40.0, 44.0), "pool32": (20.0, 22.0), "align32": (35.0, 37.0)}
"""Arm -> mask AP of seeds 0 and 1: RoIAlign is ahead by 10 and 12 points at stride 16, by 15 and 15 at stride 32."""


def run(arm: str, seed: int, **changes) -> RunRecord:
    segm = {"AP": VALUES[arm][seed], "AP75": VALUES[arm][seed] - 1, "APs": None}
    return dataclasses.replace(run_record(arm, seed), metrics={"segm": segm}, **changes)


def study(runs: list[RunRecord] | None = None, **changes) -> StudyResults:
    """Two seeds of every arm, or these runs alone; `changes` are to the study's record."""
    runs = [run(arm, seed) for arm in VALUES for seed in (0, 1)] if runs is None else runs
    record = dataclasses.replace(study_record(2), **changes)
    return StudyResults(Path("nowhere"), record, {(item.arm, item.seed): item for item in runs})
