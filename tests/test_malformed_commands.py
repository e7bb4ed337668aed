"""Settings, archives and records that are not what they should be: one sentence and an exit code, never a traceback."""

import dataclasses
import json
import os
import zipfile

import pytest

from ablations import cli, export, status
from ablations.records.storage import save
from reports import __main__ as reports
from tests.commands import command
from tests.reports.conftest import run_record, study_record

SETTINGS = {
    "seed=-1": "seed: expected",
    "seed=1.5": "seed: expected",
    "seed=one": "seed: expected",
    "seed=true": "seed: expected",
    "seed=null": "seed: expected",
    "seed=": "seed: expected",
    "seed=[1]": "seed: expected",
    "seed={a: 1}": "seed: expected",
    "seed=1e400": "seed: expected",
    "stride=0": "stride: expected",
    "stride=17": "stride: expected",
    "stride=-16": "stride: expected",
    "roi=ROIALIGN": "roi: expected one of",
    "roi=pool.yaml": "roi: expected one of",
    "roi=../roi/pool": "roi: expected one of",
    "roi.sampling_ratio=-1": "roi.sampling_ratio: expected",
    "roi.sampling_ratio=1000000000000": "roi.sampling_ratio: expected",
    "budget=huge": "budget: expected one of",
    "budget.train.steps=0": "budget.train.steps: expected",
    "budget.train.steps=-5": "budget.train.steps: expected",
    "budget.train.steps=1e9": "budget.train.steps: expected",
    "budget.train.lr=-1": "budget.train.lr: expected",
    "budget.train.lr=nan": "budget.train.lr: expected",
    "budget.train.lr=inf": "budget.train.lr: expected",
    "budget.train.lr=fast": "budget.train.lr: expected",
    "data=voc": "data: expected one of",
    "data.image_side=100": "data.image_side: expected",
    "data.image_side=1000000": "data.image_side: expected",
    "data.max_objects=0": "data.max_objects: expected",
    "data.num_train=0": "data.num_train: expected",
    "data.colour=red": "data.colour: no such setting",
    "data.root=/nowhere": "data.root",
    "precision=float8": "precision: expected",
    "device=tpu": "device: expected",
    "logger=mlflow": "logger: expected one of",
    "launcher=kubernetes": "launcher: expected one of",
    "system=yolo": "system: expected one of",
    "mask_head.depth=-1": "mask_head.depth: expected",
    "study=": "study: expected one of",
    "study=nothing": "study: expected one of",
    "outputs=null": "outputs: expected",
    "outputs=[a]": "outputs: expected",
    "model.blocks=7": "model.blocks: expected",
    "a.b.c=1": "no such setting",
    "__class__=1": "no such setting",
    "'=1": "no such setting",
    "=": "expected SETTING=VALUE",
    "-": "expected SETTING=VALUE",
    "\u00fc=1": "no such setting",
    "seed=\udcff": "seed: expected",
    "seed=\u0661": "seed: expected",
    "seed=1\n2": "seed: expected",
    "seed=$((1))": "seed: expected",
    "seed=${seed}": "seed",
    "seed=${oc.env:NOWHERE_AT_ALL}": "seed",
    "seed=" + "9" * 5000: "seed: expected",
    "seed=" + "[" * 5000: "seed: expected",
}


@pytest.mark.slow
@pytest.mark.parametrize("argument", SETTINGS, ids=lambda argument: f"{argument!a:.40}")
def test_a_setting(tmp_path, argument):
    arguments = [argument] if argument.startswith("outputs") else [argument, f"outputs={tmp_path}"]
    code, _, err = command(lambda given: cli.main(given, ""), [*arguments, "--cfg", "job"])  # or a good one would run
    lines = err.splitlines()
    assert code == 2 and lines and all(line.startswith("error: ") for line in lines)
    assert any(SETTINGS[argument] in line for line in lines)
    assert max(map(len, lines)) < 6000 and not list(tmp_path.iterdir())


