"""The whole pipeline as a user runs it, tiny: a study, its report, other launchers, an interruption, and mistakes."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.resnet import Bottleneck, resnet50

from ablations import cli, export
from tests import torture
from tests.commands import command

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

TINY = ["budget=smoke", "budget.train_images=16", "budget.val_images=6", "budget.train.steps=3", "threads=1"]
on_the_study = pytest.mark.xdist_group("study")
"""Tests of the fixture `study` run in one process, so that it is made once."""

SECRET = "a-key-that-nobody-else-must-see-0123456789"


def run(*arguments, module=None):
    """Runs `python run.py ...` or `python -m module ...` in a process of its own."""
    started = [sys.executable, *(["-m", module] if module else ["run.py"]), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_API_KEY": SECRET}
    return subprocess.run(started, cwd=ROOT, capture_output=True, text=True, env=environment)


def run_here(*arguments, main=lambda given: cli.main(given, "")):
    """The same without a process for the command itself: (exit code, standard output, standard error)."""
    return command(main, list(arguments))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    return outputs, run("study=roialign", *TINY, f"outputs={outputs}")


@on_the_study
def test_a_study_leaves_a_record_of_every_run(study):
    outputs, done = study
    assert done.returncode == 0, done.stdout + done.stderr
    records = sorted(outputs.glob("roialign/*/seed*/run.json"))
    assert len(records) == 8
    for path in records:
        record = json.loads(path.read_text())
        assert record["metrics"]["segm"].keys() >= {"AP", "AP50", "AP75"}
        assert record["metrics"]["overlap"].keys() >= {"AP_none", "AP_some", "AP_much", "leakage", "seams"}
        ((operator, backend),) = record["provenance"]["operators"].items()
        assert operator == f"roi_{record['config']['roi']['op']}" and backend in ("compiled", "pytorch", "triton")
        for name in ("config.yaml", "metrics.jsonl", "detections.json", "model.safetensors", "log.txt"):
            assert (path.parent / name).stat().st_size > 0
    assert "run 8 of 8" in done.stdout
    verdicts = done.stdout.partition("verdicts of roialign:")[2]
    assert "RoIAlign is over three points of mask AP ahead of RoIPool" in verdicts and "report:  " in verdicts
    written = [path for path in outputs.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()] and SECRET not in done.stdout


@on_the_study
def test_a_packed_study_gives_others_the_same_report(study, tmp_path):
    outputs, _ = study
    archive, others = tmp_path / "study.zip", tmp_path / "others"
    done = run("roialign", "--outputs", str(outputs), "--out", str(archive), module="ablations.export")
    assert done.returncode == 0, done.stderr
    code, _, err = run_here("--unpack", str(archive), "--outputs", str(others), main=export.main)
    assert code == 0, err
    done = run("roialign", "--outputs", str(others), "--out", str(tmp_path / "again"), module="reports")
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again/roialign"
    assert "RoIAlign" in (again / "report.md").read_text()
    page = (again / "report.html").read_text()
    assert 'src="http' not in page and "data:image/" in page
    with zipfile.ZipFile(archive) as packed:
        prefix = "roialign/report/"
        names = {name.removeprefix(prefix) for name in packed.namelist() if name.startswith(prefix)}
        assert len(names) > 5
        assert names == {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()}
        for name in names:
            # It also says that the runs were unpacked.
            unpacked = re.sub(rb"(<p>)?8 of 8 runs were unpacked[^\n]*\n+", b"", (again / name).read_bytes())
            assert packed.read(prefix + name) == unpacked, name
    # The packed pages stay in the archive, so that nobody opens HTML of others by accident.
    assert not list(others.rglob("*.safetensors")) and not (others / "roialign/report").exists()


@on_the_study
def test_finished_runs_are_not_executed_again_and_a_lost_one_is_reproduced(study, tmp_path):
    outputs = shutil.copytree(study[0], tmp_path / "outputs")
    lost = outputs / "roialign/align-16/seed1/run.json"
    before, kept = torture.timeless(lost), outputs / "roialign/pool-16/seed1/run.json"
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    code, out, err = run_here("study=roialign", "study.exhibits=[]", *TINY, "workers=1", f"outputs={outputs}")
    assert code == 0, err
    assert "7 of 8 runs are done already" in out
    assert kept.stat().st_mtime_ns == stamp
    assert torture.timeless(lost) == before


def same_files(run_folder: Path, other: Path) -> bool:
    """Whether two runs left the same bytes, their records (compared without times) aside."""
    names = ("config.yaml", "metrics.jsonl", "detections.json", "model.safetensors")
    return all((run_folder / name).read_bytes() == (other / name).read_bytes() for name in names)


@on_the_study
def test_ray_gives_the_same_records(study, tmp_path, monkeypatch):
    """On a cluster of its own."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")  # not one that happens to run on this machine
    outputs, _ = study
    folder = tmp_path / "ray"
    code, out, err = run_here("study=roialign", "launcher=ray", *TINY, "budget.seeds=1", f"outputs={folder}")
    assert code == 0, out + err
    assert "launcher ray" in out
    records = list(folder.glob("roialign/*/seed*/run.json"))
    assert len(records) == 4
    for path in records:
        local = outputs / path.relative_to(folder)
        assert torture.timeless(path) == torture.timeless(local) and same_files(path.parent, local.parent)


