"""What is found under an output folder, and what is said of what is missing."""

import dataclasses
import shutil

import pytest

from ablations.errors import RecordError
from ablations.records.schema import RESULT_FILES, Status
from ablations.records.storage import load_run, save
from data import digests
from reports.load import find_studies, read_study
from tests.damage import edit_record, flip_bit
from tests.reports.conftest import ARMS, write_study


def test_a_complete_study(outputs):
    study = read_study(outputs, "roialign")
    assert find_studies(outputs) == ["roialign"]
    assert study.problems == [] and len(study.runs) == 20 and study.seeds() == [0, 1, 2, 3, 4]
    assert study.value("pool16", 0, "segm.AP") == pytest.approx(37.9, abs=0.05)
    gap = study.value("pool16", 0, "segm.AP75") - study.value("pool16", 0, "segm.AP50")
    assert study.value("pool16", 0, "segm.AP75 - segm.AP50") == gap
    assert study.value("pool16", 0, "segm.APs") is None and study.value("pool16", 0, "nothing.there") is None
    assert [image for image, _ in study.sample_images()] == [1, 5]


def test_every_kind_of_problem_is_told_apart(tmp_path):
    folder = write_study(tmp_path, seeds=3, skip=(("pool16", 1),))
    (folder / "align16" / "seed0" / "run.json").write_text("{ half a rec")
    renamed = folder / "pool32" / "seed2" / "run.json"
    edit_record(renamed, lambda record: record.update(arm="pool16"))
    (folder / "align32" / "seed0" / "run.json").unlink()
    (folder / "align32" / "seed2" / "run.json").rename(folder / "align32" / "seed1" / "run.json")
    log = "started 2026\nTraceback (most recent call last):\n  File\nTrainingError: step 3: expected finite losses\n"
    (folder / "align32" / "seed2" / "log.txt").write_text(log)
    shutil.copytree(folder / "pool16" / "seed0", folder / "pool16" / "seed7")

    study = read_study(tmp_path, "roialign")
    assert {(item.arm, item.seed): item.kind for item in study.problems} == {
        ("pool16", 1): "missing",
        ("align16", 0): "unreadable",
        ("pool32", 2): "unreadable",
        ("align32", 0): "missing",
        ("pool16", 7): "unplanned",
        ("align32", 1): "unreadable",
        ("align32", 2): "failed",
    }
    details = {(item.arm, item.seed): item.detail for item in study.problems}
    assert details["pool16", 1] == "not started" and details["align32", 0].startswith("started")
    assert "not JSON" in details["align16", 0] and str(tmp_path) not in details["align16", 0]
    assert details["align32", 2] == "TrainingError: step 3: expected finite losses"
    assert details["align32", 1] == "the record says arm 'align32', seed 2"
    assert study.shown_seed() == 0  # two arms there, as in seed 1, and it comes first
    assert len(study.runs) == 6 and study.seeds() == []


def test_the_status_of_a_run_without_a_record_is_reported(tmp_path):
    skip = (("pool16", 0), ("pool16", 1), ("pool16", 2))
    folder = write_study(tmp_path, seeds=3, skip=skip)
    for seed, (state, message) in enumerate([("failed", "the disk is full"), ("stopped", ""), ("running", "training")]):
        status = Status("pool16", state, message, 4, 9, 0, 1, "host", "2026", "2026")
        save(status, folder / "pool16" / f"seed{seed}" / "status.json")
    listed = [(item.kind, item.detail) for item in read_study(tmp_path, "roialign").problems]
    assert listed == [
        ("failed", "the disk is full"),
        ("missing", "stopped at step 4 of 9"),
        ("missing", "not finished at step 4 of 9"),
    ]
    (folder / "pool16" / "seed0" / "status.json").write_text("[")
    assert read_study(tmp_path, "roialign").problems[0].detail == "started, no result yet"


def test_a_study_that_is_not_there(tmp_path, outputs):
    with pytest.raises(RecordError, match="expected the record of study 'maskloss'.*roialign.*study=maskloss"):
        read_study(outputs, "maskloss")
    assert find_studies(tmp_path / "nowhere") == []


def test_a_study_record_that_cannot_be_read(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    (folder / "study.json").write_text('{"schema": 99}')
    with pytest.raises(RecordError, match="expected a record of schema 1, got 99"):
        read_study(tmp_path, "roialign")


def test_values_that_are_not_finite_count_as_undefined(tmp_path):
    folder = write_study(tmp_path, seeds=2)
    path = folder / "pool16" / "seed0" / "run.json"
    edit_record(path, lambda record: record["metrics"]["segm"].update(AP=float("nan"), AP50=None))
    study = read_study(tmp_path, "roialign")
    assert study.value("pool16", 0, "segm.AP") is None and study.value("pool16", 0, "segm.AP50") is None
    assert set(study.values("pool16", "segm.AP")) == {1}


def test_curves_keep_the_last_line_of_a_step(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    lines = ['{"step": 0, "loss": 2}', '{"step": 10, "loss": 1}', "cut off {", '{"step": 0, "loss": 3}', "[]"]
    (folder / "pool16" / "seed0" / "metrics.jsonl").write_text("\n".join(lines))
    study = read_study(tmp_path, "roialign")
    assert study.curves("pool16", 0) == [{"step": 0, "loss": 3}, {"step": 10, "loss": 1}]
    assert study.curves("pool16", 99) == []


def test_a_run_whose_detections_or_curves_are_not_what_it_wrote_is_not_used(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    for arm in ("pool16", "align16"):
        path = folder / arm / "seed0" / "run.json"
        save(dataclasses.replace(load_run(path), files=digests.of_files(path.parent, RESULT_FILES)), path)
    assert not read_study(tmp_path, "roialign").problems
    flip_bit(folder / "pool16" / "seed0" / "detections.json")
    flip_bit(folder / "align16" / "seed0" / "metrics.jsonl")
    study = read_study(tmp_path, "roialign")
    told = {(problem.arm, problem.kind): problem.detail for problem in study.problems}
    assert told == {
        ("pool16", "unreadable"): "detections.json is damaged: it is not what was written",
        ("align16", "unreadable"): "metrics.jsonl is damaged: it is not what was written",
    }
    assert ("pool16", 0) not in study.runs


def test_an_edited_record_is_refused_and_an_old_one_without_digest_accepted(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    path, edited = folder / "pool16/seed0/run.json", folder / "align16/seed0/run.json"
    flip_bit(path, 8 * (path.read_bytes().index(b'"AP": ') + 6))  # 27.9 for 37.9, which is JSON still
    edit_record(edited, lambda record: record["metrics"]["segm"].update(AP=99.0))
    study = read_study(tmp_path, "roialign")
    (problem,) = study.problems
    assert (problem.arm, problem.kind) == ("pool16", "unreadable")
    assert problem.detail.startswith("pool16/seed0/run.json: damaged: it is not what was written")
    assert study.value("align16", 0, "segm.AP") == 99.0


def test_unreadable_side_files_are_none(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    (folder / "ground_truth.json").write_text("no")
    (folder / "pool16" / "seed0" / "detections.json").unlink()
    study = read_study(tmp_path, "roialign")
    assert study.ground_truth is None and study.detections("pool16", 0) is None
    assert all(study.detections(arm, 0) for arm in ARMS if arm != "pool16")
