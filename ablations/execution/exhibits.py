"""Makes the exhibits of a study once its runs are done, and again when a run or the code of an exhibit has changed."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations import exhibits
from ablations.config.study import Run, Study
from ablations.errors import RecordError, TrainingError
from ablations.records.code_version import version_besides_runs
from ablations.records.provenance import provenance
from ablations.records.run_log import RunLog
from ablations.records.schema import ExhibitRecord
from ablations.records.storage import load_exhibit, load_run, load_study, save


@dataclass(frozen=True)
class Exhibit:
    """One exhibit of a study. runs: all of the study's."""

    name: str
    runs: list[Run]

    @property
    def study_folder(self) -> Path:
        return self.runs[0].folder.parent.parent

    @property
    def path(self) -> Path:
        return self.study_folder / "exhibits" / f"{self.name}.json"

    @property
    def images(self) -> Path:
        return self.path.with_suffix("")

    @property
    def code(self) -> str:
        return version_besides_runs(f"{exhibits.__name__}.{self.name}")

    @property
    def measures_runs(self) -> bool:
        return exhibits.run_measurer(self.name) is not None

    @property
    def keeps_code(self) -> bool:
        return self.runs[0].config.code == "keep"

    def run_identities(self) -> dict[str, dict[str, str]]:
        """The identity of each run, by arm and seed. Raises OSError if a run is not done."""
        return {f"{run.arm}/seed{run.config.seed}": load_run(run.folder / "run.json").identity for run in self.runs}

    def is_current(self) -> bool:
        """Whether it is up to date: made from these runs and, unless code=keep, by this version of its module."""
        try:
            record = load_exhibit(self.path)
            return record.runs == self.run_identities() and (self.keeps_code or record.code == self.code)
        except (OSError, RecordError):
            return False


def exhibits_of(study: Study, runs: list[Run]) -> list[Exhibit]:
    return [Exhibit(name, runs) for name in study.exhibits]


def measure_run(exhibit: Exhibit, run: Run, log: RunLog) -> tuple[dict[str, str], Any]:
    """The identity of one run, and what an exhibit measures of it. The exhibit's old record is removed first."""
    log.enter("measuring for the exhibit")
    exhibit.path.unlink(missing_ok=True)
    measure = exhibits.run_measurer(exhibit.name)
    assert measure is not None
    identity = load_run(run.folder / "run.json").identity
    return identity, measure(load_study(exhibit.study_folder / "study.json"), run)


def make_exhibit(exhibit: Exhibit, measured: list[tuple[dict[str, str], Any]], log: RunLog) -> ExhibitRecord:
    """Makes one exhibit and writes its files: its pictures first, its record last.

    measured: of each of its runs, what `measure_run` returned; empty if it measures none
    Raises TrainingError if a run has been replaced since it was measured.
    """
    started = datetime.now(UTC)
    log.enter("making the exhibit")
    exhibit.path.unlink(missing_ok=True)
    shutil.rmtree(exhibit.images, ignore_errors=True)
    exhibit.images.mkdir(parents=True)
    study, runs = load_study(exhibit.study_folder / "study.json"), exhibit.run_identities()
    if exhibit.measures_runs and [identity for identity, _ in measured] != list(runs.values()):
        raise TrainingError(
            f"exhibit {exhibit.name}: expected the runs that it measured, got others: another process has replaced "
            "some; run the same command again"
        )
    arguments = ([values for _, values in measured],) if exhibit.measures_runs else ()
    content = exhibits.maker(exhibit.name)(study, exhibit.runs, exhibit.images, *arguments)
    record = ExhibitRecord(exhibit.name, study.name, runs, content, provenance(started), exhibit.code)
    save(record, exhibit.path)
    return record