@on_the_study
def test_submitit_gives_the_same_records(study, tmp_path):
    """With its executor for this machine, which starts a process for each job as Slurm would."""
    pytest.importorskip("submitit")
    outputs, _ = study
    arm = ["model=toy_fpn_head", "roi=pool", "split=test", "snapshots=true"]  # as in the study, for its first seed
    code, out, err = run_here(*arm, "launcher=submitit", "launcher.cluster=local", *TINY, f"outputs={tmp_path}")
    assert code == 0, out + err
    (path,) = tmp_path.glob("single/*/seed0/run.json")
    local = outputs / "roialign/pool-16/seed0/run.json"
    of_the_arm = {"study": "roialign", "arm": "pool-16"}
    assert torture.timeless(path) | of_the_arm == torture.timeless(local) and same_files(path.parent, local.parent)


def test_a_resnet_is_fine_tuned_on_a_folder_of_pictures(tmp_path):
    """From a file of weights to a record and a printed table."""
    outline = [[8, 6, 40, 6, 40, 30, 8, 30]]
    thing = {"category_id": 7, "bbox": [8, 6, 32, 24], "area": 768, "iscrowd": 0, "segmentation": outline}
    for split in ("train", "val"):
        (tmp_path / f"pictures/{split}").mkdir(parents=True)
        (tmp_path / "pictures/annotations").mkdir(exist_ok=True)
        files = [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64 + i} for i in range(1, 3)]
        for file in files:
            Image.effect_noise((file["width"], 48), 50).save(tmp_path / f"pictures/{split}" / file["file_name"])
        things = [thing | {"id": file["id"], "image_id": file["id"]} for file in files]
        content = {"images": files, "annotations": things, "categories": [{"id": 7, "name": "slab"}]}
        (tmp_path / f"pictures/annotations/instances_{split}.json").write_text(json.dumps(content))
    network = resnet50()
    for block in (block for block in network.modules() if isinstance(block, Bottleneck)):
        nn.init.zeros_(block.bn3.weight)  # or random layers without trained statistics would blow the features up
    torch.save(network.state_dict(), tmp_path / "resnet50.pth")
    code, out, err = run_here(
        *("model=r50_c4", f"model.weights={tmp_path}/resnet50.pth", "model.rois_per_image=8", "model.proposals=8"),
        *("data=coco", f"data.root={tmp_path}/pictures", "data.image_size=64", f"outputs={tmp_path / 'outputs'}"),
        *("budget=finetune", "budget.rpn.steps=2", "budget.train.steps=2", "precision=float32"),
    )
    assert code == 0, out + err
    assert "AP75" in out and "mask" in out
    folder = Path(out.rpartition("files: ")[2].strip())
    assert (folder / "picture.png").is_file()
    path = folder / "run.json"
    record = json.loads(path.read_text())
    assert record["data"]["classes"] == ["slab"] and record["data"]["num_val"] == 2
    assert record["metrics"]["segm"]["AP"] is not None and record["losses"]["mask"] > 0


def test_mistakes_are_told_in_a_line_each_and_nothing_is_begun(tmp_path):
    """One whole program; test_cli.py has the mistakes."""
    done = run("stride=8", "rpn=none", f"outputs={tmp_path / 'new'}")
    assert done.returncode == 2 and done.stdout == ""
    assert [line.partition(": expected")[0] for line in done.stderr.splitlines()] == ["error: rpn", "error: stride"]
    assert not (tmp_path / "new").exists()


@on_the_study
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_killing_a_study_ends_its_workers_and_loses_nothing(study, tmp_path):
    """A short version of tests/torture.py: killed within a stage and within a run, a study ends as if undisturbed."""
    arguments = ["study=roialign", "study.exhibits=[]", *TINY, "budget.seeds=1", "checkpoint.steps=1", "workers=1"]
    arguments += ["snapshots=true"]  # as in `study`, whose exhibits ask for them
    process = torture.start(arguments, tmp_path)
    assert torture.kill_when(process, lambda: any(tmp_path.glob("stages/.partial-*/checkpoint.safetensors")))

    def within_the_third_run() -> bool:
        return len(torture.records(tmp_path)) >= 2 and any(tmp_path.glob("roialign/*/*/checkpoint.safetensors"))

    process = torture.start(arguments, tmp_path)
    while not within_the_third_run():
        assert process.poll() is None
        time.sleep(0.01)
    workers = children(process.pid)
    process.kill()  # only this process: its workers end by themselves
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)

    before = torture.records(tmp_path)
    assert torture.start(arguments, tmp_path).wait() == 0
    after = torture.records(tmp_path)
    assert len(before) >= 2 and all(after[path] == before[path] for path in before)
    resumed = [path for path in after if json.loads(path.read_text())["provenance"]["resumed"]]
    assert resumed and not set(resumed) & set(before)
    expected = tmp_path / "expected"  # `study`, without the seed that this one does not have
    shutil.copytree(study[0] / "roialign", expected / "roialign", ignore=shutil.ignore_patterns("seed1"))
    assert torture.differences(tmp_path, expected) == []


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]
