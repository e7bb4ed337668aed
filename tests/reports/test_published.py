"""What is kept beside published records, and reports that are rendered again from it."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from ablations.errors import RecordError
from reports import gallery
from reports.analysis import analyse
from reports.load import read_study
from reports.published import FILE, PICTURES, read_published
from reports.render import render
from tests.reports.conftest import write_study
from tests.reports.rounding import write_rounding
from tools import republish

GALLERY = Path(__file__).parents[2] / gallery.GALLERY
pytestmark = pytest.mark.xdist_group("published")  # one process publishes the study


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A study, and the folder in which it is published with its report."""
    folder = tmp_path_factory.mktemp("published")
    study = write_study(folder / "outputs", seeds=2)
    return study, gallery.publish(read_study(study.parent, "roialign"), folder / "gallery" / "roialign").parent


@pytest.fixture
def published(original, tmp_path):
    """The published report, and its records on their own: without detections, ground truth and images."""
    _, report = original
    shutil.copytree(report / "records", tmp_path / "again" / "roialign")
    return report, tmp_path / "again" / "roialign"


@pytest.mark.slow
def test_the_same_report_comes_out_without_detections(original, published, tmp_path):
    (study, _), (report, records) = original, published
    shutil.copytree(report / "figures", records / PICTURES)
    shutil.copy(study / "ground_truth.json", records)
    shutil.copytree(study / "samples", records / "samples")
    again = render(read_study(records.parent, "roialign"), tmp_path / "report", page=False)
    assert again.read_text() == (report / "report.md").read_text()
    for name in ("contrasts.csv", "figures/samples.png", "figures/scenes.json", "figures/paired.svg"):
        assert (again.parent / name).read_bytes() == (report / name).read_bytes(), name
    assert "**Noise of the images**" in again.read_text()


@pytest.mark.slow
def test_a_dose_chart_comes_out_again_without_the_ground_truth(tmp_path):
    """Photographs and their ground truth are not published."""
    study = write_rounding(tmp_path / "outputs", seeds=2)
    shutil.rmtree(tmp_path / "outputs/roialign")
    report = gallery.publish(read_study(study.parent, "misalignment"), tmp_path / "gallery/misalignment").parent
    records = shutil.copytree(report / "records", tmp_path / "again/misalignment")
    shutil.copytree(report / "figures", records / PICTURES)
    (records / PICTURES / "dose.svg").write_text("as it was")
    results = read_study(records.parent, "misalignment")
    again = render(results, tmp_path / "report", page=False, keep=tmp_path)
    assert results.ground_truth is None and again.read_text() == (report / "report.md").read_text()
    assert "| RoIAlign, boxes rounded to 32 px | 16 |" in again.read_text()
    assert (again.parent / "figures/dose.svg").read_bytes() == (report / "figures/dose.svg").read_bytes()
    assert read_published(tmp_path) == read_published(records)  # and can be rendered from that again


def test_files_of_before_have_neither_doses_nor_errors_over_images(published):
    _, records = published
    content = json.loads((records / FILE).read_text())
    for name in ("doses", "floor"):
        del content[name]
    for noise in content["noise"].values():
        del noise["error"], noise["num_objects"], noise["with_objects"]
    (records / FILE).write_text(json.dumps(content))
    kept = read_published(records)
    assert kept.doses == [] and kept.floor is None and kept.noise["mask-ap-16"].detectable is None
    assert analyse(read_study(records.parent, "roialign")).doses == []


def test_the_noise_is_that_of_the_detections(original, published):
    (study, _), (_, records) = original, published
    fresh = analyse(read_study(study.parent, "roialign"))
    kept = analyse(read_study(records.parent, "roialign"), resamples=0)
    assert kept.noise == fresh.noise and kept.resamples == fresh.resamples


@pytest.mark.slow
def test_figures_that_the_report_does_not_name_are_dropped(published, tmp_path):
    report, records = published
    shutil.copytree(report / "figures", records / PICTURES)
    (records / PICTURES / "stale.png").touch()
    again = render(read_study(records.parent, "roialign"), tmp_path / "report", page=False)
    assert not (again.parent / "figures/stale.png").exists()
    assert "figures/why.svg" in again.read_text() and (again.parent / "figures/why.svg").is_file()


def test_what_was_kept_never_stands_for_detections_that_are_there(original, tmp_path):
    study, report = original
    folder = shutil.copytree(study, tmp_path / "outputs/roialign")
    content = json.loads((report / "records" / FILE).read_text())
    (folder / FILE).write_text(json.dumps(content | {"noise": {}, "candidates": 7}))
    (folder / PICTURES).mkdir()
    (folder / PICTURES / "dose.svg").write_text("somebody's")
    analysis = analyse(read_study(folder.parent, "roialign"))
    assert analysis.published is None and analysis.noise
    assert (
        "dose.svg" not in render(read_study(folder.parent, "roialign"), tmp_path / "report", 0, page=False).read_text()
    )


@pytest.mark.slow
def test_a_published_report_is_what_this_code_makes_of_its_records(tmp_path):
    """Otherwise run `make republish`. The images are drawn again, and runs are not needed."""
    shutil.copytree(gallery.GALLERY / "maskclass", tmp_path / "maskclass")
    assert republish.main(["maskclass", "--gallery", str(tmp_path)]) == 0
    for name in ("report.md", "records/study.json", "figures/samples.png", "figures/scenes.json"):
        assert (tmp_path / "maskclass" / name).read_bytes() == (gallery.GALLERY / "maskclass" / name).read_bytes(), name
    assert "figures/paired.svg" in (tmp_path / "maskclass/report.md").read_text()


@pytest.mark.parametrize("damage", ["no json", "[]", '{"noise": {}}', '{"noise": {"a": {"mean": 1}}}'])
def test_a_damaged_file_is_refused(published, damage):
    _, records = published
    (records / FILE).write_text(damage)
    with pytest.raises(RecordError, match="publish the study again"):
        read_published(records)


def test_numbers_have_to_be_numbers(published):
    _, records = published
    content = json.loads((records / FILE).read_text())
    next(iter(content["noise"].values()))["low"] = "<b>"
    (records / FILE).write_text(json.dumps(content))
    with pytest.raises(RecordError, match="noise.*low.*number"):
        read_published(records)


@pytest.mark.parametrize("study", sorted(path.parent.parent.name for path in GALLERY.glob("*/records/study.json")))
def test_the_published_verdicts_are_those_of_the_published_records(study):
    """The records are what the site and the claims are made of; the tables beside them were written with the report."""
    verdicts = analyse(read_study(GALLERY / study, "records"), resamples=0).verdicts
    with (GALLERY / study / "contrasts.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["hypothesis"]: row for row in csv.DictReader(file) if row["hypothesis"]}
    assert {item.hypothesis.name: item.kind for item in verdicts} == {
        name: row["verdict"] for name, row in rows.items()
    }
    for item in verdicts:
        assert float(rows[item.hypothesis.name]["mean"]) == pytest.approx(item.measured.mean, rel=1e-5)