STUDY = study_record(1)


def record(**changes):
    return json.dumps(dataclasses.asdict(STUDY) | changes)


def entry(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


# What is in an archive besides, or in the place of, a study's record.
ARCHIVES = {
    "nothing": [],
    "no record": [("roialign/ground_truth.json", "{}")],
    "two studies": [("roialign/study.json", record()), ("other/study.json", record(name="other"))],
    "another name": [("other/study.json", record())],
    "above": [("roialign/study.json", record()), ("../x.json", "{}")],
    "above within": [("roialign/study.json", record()), ("roialign/../../x.json", "{}")],
    "absolute": [("roialign/study.json", record()), ("/tmp/x.json", "{}")],
    "backslashes": [("roialign/study.json", record()), ("roialign\\..\\x.json", "{}")],
    "drive": [("roialign/study.json", record()), ("C:x.json", "{}")],
    "link": [("roialign/study.json", record()), (entry("roialign/x.json", 0o120777), "/etc/passwd")],
    "device": [("roialign/study.json", record()), (entry("roialign/x.json", 0o020666), "")],
    "pipe": [("roialign/study.json", record()), (entry("roialign/x.json", 0o010666), "")],
    "folder": [("roialign/study.json", record()), ("roialign/x/", "")],
    "program": [("roialign/study.json", record()), ("roialign/x.py", "print()")],
    "pickle": [("roialign/study.json", record()), ("roialign/x.pt", "")],
    "hidden": [("roialign/study.json", record()), ("roialign/.x.json", "{}")],
    "blank": [("roialign/study.json", record()), ("roialign/a b.json", "{}")],
    "same name in capitals": [("roialign/study.json", record()), ("roialign/Study.json", "{}")],
    "deep": [("roialign/study.json", record()), ("roialign/a/b/c/d/e.json", "{}")],
    "long name": [("roialign/study.json", record()), (f"roialign/{'a' * 300}.json", "{}")],
    "record that is no JSON": [("roialign/study.json", "a record")],
    "record of other bytes": [("roialign/study.json", b"\xff\xfe")],
    "record nested deeply": [("roialign/study.json", "[" * 100_000)],
    "record of another schema": [("roialign/study.json", record(schema=99))],
    "arm that is a path": [("roialign/study.json", record(arms={"../x": {"label": "x", "overrides": []}}))],
    "seeds as text": [("roialign/study.json", record(seeds=["0"]))],
    "image that is a path": [("roialign/study.json", record(sample_image_ids=["../x"]))],
    "run that is no record": [("roialign/study.json", record()), ("roialign/pool16/seed0/run.json", "{}")],
    "run that is no JSON": [("roialign/study.json", record()), ("roialign/pool16/seed0/run.json", "\0")],
    "more than allowed": [("roialign/study.json", record()), ("roialign/ground_truth.json", " " * 2_000_000)],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in ARCHIVES[name]:
            archive.writestr(file, content)
    outputs = tmp_path / "outputs"
    arguments = ["--unpack", str(tmp_path / "a.zip"), "--outputs", str(outputs), "--limit", "0.001"]
    code, out, err = command(export.main, arguments)
    assert (code, out) == (1, "") and err.startswith("error: ") and len(err.splitlines()) == 1
    assert not list(outputs.glob("*"))
    assert {path.name for path in tmp_path.iterdir()} <= {"a.zip", "outputs"}


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(50), b"a study", b"\x1f\x8b\x08", bytes(1000)])
def test_no_archive(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    code, _, err = command(export.main, ["--unpack", str(tmp_path / "a.zip"), "--outputs", str(tmp_path / "outputs")])
    assert code == 1 and err.startswith("error: ") and len(err.splitlines()) == 1


BROKEN = {
    "nothing": "",
    "text": "a record",
    "cut off": record()[:100],
    "list": "[]",
    "null": "null",
    "nested deeply": "[" * 100_000,
    "number of 5000 digits": '{"schema": ' + "9" * 5000 + "}",
    "other bytes": "\udcff\udcfe",
    "null bytes": "\0" * 100,
    "no field": "{}",
    "another schema": record(schema=0),
    "schema as text": record(schema="1"),
}
UNKNOWN_ARM = dataclasses.asdict(STUDY.hypotheses[0]) | {"contrast": {"x": 1}}
STUDIES = BROKEN | {
    "arms a list": record(arms=[]),
    "arms null": record(arms=None),
    "arm a text": record(arms={"pool16": "x"}),
    "arm that is a path": record(arms={"../x": {"label": "x", "overrides": []}}),
    "seeds as text": record(seeds="0"),
    "seeds of texts": record(seeds=["0"]),
    "seeds null": record(seeds=[None]),
    "title a number": record(title=7),
    "hypotheses of numbers": record(hypotheses=[1]),
    "hypothesis of an unknown arm": record(hypotheses=[UNKNOWN_ARM]),
    "hypothesis without contrast": record(hypotheses=[{"name": "x"}]),
    "another field": record(colour="red"),
    "config a list": record(config=[]),
    "samples as text": record(sample_image_ids=["1"]),
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_record_of_a_study(tmp_path, name):
    folder = tmp_path / "roialign"
    folder.mkdir()
    (folder / "study.json").write_bytes(STUDIES[name].encode("utf-8", "surrogateescape"))
    code, _, err = command(reports.main, ["roialign", "--outputs", str(tmp_path), "--verdicts"])
    assert code == 1 and "study.json" in err and len(err.splitlines()) == 1
    code, out, err = command(status.main, ["roialign", "--outputs", str(tmp_path)])
    assert "study.json" in out + err


def run(**changes):
    return json.dumps(dataclasses.asdict(run_record("pool16", 0)) | changes)


RUNS = BROKEN | {
    "another arm": run(arm="align16"),
    "another seed": run(seed=5),
    "seed as text": run(seed="0"),
    "steps null": run(steps=None),
    "steps of half": run(steps=0.5),
    "metrics a list": run(metrics=[]),
    "metrics of texts": run(metrics={"segm": {"AP": "40"}}),
    "metrics of lists": run(metrics={"segm": {"AP": [40]}}),
    "no metrics": run(metrics=None),
    "losses of texts": run(losses={"loss": "x"}),
    "config a text": run(config="x"),
    "another field": run(colour="red"),
    "provenance null": run(provenance=None),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_record_of_a_run(tmp_path, name):
    """The others are judged; this one is named."""
    folder = tmp_path / "roialign"
    save(STUDY, folder / "study.json")
    for arm in STUDY.arms:
        save(run_record(arm, 0), folder / arm / "seed0/run.json")
    path = folder / "pool16/seed0/run.json"
    path.write_bytes(RUNS[name].encode("utf-8", "surrogateescape"))
    code, out, err = command(reports.main, ["roialign", "--outputs", str(tmp_path), "--verdicts"])
    assert (code, err) == (0, "") and out.startswith("verdicts of roialign:")
    code, out, _ = command(status.main, ["roialign", "--outputs", str(tmp_path)])
    assert code in (0, 1) and "pool16" in out


def test_pipes_in_the_place_of_records(tmp_path):
    folder = tmp_path / "roialign"
    save(STUDY, folder / "study.json")
    (folder / "pool16/seed0").mkdir(parents=True)
    for name in ("run.json", "status.json", "log.txt"):
        os.mkfifo(folder / "pool16/seed0" / name)
    assert command(reports.main, ["roialign", "--outputs", str(tmp_path), "--verdicts"])[0] == 0
    (folder / "study.json").unlink()
    os.mkfifo(folder / "study.json")
    assert command(reports.main, ["roialign", "--outputs", str(tmp_path), "--verdicts"])[0] == 1
