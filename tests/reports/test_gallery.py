"""What is published: complete studies of committed code, with the records that their numbers come from."""

import json

import pytest
from PIL import Image

from reports import gallery
from reports.load import read_study
from tests.damage import edit_record
from tests.reports.conftest import write_study


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures have tests of their own."""
    monkeypatch.setattr(gallery, "render_claims", lambda outputs, folder, *_, **__: folder / "claims.md")

    def render(study, folder, page, keep):
        assert not page and keep == folder / "records"
        (folder / "report.md").write_text(study.name)
        return folder / "report.md"

    monkeypatch.setattr(gallery, "render", render)


def publish(tmp_path):
    return gallery.main(["--outputs", str(tmp_path / "outputs"), "--gallery", str(tmp_path / "gallery")])


def test_a_complete_study_is_published_with_its_records(tmp_path):
    folder = write_study(tmp_path / "outputs", seeds=2)
    (tmp_path / "gallery/roialign/records").mkdir(parents=True)
    (tmp_path / "gallery/roialign/records/study.json").touch()
    (tmp_path / "gallery/roialign/stale.md").touch()
    assert publish(tmp_path) == 0
    published = tmp_path / "gallery/roialign"
    assert (published / "report.md").exists() and not (published / "stale.md").exists()
    names = {str(path.relative_to(published / "records")) for path in published.glob("records/**/*") if path.is_file()}
    assert names == {"study.json", "runs.jsonl"}
    lines = [json.loads(line) for line in (published / "records/runs.jsonl").read_text().splitlines()]
    assert [line["record"] for line in lines if (line["record"]["arm"], line["record"]["seed"]) == ("align16", 1)] == [
        json.loads((folder / "align16/seed1/run.json").read_text())
    ]
    front = (tmp_path / "gallery/README.md").read_text()
    assert "[RoIPool against RoIAlign](roialign/report.md)" in front
    assert "RoIAlign beats RoIPool in mask AP at stride 16. Measured: **+" in front


def test_pictures_of_exhibits_are_published_those_of_older_records_too(tmp_path):
    folder = write_study(tmp_path / "outputs", seeds=2)
    names = ["exhibits/phase/scene.jpg", "exhibits/overlap/3.png"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / name)
    assert publish(tmp_path) == 0
    assert all((tmp_path / "gallery/roialign/records" / name).is_file() for name in names)
    study = read_study(tmp_path / "outputs", "roialign")
    assert study.exhibit_picture("overlap", 3) == folder / names[1]
    assert study.exhibit_picture("overlap", 4) is None


def test_an_incomplete_study_is_refused(tmp_path, capsys):
    write_study(tmp_path / "outputs", seeds=2, skip=(("align16", 1),))
    assert publish(tmp_path) == 1
    assert "align16 seed 1: missing" in capsys.readouterr().err
    assert not (tmp_path / "gallery/roialign").exists()


def test_files_written_by_hand_are_not_replaced(tmp_path, capsys):
    write_study(tmp_path / "outputs", seeds=2)
    (tmp_path / "gallery/roialign").mkdir(parents=True)
    (tmp_path / "gallery/roialign/README.md").write_text("by hand")
    assert publish(tmp_path) == 1
    assert "roialign: expected a published study or nothing, got other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "gallery/roialign").iterdir()] == ["README.md"]


def test_a_study_of_uncommitted_code_is_refused(tmp_path, capsys):
    path = write_study(tmp_path / "outputs", seeds=2) / "align16/seed0/run.json"
    edit_record(path, lambda record: record["provenance"]["git"].update(dirty=True))
    assert publish(tmp_path) == 1
    assert "uncommitted" in capsys.readouterr().err
