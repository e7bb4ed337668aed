"""The whole pipeline as a user runs it, tiny: a study, its report, doing nothing twice, and mistakes."""

import json
import os
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

from tests import torture

ROOT = Path(__file__).parent.parent
TINY = ["budget=smoke", "budget.train_images=16", "budget.val_images=6", "budget.train.steps=3"]


SECRET = "a-key-that-nobody-else-must-see-0123456789"


def run(*arguments, module=None):
    command = [sys.executable, *(["-m", module] if module else ["run.py"]), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_API_KEY": SECRET}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    return outputs, run("study=roialign", *TINY, f"outputs={outputs}")


def test_a_study_leaves_a_record_of_every_run(study):
    outputs, done = study
    assert done.returncode == 0, done.stdout + done.stderr
    records = sorted(outputs.glob("roialign/*/seed*/run.json"))
    assert len(records) == 8
    for path in records:
        record = json.loads(path.read_text())
        assert record["metrics"]["segm"].keys() >= {"AP", "AP50", "AP75"}
        assert record["metrics"]["overlap"].keys() >= {"AP_none", "AP_some", "AP_much", "leakage", "seams"}
        for name in ("config.yaml", "metrics.jsonl", "detections.json", "model.safetensors", "log.txt"):
            assert (path.parent / name).stat().st_size > 0
    assert "run 8 of 8" in done.stdout
    written = [path for path in outputs.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()] and SECRET not in done.stdout


def test_the_report_is_written_from_the_records(study, tmp_path):
    outputs, _ = study
    done = run("roialign", "--outputs", str(outputs), "--out", str(tmp_path), module="reports")
    assert done.returncode == 0, done.stderr
    assert "RoIAlign" in (tmp_path / "roialign/report.md").read_text()
    page = (tmp_path / "roialign/report.html").read_text()
    assert 'src="http' not in page and "data:image/png" in page


def test_a_packed_study_gives_somebody_else_the_same_report(study, tmp_path):
    outputs, _ = study
    archive, others = tmp_path / "study.zip", tmp_path / "others"
    done = run("roialign", "--outputs", str(outputs), "--out", str(archive), module="ablations.export")
    assert done.returncode == 0, done.stderr
    done = run("--unpack", str(archive), "--outputs", str(others), module="ablations.export")
    assert done.returncode == 0, done.stderr
    done = run("roialign", "--outputs", str(others), "--out", str(tmp_path / "again"), module="reports")
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again/roialign"
    with zipfile.ZipFile(archive) as packed:
        prefix = "roialign/report/"
        names = {name.removeprefix(prefix) for name in packed.namelist() if name.startswith(prefix)}
        found = {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()}
        assert len(names) > 5 and found == names
        for name in names:
            assert packed.read(prefix + name) == (again / name).read_bytes(), name
    # The packed pages stay in the archive: nobody opens another's HTML by accident.
    assert not list(others.rglob("*.safetensors")) and not (others / "roialign/report").exists()


def test_finished_runs_are_not_done_again_and_a_lost_one_comes_back_the_same(study):
    outputs, _ = study
    lost = outputs / "roialign/align-16/seed1/run.json"
    before, kept = torture.timeless(lost), outputs / "roialign/pool-16/seed1/run.json"
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    again = run("study=roialign", *TINY, f"outputs={outputs}")
    assert again.returncode == 0, again.stderr
    assert "7 of 8 runs are done already" in again.stdout
    assert kept.stat().st_mtime_ns == stamp
    assert torture.timeless(lost) == before


def same_files(run_folder: Path, other: Path) -> bool:
    """Whether two runs left the same bytes, their records (compared without times) aside."""
    names = ("config.yaml", "metrics.jsonl", "detections.json", "model.safetensors")
    return all((run_folder / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_ray_gives_the_same_records(study, tmp_path, monkeypatch):
    """On a cluster of its own; Hydra's spelling of launcher=ray means the same."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")  # not one that happens to run on this machine
    outputs, _ = study
    folder = tmp_path / "ray"
    done = run("study=roialign", "hydra/launcher=ray", *TINY, "budget.seeds=1", f"outputs={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "launcher ray" in done.stdout
    records = list(folder.glob("roialign/*/seed*/run.json"))
    assert len(records) == 4
    for path in records:
        local = outputs / path.relative_to(folder)
        assert torture.timeless(path) == torture.timeless(local) and same_files(path.parent, local.parent)


def test_submitit_gives_the_same_records(study, tmp_path):
    """With its executor for this machine, which starts a process for each task as Slurm would."""
    pytest.importorskip("submitit")
    outputs, _ = study
    done = run("roi=pool", "launcher=submitit", "launcher.cluster=local", *TINY, f"outputs={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("single/*/seed0/run.json")
    local = outputs / "roialign/pool-16/seed0/run.json"
    of_the_arm = {"study": "roialign", "arm": "pool-16"}
    assert torture.timeless(path) | of_the_arm == torture.timeless(local) and same_files(path.parent, local.parent)


def test_a_resnet_is_fine_tuned_on_a_folder_of_pictures(tmp_path):
    """From a file of weights to a record."""
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
    done = run(
        *("model=r50_c4", f"model.weights={tmp_path}/resnet50.pth", "model.rois_per_image=8", "model.proposals=8"),
        *("data=coco", f"data.root={tmp_path}/pictures", "data.image_size=64", f"outputs={tmp_path / 'outputs'}"),
        *("budget=finetune", "budget.rpn.steps=2", "budget.train.steps=2", "precision=float32"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("outputs/single/*/seed0/run.json")
    record = json.loads(path.read_text())
    assert record["data"]["classes"] == ["slab"] and record["data"]["num_val"] == 2
    assert record["metrics"]["segm"]["AP"] is not None and record["losses"]["mask"] > 0


def test_a_single_run_prints_its_table_and_where_its_files_are(study):
    outputs, _ = study
    done = run("roi=pool", "stride=32", *TINY, f"outputs={outputs}")
    assert done.returncode == 0, done.stderr
    assert "AP75" in done.stdout and "mask" in done.stdout
    folder = Path(done.stdout.rpartition("files: ")[2].strip())
    assert json.loads((folder / "run.json").read_text())["config"]["stride"] == 32


def test_an_arm_that_another_study_has_finished_is_taken_over(study):
    outputs, _ = study
    done = run("study=maskclass", *TINY, f"outputs={outputs}")
    assert done.returncode == 0, done.stdout + done.stderr
    made, taken = outputs / "roialign/align-16/seed1", outputs / "maskclass/specific/seed1"
    assert "specific seed 1: reusing roialign/align-16" in done.stdout
    assert torture.timeless(taken / "run.json") == torture.timeless(made / "run.json") | {
        "study": "maskclass",
        "arm": "specific",
        "taken_from": "roialign/align-16",
    }
    for name in ("detections.json", "model.safetensors", "metrics.jsonl", "config.yaml"):
        assert (taken / name).read_bytes() == (made / name).read_bytes()
    assert not json.loads((outputs / "maskclass/agnostic/seed1/run.json").read_text())["taken_from"]


def test_joint_training_faster_rcnn_and_fcis_run_too(study):
    outputs, _ = study
    for extra in ("rpn=joint", "mask_head=none", "system=fcis"):
        done = run(extra, *TINY, f"outputs={outputs}")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["stride=8"], "16, 32"),
        (["roi=pol"], "pool"),
        (["study=roialign", "stride=32"], "varies stride itself"),
        (["data=coco", "data.root=/nowhere"], "no such folder"),
        (["outputs=/proc/nothing"], "can be written"),
        (["nonsense=1"], "nonsense"),
    ],
)
def test_a_mistake_gets_one_clear_message(arguments, expected):
    done = run(*arguments)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_loss_that_is_not_finite_fails_the_run_but_not_the_command_line(study):
    outputs, _ = study
    done = run(*TINY, "budget.train.lr=1e30", f"outputs={outputs}")
    assert done.returncode == 1
    assert "expected finite losses" in done.stdout and "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_killing_a_study_ends_its_workers_and_loses_nothing(study, tmp_path):
    """The short version of tests/torture.py: killed within a stage and within a run, it ends as if left in peace."""
    command = ["study=roialign", *TINY, "budget.seeds=1", "checkpoint.steps=1"]
    process = torture.start(command, tmp_path)
    assert torture.kill_when(process, lambda: any(tmp_path.glob("stages/.partial-*/checkpoint.safetensors")))

    def within_the_third_run() -> bool:
        return len(torture.records(tmp_path)) >= 2 and any(tmp_path.glob("roialign/*/*/checkpoint.safetensors"))

    process = torture.start(command, tmp_path)
    while not within_the_third_run():
        assert process.poll() is None
        time.sleep(0.01)
    workers = children(process.pid)
    process.kill()  # this process alone: its workers end by themselves
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)

    before = torture.records(tmp_path)
    assert torture.start(command, tmp_path).wait() == 0
    after = torture.records(tmp_path)
    assert len(before) >= 2 and all(after[path] == before[path] for path in before)
    resumed = [path for path in after if json.loads(path.read_text())["provenance"]["resumed"]]
    assert resumed and not set(resumed) & set(before)
    expected = tmp_path / "expected"  # of `study`, without what other tests have put beside it
    shutil.copytree(study[0] / "roialign", expected / "roialign", ignore=shutil.ignore_patterns("seed1"))
    assert torture.differences(tmp_path, expected) == []


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]
