"""Which finished runs are used again and which are executed again, with what reason. Training is faked."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from ablations.execution import reuse
from ablations.execution.reuse import move_to_replaced
from ablations.execution.scheduler import execute
from ablations.records import code_version
from ablations.records.storage import load_run, save
from tests.damage import flip_bit


@pytest.mark.slow
def test_finished_runs_are_not_executed_again(lab):
    assert lab.go()[1] == ["a", "b"]
    outcome, made, printed = lab.go()
    assert made == [] and len(outcome.records) == 2 and "2 of 2 runs are done already" in printed
    assert lab.go("checkpoint.seconds=5", "workers=1")[1] == [], "settings that do not decide the result"


def change_settings(lab, monkeypatch):
    return ["data.noise=1"], "settings changed: data.noise 2 -> 1"


def change_code(lab, monkeypatch):
    monkeypatch.setattr(reuse, "code_version", lambda: "another")
    return [], "the code has changed (code=keep accepts runs of other versions)"


def change_stages(lab, monkeypatch):
    monkeypatch.setattr("ablations.stages.store.STAGE_VERSION", 99)
    return [], "the data or the stages that it depends on changed"


def spoil_records(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/run.json"):
        path.write_text('{"schema": 1, "arm"')
    return [], "its record cannot be read"


def flip_bits_of_weights(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/model.safetensors"):
        flip_bit(path)
    return [], "model.safetensors is damaged: it is not what was written"


def flip_bits_of_detections(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/detections.json"):
        flip_bit(path)
    return [], "detections.json is damaged: it is not what was written"


def lose_detections(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/detections.json"):
        path.unlink()
    return [], "detections.json is missing"


def flip_bits_of_metrics(lab, monkeypatch):
    for path in lab.outputs.glob("study/*/seed0/run.json"):
        flip_bit(path, 8 * (path.read_bytes().index(b'"AP": ') + 6))
        json.loads(path.read_text())
    return [], "run.json is damaged: it is not what was written"


def force(lab, monkeypatch):
    return ["force=true"], "force=true"


CHANGES = [
    *(change_settings, change_code, change_stages, spoil_records, force),
    *(flip_bits_of_weights, flip_bits_of_detections, flip_bits_of_metrics, lose_detections),
]


@pytest.mark.parametrize("change", CHANGES)
def test_outdated_runs_are_executed_again_with_the_reason_and_the_old_ones_are_kept(lab, monkeypatch, change):
    lab.go()
    overrides, reason = change(lab, monkeypatch)
    old = {path.parent.parent.name: path.read_bytes() for path in lab.outputs.glob("study/*/seed0/run.json")}
    outcome, made, printed = lab.go(*overrides)
    assert made == ["a", "b"] and not outcome.failures
    assert (
        f"running again: a seed 0, b seed 0: {reason}" in printed and str(lab.outputs / "study" / "replaced") in printed
    )
    for arm, content in old.items():
        kept = lab.outputs / "study" / "replaced" / arm / "seed0-1"
        assert (kept / "run.json").read_bytes() == content and (kept / "model.safetensors").exists()
    if change is not force:
        assert lab.go(*overrides)[1] == []


@pytest.mark.slow
def test_a_run_that_lost_its_weights_is_executed_again(lab):
    lab.go()
    path = lab.outputs / "study/a/seed0/model.safetensors"
    path.unlink()
    _, made, printed = lab.go()
    assert made == ["a"] and "a seed 0: model.safetensors is missing" in printed and path.exists()


def test_runs_of_older_versions_need_only_their_weights(lab):
    lab.go()
    path = lab.outputs / "study/a/seed0/run.json"
    save(dataclasses.replace(lab.record_of("a"), files={}), path)
    flip_bit(path.parent / "model.safetensors")
    assert lab.go()[1] == []
    (path.parent / "model.safetensors").unlink()
    assert lab.go()[1] == ["a"]


def test_a_damaged_run_of_another_study_is_not_reused(lab):
    lab.go()
    flip_bit(lab.outputs / "study/a/seed0/detections.json")
    run = dataclasses.replace(lab.runs()[0], study="other", arm="c")
    execute([run], print_line=lab.printed.append, launch=lab.launch, work=lab.work)
    assert lab.made == ["a", "b", "c"]


def test_code_keep_accepts_runs_of_another_version(lab, monkeypatch):
    lab.go()
    change_code(lab, monkeypatch)
    assert lab.go("code=keep")[1] == []


def test_going_back_to_old_settings_brings_their_runs_back(lab):
    lab.go()
    before = lab.record_of("a").metrics
    assert lab.go("data.noise=1")[1] == ["a", "b"] and lab.record_of("a").metrics != before
    _, made, printed = lab.go()
    assert made == [] and lab.record_of("a").metrics == before and lab.record_of("a").taken_from == ""
    assert "a seed 0: reusing a replaced run" in printed
    assert len(list(lab.outputs.glob("study/replaced/a/seed0-*/run.json"))) == 2


def test_a_run_that_another_study_has_finished_is_reused(lab):
    lab.go()
    run = dataclasses.replace(lab.runs()[0], study="other", arm="c")
    outcome = execute([run], print_line=lab.printed.append, launch=lab.launch, work=lab.work)
    record = load_run(run.folder / "run.json")
    assert outcome.records == {run.folder: record} and lab.made == ["a", "b"]
    assert lab.printed[-1] == "c seed 0: reusing study/a, which has the same settings"
    assert (record.study, record.arm, record.taken_from) == ("other", "c", "study/a")
    assert dataclasses.replace(record, study="study", arm="a", taken_from="") == lab.record_of("a")
    assert (run.folder / "model.safetensors").samefile(lab.outputs / "study/a/seed0/model.safetensors")
    assert not (run.folder / "log.txt").exists()


def test_archiving_a_run_continues_after_a_kill(tmp_path):
    folder = tmp_path / "study" / "a" / "seed0"
    folder.mkdir(parents=True)
    for name in ("run.json", "model.safetensors", "log.txt"):
        (folder / name).write_text(name)
    half = tmp_path / "study" / "replaced" / "a" / "seed0-1"
    half.mkdir(parents=True)
    (folder / "log.txt").rename(half / "log.txt")  # as far as a killed process got
    assert move_to_replaced(folder) == half and move_to_replaced(folder) is None
    assert {path.name for path in half.iterdir()} == {"run.json", "model.safetensors", "log.txt"}


def test_the_times_of_files_decide_nothing(lab):
    """Clocks of machines differ, and jump."""
    lab.go()
    for path, seconds in zip(sorted(lab.outputs.glob("study/*/seed0/run.json")), (0, 4 * 10**9), strict=True):
        os.utime(path, (seconds, seconds))
    assert lab.go()[1] == []


def test_a_record_names_its_code_version(lab):
    lab.go()
    assert lab.record_of("a").provenance["code"] == code_version.code_version()
    assert Path(lab.outputs / "study/a/seed0/status.json").exists()
    assert json.loads((lab.outputs / "study/a/seed0/status.json").read_text())["state"] == "done"
