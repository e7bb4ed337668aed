"""Exhibits are made of all of a study's runs, once, and again when a run was made again."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ablations import exhibits
from ablations.cli import prepare_one
from ablations.config.study import compose_study
from ablations.errors import ConfigError
from ablations.execution import exhibits as execution
from ablations.execution.exhibits import Exhibit, make_exhibit
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
    monkeypatch.setattr(exhibits, "measurer", lambda name: None)
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


def test_what_an_exhibit_measures_of_each_run_is_shared_out_among_the_workers(exhibit, log, monkeypatch):
    """The scheduler hands what the parts returned, in the order of the runs, to the job that makes the exhibit."""
    threads = []

    def measure(study, run):
        threads.append(threading.get_ident())
        time.sleep(0.2)
        return {"arm": run.arm, "study": study.name}

    def make(study, runs, folder, measured):
        return {"measured": measured}

    monkeypatch.setattr(exhibits, "measurer", lambda name: measure)
    monkeypatch.setattr(exhibits, "maker", lambda name: make)
    *parts, job = plan_exhibits([exhibit])
    runs = {part.name for part in plan(exhibit.runs) if part.run is not None}
    assert len(parts) == 2 and all(part.needs == runs for part in parts)
    assert job.needs == runs | set(job.inputs) and job.inputs == tuple(part.name for part in parts)
    lines, outcome = [], Outcome()
    with ProgressReporter(2, 2, 2, lines.append) as progress:
        Scheduler([*parts, job], runs, Threads(), progress, outcome).run(lambda: False)
    assert not outcome.failures and len(set(threads)) == 2
    measured = [{"arm": run.arm, "study": "roialign"} for run in exhibit.runs]
    assert load_exhibit(exhibit.path).content == {"measured": measured}
    assert len(lines) == 1 and "exhibit count ready" in lines[0], "parts are not announced"


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
