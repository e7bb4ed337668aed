"""Exhibits are made of all of a study's runs, once, and again when a run was made again."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ablations import exhibits
from ablations.cli import prepare_one
from ablations.config.study import compose_study
from ablations.errors import ConfigError, TrainingError
from ablations.execution import exhibits as execution
from ablations.execution.exhibits import Exhibit, make_exhibit, measure_run
from ablations.execution.jobs import plan, plan_exhibits
from ablations.execution.progress import ProgressReporter
from ablations.execution.scheduler import Outcome, Scheduler
from ablations.records.storage import load_exhibit, load_run, save
from reports import exhibits as sections
from tests.reports.conftest import run_record, study_record


@pytest.fixture
def exhibit(compose, tmp_path, monkeypatch):
    """The exhibit "count" of a study whose two runs are done; it counts how often it is made."""
    overrides = ["study=maskloss", "budget.seeds=1", f"outputs={tmp_path}"]
    _, runs = compose_study(compose(overrides), overrides, compose)
    save(study_record(), tmp_path / "maskloss" / "study.json")
    for run in runs:
        save(run_record("pool16", 0), run.folder / "run.json")
    made = []

    def make(study, runs, folder):
        (folder / "picture.png").write_bytes(b"")
        made.append(study.name)
        return {"made": len(made), "runs": len(runs)}

    monkeypatch.setattr(exhibits, "maker", lambda name: {"count": make}[name])
    monkeypatch.setattr(exhibits, "run_measurer", lambda name: None)
    monkeypatch.setattr(execution, "version_besides_runs", {"ablations.exhibits.count": "1"}.__getitem__)
    return Exhibit("count", runs)


def test_an_exhibit_is_remade_when_a_run_changes(exhibit, log):
    assert not exhibit.is_current()
    make_exhibit(exhibit, [], log)
    record = load_exhibit(exhibit.path)
    assert record.content == {"made": 1, "runs": 2} and set(record.runs) == {"softmax/seed5", "sigmoid/seed5"}
    assert exhibit.is_current() and (exhibit.images / "picture.png").is_file()

    path = exhibit.runs[0].folder / "run.json"
    run = load_run(path)
    save(dataclasses.replace(run, provenance=run.provenance | {"finished": "later"}), path)
    assert not exhibit.is_current()
    make_exhibit(exhibit, [], log)
    assert exhibit.is_current() and load_exhibit(exhibit.path).content["made"] == 2


def test_an_exhibit_is_made_again_when_its_code_changed_unless_code_is_kept(exhibit, log, monkeypatch):
    make_exhibit(exhibit, [], log)
    monkeypatch.setattr(execution, "version_besides_runs", lambda module: "2")
    assert not exhibit.is_current()
    keeping = [dataclasses.replace(run, config=dataclasses.replace(run.config, code="keep")) for run in exhibit.runs]
    assert Exhibit("count", keeping).is_current()


def test_a_failed_exhibit_leaves_no_record_of_the_old_one(exhibit, log, monkeypatch):
    make_exhibit(exhibit, [], log)
    monkeypatch.setattr(exhibits, "maker", lambda name: lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_exhibit(exhibit, [], log)
    assert not exhibit.path.exists() and not exhibit.is_current()


def test_exhibits_are_made_last_and_one_after_another(exhibit):
    first, second = plan_exhibits([exhibit, dataclasses.replace(exhibit, name="other")])
    runs = {job.name for job in plan(exhibit.runs) if job.run is not None}
    assert len(runs) == 2 and first.needs == runs and second.needs == runs | {first.name}


@pytest.fixture
def measuring(exhibit, monkeypatch):
    """The same exhibit, which measures each run; both must be measured at once, or the test fails."""
    together = threading.Barrier(2, timeout=60)

    def measure_run(study, run):
        together.wait()
        return {"arm": run.arm, "study": study.name}

    def make(study, runs, folder, measured):
        return {"measured": measured}

    monkeypatch.setattr(exhibits, "run_measurer", lambda name: measure_run)
    monkeypatch.setattr(exhibits, "maker", lambda name: make)
    return exhibit


def schedule(exhibit, lines):
    """The outcome of making an exhibit of runs that are done."""
    outcome = Outcome()
    done = {job.name for job in plan(exhibit.runs) if job.run is not None}
    with ProgressReporter(2, 2, 2, lines.append) as progress:
        Scheduler(plan_exhibits([exhibit]), done, Threads(), progress, outcome).run(lambda: False)
    return outcome


def test_workers_measure_the_runs_in_parallel_and_their_results_arrive_in_the_order_of_the_runs(measuring):
    *parts, job = plan_exhibits([measuring])
    runs = {part.name for part in plan(measuring.runs) if part.run is not None}
    assert len(parts) == 2 and all(part.needs == runs for part in parts)
    assert job.needs == runs | set(job.inputs) and job.inputs == tuple(part.name for part in parts)
    lines = []
    assert not schedule(measuring, lines).failures
    measured = [{"arm": run.arm, "study": "roialign"} for run in measuring.runs]
    assert load_exhibit(measuring.path).content == {"measured": measured} and measuring.is_current()
    assert len(lines) == 1 and "exhibit count ready" in lines[0], "parts are not announced"


def test_a_run_that_cannot_be_measured_leaves_no_record_and_is_the_only_failure_beside_the_exhibit(
    measuring, log, monkeypatch
):
    assert not schedule(measuring, []).failures and measuring.path.exists()
    monkeypatch.setattr(exhibits, "run_measurer", lambda name: lambda study, run: {"softmax": 1}[run.arm])
    lines = []
    failures = schedule(measuring, lines).failures
    assert list(failures) == ["maskloss: exhibit count of sigmoid seed 5", "maskloss: exhibit count"]
    assert "KeyError: 'sigmoid'" in failures["maskloss: exhibit count of sigmoid seed 5"]
    assert "depends on failed" in failures["maskloss: exhibit count"] and not measuring.path.exists()


def test_what_was_measured_of_a_run_that_was_replaced_since_is_refused(measuring, log, monkeypatch):
    monkeypatch.setattr(exhibits, "run_measurer", lambda name: lambda study, run: 1)
    measured = [measure_run(measuring, run, log) for run in measuring.runs]
    path = measuring.runs[1].folder / "run.json"
    run = load_run(path)
    save(dataclasses.replace(run, provenance=run.provenance | {"finished": "later"}), path)
    with pytest.raises(TrainingError, match="another process has replaced some; run the same command again"):
        make_exhibit(measuring, measured, log)
    assert not measuring.path.exists()


class Threads:
    """A launcher of two threads in place of processes, which would not know of functions that a test replaced."""

    num_slots = 2

    def __init__(self):
        self.pool, self.running = ThreadPoolExecutor(2), 0

    @property
    def free_slots(self):
        return self.num_slots - self.running

    def submit(self, function, *arguments):
        self.running += 1
        return self.pool.submit(function, *arguments)

    def result(self, future):
        self.running -= 1
        return future.result()


def test_an_unknown_exhibit_is_refused_before_any_work(compose):
    overrides = ["study=maskloss", "+study.exhibits=[nonsense]"]
    with pytest.raises(ConfigError, match="exhibits: expected some of .*nonsense"):
        prepare_one(overrides, compose)


def test_every_exhibit_has_its_section():
    assert exhibits.names() == sections.names()
