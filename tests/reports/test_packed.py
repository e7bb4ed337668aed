"""A published study's runs are those that were published, or the reader is told."""

import dataclasses
import json

import pytest

from ablations.errors import RecordError
from ablations.records import packed
from ablations.records.storage import load_run, save
from data import digests
from reports import gallery
from reports.load import read_study
from tests.damage import flip_bit
from tests.reports.conftest import save_exhibit, write_study


@pytest.fixture(autouse=True)
def unrendered(monkeypatch):
    """Reports have tests of their own."""
    monkeypatch.setattr(gallery, "render", lambda study, folder, page, keep: folder / "report.md")


@pytest.fixture
def studies(tmp_path):
    """A study, and the same as published."""
    folder = write_study(tmp_path / "outputs", seeds=2)
    (folder / "pool16/seed1/metrics.jsonl").write_text('{"step": 0, "loss": 2.5}\n{"step": 10, "loss": 1, "lr": 0.1}\n')
    published = tmp_path / "gallery/roialign/records"
    published.mkdir(parents=True)
    return read_study(tmp_path / "outputs", "roialign"), published


def write(study, folder):
    packed.pack([(run, study.curves(*key)) for key, run in study.recorded.items()], folder)


def sealed(content):
    """A line with its digest."""
    return json.dumps(content | {"digest": digests.of_content(content)}) + "\n"


def read_published(folder):
    return read_study(folder.parent, folder.name)


def test_a_published_run_has_the_record_and_the_curves_of_the_run(studies):
    study, folder = studies
    (folder / "study.json").write_bytes((study.folder / "study.json").read_bytes())
    write(study, folder)
    again = read_published(folder)
    assert again.runs == study.runs and len(again.runs) == 8 and not again.problems
    assert again.curves("pool16", 1) == [{"step": 0, "loss": 2.5}, {"step": 10, "loss": 1, "lr": 0.1}]
    assert all(again.curves(*key) == study.curves(*key) for key in study.runs) and again.curves("pool16", 9) == []


def test_what_an_exhibit_measured_stays_with_the_exhibit(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    record = json.loads((folder / "study.json").read_text()) | {"exhibits": ["mask_choice"]}
    record.pop("digest")
    (folder / "study.json").write_text(json.dumps(record))
    measured = {"metrics": {"pool16": {"0": {"AP_best": 50.0}}}}
    save_exhibit(folder, "mask_choice", measured, [("pool16", 0)])
    study = read_study(tmp_path, "roialign")
    assert study.value("pool16", 0, "mask_choice.AP_best") == 50
    path = gallery.publish(study, tmp_path / "gallery/roialign").parent / "records"
    assert read_published(path).value("pool16", 0, "mask_choice.AP_best") == 50
    first = json.loads((path / packed.FILE).read_text().splitlines()[0])
    assert first["record"] == json.loads((folder / "pool16/seed0/run.json").read_text())


def test_an_exhibit_of_the_name_of_a_run_s_own_metrics_takes_none_of_them_away(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    path = folder / "pool16/seed0/run.json"
    run = load_run(path)
    save(dataclasses.replace(run, metrics=run.metrics | {"overlap": {"AP_some": 40.0}}), path)
    record = json.loads((folder / "study.json").read_text()) | {"exhibits": ["overlap"]}
    record.pop("digest")
    (folder / "study.json").write_text(json.dumps(record))
    save_exhibit(folder, "overlap", {"pictures": []}, [("pool16", 0)])
    study = read_study(tmp_path, "roialign")
    path = gallery.publish(study, tmp_path / "gallery/roialign").parent / "records"
    assert read_published(path).value("pool16", 0, "overlap.AP_some") == 40


def test_a_record_without_a_digest_stays_without(studies):
    study, folder = studies
    (folder / "study.json").write_bytes((study.folder / "study.json").read_bytes())
    study.recorded["pool16", 0] = dataclasses.replace(study.recorded["pool16", 0], digest="")
    write(study, folder)
    assert [run.digest == "" for run in read_published(folder).runs.values()].count(True) == 1


def test_a_run_beyond_the_plan_is_named(studies):
    study, folder = studies
    (folder / "study.json").write_bytes((study.folder / "study.json").read_bytes())
    extra = dataclasses.replace(study.recorded["pool16", 0], seed=7)
    study.recorded["pool16", 7] = extra
    write(study, folder)
    [problem] = read_published(folder).problems
    assert (problem.arm, problem.seed, problem.kind) == ("pool16", 7, "unplanned")


def test_a_run_that_was_not_published_is_missing(studies):
    study, folder = studies
    (folder / "study.json").write_bytes((study.folder / "study.json").read_bytes())
    del study.recorded["align16", 1]
    write(study, folder)
    [problem] = read_published(folder).problems
    assert (problem.arm, problem.seed, problem.kind, problem.detail) == ("align16", 1, "missing", "not in runs.jsonl")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_bit, r"runs.jsonl, line \d: damaged \(.*\); check it out from git again"),
        (lambda path: path.write_text(path.read_text()[:-40]), r"line 8: damaged"),
        (lambda path: path.write_text("[]\n"), "line 1: damaged"),
        (lambda path: path.write_text('{"digest": "0"}\n'), "line 1: damaged .its digest is another"),
        (lambda path: path.write_text(2 * path.read_text()), "line 9: expected each run once, got 'pool16', seed 0"),
        (lambda path: path.write_text(sealed({"curves": {}})), "line 1: damaged .'record'"),
        (lambda path: path.write_text(sealed({"record": {"schema": 1}, "curves": {}})), r"damaged \(the record: .*git"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "runs.jsonl: cannot be read .*check it out from git again"),
    ],
    ids=["flipped bit", "cut off", "no run", "wrong digest", "a run twice", "no record", "another record", "no text"],
)
def test_damage_is_found(studies, damage, told):
    study, folder = studies
    (folder / "study.json").write_bytes((study.folder / "study.json").read_bytes())
    write(study, folder)
    damage(folder / packed.FILE)
    with pytest.raises(RecordError, match=told):
        read_published(folder)
