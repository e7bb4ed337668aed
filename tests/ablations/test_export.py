"""Archives of studies: the same records give the same bytes, and nothing but a study is unpacked."""

import dataclasses
import json
import zipfile

import pytest

from ablations import export
from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.errors import RecordError
from ablations.execution.reuse import finished_record, move_to_replaced, outdated_reason, reuse_finished_run
from ablations.export import ExportError, pack, unpack
from ablations.records.code_version import code_version
from ablations.records.schema import Arm, RunRecord, Status, StudyRecord
from ablations.records.storage import load_status, load_study, save
from ablations.stages.store import stages_of

STUDY = StudyRecord(
    name="tiny",
    title="Tiny",
    question="?",
    factors=["roi"],
    arms={"pool": Arm("RoIPool", ["roi=pool"])},
    seeds=[0, 1],
    hypotheses=[],
    sample_image_ids=[4],
    config={},
    data={},
)
STATUS = Status("tiny: pool seed 1", "failed", "the disk is full", 5, 10, 0, 4321, "secret-machine", "", "")
LIMIT = 10**6


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "outputs/tiny"
    save(STUDY, folder / "study.json")
    for name in (
        "ground_truth.json",
        "samples/4.png",
        "exhibits/cost.json",
        "exhibits/cost/1.jpg",
        "pool/seed0/metrics.jsonl",
        "pool/seed0/model.safetensors",
        "pool/seed0/checkpoint.safetensors",
        "pool/seed0/wandb/run.wandb",
        "pool/seed0/log.txt",
        "replaced/pool/seed0-1/metrics.jsonl",
        "report/report.md",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    save(STATUS, folder / "pool/seed1/status.json")
    return folder


def test_a_study_is_packed_without_weights_and_names_of_machines(study, tmp_path):
    archive = tmp_path / "tiny.zip"
    pack(study, archive)
    folder = unpack(archive, tmp_path / "others", LIMIT)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == [
        "exhibits/cost.json",
        "exhibits/cost/1.jpg",
        "ground_truth.json",
        "pool/seed0/metrics.jsonl",
        "pool/seed1/status.json",
        "samples/4.png",
        "study.json",
    ]
    assert (folder / "study.json").read_bytes() == (study / "study.json").read_bytes()
    assert load_status(folder / "pool/seed1/status.json") == dataclasses.replace(STATUS, host="", pid=0)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("trust", [False, True])
def test_unpacked_runs_are_reused_only_if_they_are_trusted(compose, tmp_path, trust):
    """A value that somebody edited never becomes one's own by accident."""
    config = from_hydra(compose([f"outputs={tmp_path / 'outputs'}"]))
    theirs = tmp_path / "theirs/tiny"
    save(STUDY, theirs / "study.json")
    metrics = {"segm": {"AP": 99.9}}
    about = (config.settings(), config.hash(), {}, stages_of(config).keys, 3, 9, {}, metrics, {})
    for folder in (theirs / "pool/seed0", theirs / "replaced/pool/seed0-1"):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("weights")
        save(RunRecord("tiny", "pool", 0, *about, {"code": code_version()}), folder / "run.json")
    pack(theirs, tmp_path / "tiny.zip", weights=True)
    with zipfile.ZipFile(tmp_path / "tiny.zip", "a") as archive:  # a replaced run, which `pack` leaves out
        for path in (theirs / "replaced").rglob("*.*"):
            archive.write(path, path.relative_to(theirs.parent).as_posix())
    assert main_code("--unpack", tmp_path / "tiny.zip", "--outputs", config.outputs, *(["--trust"] * trust)) == 0
    run, other = Run("tiny", "pool", config), Run("mine", "pool", config)
    other.folder.mkdir(parents=True)
    if trust:
        assert finished_record(run).metrics == metrics and reuse_finished_run(other).metrics == metrics
    else:
        assert finished_record(run) is None and "--trust" in outdated_reason(run)
        assert reuse_finished_run(other) is None
        move_to_replaced(run.folder)
        assert reuse_finished_run(run) is None, "not when it is replaced either"


def main_code(*arguments):
    return export.main([str(argument) for argument in arguments])


def test_the_same_study_gives_the_same_bytes(study, tmp_path):
    pack(study, tmp_path / "one.zip", report=study / "report")
    for path in study.rglob("*"):
        path.touch()
        path.chmod(0o755)
    pack(study, tmp_path / "other.zip", report=study / "report")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()
    assert "tiny/report/report.md" in zipfile.ZipFile(tmp_path / "one.zip").namelist()


def test_weights_are_packed_on_request(study, tmp_path):
    pack(study, tmp_path / "tiny.zip", weights=True)
    folder = unpack(tmp_path / "tiny.zip", tmp_path / "others", LIMIT)
    assert (folder / "pool/seed0/model.safetensors").exists()
    assert not list(folder.rglob("checkpoint*")) and not (folder / "pool/seed0/wandb").exists()


def test_an_existing_study_is_not_overwritten(study, tmp_path):
    pack(study, tmp_path / "tiny.zip")
    with pytest.raises(ExportError, match="expected no study of that name"):
        unpack(tmp_path / "tiny.zip", study.parent, LIMIT)


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    "name",
    [
        "../escaped.json",
        "tiny/../../escaped.json",
        "/tmp/escaped.json",
        "tiny/./a.json",
        "tiny//a.json",
        "C:/escaped.json",
        "tiny\\..\\escaped.json",
        "tiny/a b.json",
        "tiny/.hidden.json",
        "tiny/-rf;x.json",
        "tiny/$(touch x).json",
        "tiny/code.py",
        "tiny/model.pkl",
        "tiny/pool/seed1/checkpoint.safetensors",
        "tiny/folder/",
        "other/study.json",
        "tiny/STUDY.json",
        "tiny/a/b/c/d/e.json",
        link("tiny/link.json"),
    ],
)
def test_an_archive_with_other_names_is_refused_as_a_whole(study, tmp_path, name):
    pack(study, tmp_path / "tiny.zip")
    with zipfile.ZipFile(tmp_path / "tiny.zip", "a") as archive:
        archive.writestr(name, "{}")
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(ExportError):
        unpack(tmp_path / "tiny.zip", tmp_path / "outputs/others", LIMIT)
    assert {path for path in tmp_path.rglob("*")} <= before | {tmp_path / "outputs/others"}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"arms": {"../../elsewhere": Arm("x", [])}},
        {"exhibits": ["../../elsewhere"]},
        {"sample_image_ids": ["../../photo"]},
        {"seeds": ["0/../../.."]},
    ],
)
def test_records_that_name_other_folders_are_refused(study, tmp_path, changes):
    pack(study, tmp_path / "tiny.zip")
    damaged = json.dumps(dataclasses.asdict(dataclasses.replace(STUDY, **changes)))
    with zipfile.ZipFile(tmp_path / "tiny.zip") as good, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, damaged if name.endswith("study.json") else good.read(name))
    with pytest.raises((ExportError, RecordError)):
        unpack(tmp_path / "bad.zip", tmp_path / "others", LIMIT)
    assert not list((tmp_path / "others").iterdir())


@pytest.mark.parametrize("name", ["<unk>", "</s>", "a|b", "[x](y)", "<script>alert(1)</script>", "javascript:"])
def test_classes_may_have_any_name(study, tmp_path, name):
    """What a report shows is text, whatever it looks like."""
    content = json.dumps({"categories": [{"id": 1, "name": name}], "images": [], "annotations": []})
    (study / "ground_truth.json").write_text(content)
    save(dataclasses.replace(STUDY, question=name, data={"classes": [name]}), study / "study.json")
    pack(study, tmp_path / "tiny.zip")
    folder = unpack(tmp_path / "tiny.zip", tmp_path / "others", LIMIT)
    assert (folder / "ground_truth.json").read_text() == content
    assert load_study(folder / "study.json").data == {"classes": [name]}


def test_an_archive_above_the_limit_is_not_unpacked(study, tmp_path):
    (study / "ground_truth.json").write_bytes(b" " * 2 * LIMIT)  # a bomb is small when packed
    pack(study, tmp_path / "tiny.zip")
    assert (tmp_path / "tiny.zip").stat().st_size < LIMIT / 10
    with pytest.raises(ExportError, match="--limit"):
        unpack(tmp_path / "tiny.zip", tmp_path / "others", LIMIT)


def test_damaged_archives_and_missing_studies_give_one_clear_line(study, tmp_path, capsys):
    archive = tmp_path / "tiny.zip"
    pack(study, archive)
    content = archive.read_bytes()
    middle = content.index(b"tiny/study.json") + 40
    for damaged in (b"", b"PK", content[:200], content[:middle] + b"\xff\xff\xff" + content[middle + 3 :]):
        archive.write_bytes(damaged)
        assert export.main(["--unpack", str(archive), "--outputs", str(tmp_path / "others")]) == 1
        assert capsys.readouterr().err.startswith("error: ")
        assert not (tmp_path / "others/tiny").exists()
    assert export.main(["nothing", "--outputs", str(tmp_path)]) == 1
    assert "study.json" in capsys.readouterr().err


def test_a_damaged_record_is_not_packed(study, tmp_path, capsys):
    record = study / "pool/seed0/run.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text('{"schema": 1, "study": "ti')  # a full disk, or an editor's mistake
    archive = tmp_path / "tiny.zip"
    assert export.main([study.name, "--outputs", str(study.parent), "--out", str(archive)]) == 1
    assert str(record) in capsys.readouterr().err and not archive.exists()
