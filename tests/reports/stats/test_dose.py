"""Doses of rounding: displacement and mask AP lost, of a study's own arms and of those beside it."""

import json
import re
import shutil

import numpy as np
import pytest

from reports.load import read_study
from reports.stats.dose import doses
from tests.damage import edit_record
from tests.reports.rounding import LOST, write_rounding


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("rounding")
    write_rounding(root)
    return root


@pytest.fixture(scope="module")
def found(root):
    return doses(read_study(root, "misalignment"))


def test_an_arm_loses_what_it_is_behind_the_unrounded_one_of_its_backbone(found):
    own = {(item.stride, item.step): item for item in found if item.op == "align"}
    assert list(own) == [(stride, step) for stride in (16, 32) for step in (8, 16, 32)]
    for (stride, step), item in own.items():
        assert item.lost.mean == pytest.approx(LOST[step] / (stride // 16) + 0.1)  # over seeds 0, 1 and 2
        assert item.lost.low < item.lost.mean < item.lost.high and item.study == "" and item.on_curve


def test_the_displacement_grows_with_the_step_and_hardly_depends_on_the_stride(found):
    own = {(item.stride, item.step): item.pixels for item in found if item.op == "align"}
    for stride in (16, 32):
        assert 0 < own[stride, 8] < own[stride, 16] < own[stride, 32] < 32
    assert own[16, 16] == pytest.approx(own[32, 16], rel=0.3)


def test_the_share_is_of_each_objects_side(root):
    """One square of 40 px whose corner stands at 10: rounded to 8 px, it moves by 2 px along both axes."""
    folder = root / "square"
    shutil.copytree(root / "misalignment", folder / "misalignment")
    path = folder / "misalignment/ground_truth.json"
    truth = json.loads(path.read_text())
    truth["annotations"] = [truth["annotations"][0] | {"bbox": [10, 10, 40, 40]}]
    path.write_text(json.dumps(truth))
    [dose] = [item for item in doses(read_study(folder, "misalignment")) if (item.stride, item.step) == (16, 8)]
    assert dose.pixels == pytest.approx(2 * 2**0.5) and dose.share == pytest.approx(100 * dose.pixels / 40)


def photo_like(root, folder):
    """The study with masks on true boxes and a claim about large objects, and an arm of RoIWarp for the step of 16."""
    shutil.copytree(root / "misalignment", folder / "misalignment")
    metric = "true_boxes.IoU_96_px_and_more"

    def ask(record):
        record["hypotheses"][0]["metric"] = metric

    edit_record(folder / "misalignment/study.json", ask)
    path = folder / "misalignment/ground_truth.json"
    truth = json.loads(path.read_text())
    boxes = [10, 10, 40, 40], [12, 12, 104, 104]
    truth["annotations"] = [truth["annotations"][index] | {"bbox": box} for index, box in enumerate(boxes)]
    path.write_text(json.dumps(truth))
    for path in (folder / "misalignment").glob("*/seed*/run.json"):
        step, seed = (int(re.sub("[a-z]*", "", name.partition("-")[0])) for name in path.parts[-3:-1])

        def measure(record, step=step, seed=seed):
            record["metrics"]["true_boxes"] = {"IoU_96_px_and_more": 60.0 - step / 8 - 0.1 * seed * (step > 0)}
            if step == record["config"]["stride"] == 16:
                record["config"]["roi"] |= {"op": "warp", "step": 0}

        edit_record(path, measure)
    return read_study(folder, "misalignment")


def test_the_loss_is_of_the_primary_metric_and_the_objects_that_it_is_about(root, tmp_path):
    study = photo_like(root, tmp_path)
    found = {(item.stride, item.step): item for item in doses(study)}
    assert found[16, 32].lost.mean == pytest.approx(4.1) and found[16, 32].metric == "true_boxes.IoU_96_px_and_more"
    # Of the larger object alone, whose corners stand halfway between multiples of 8.
    assert found[16, 8].pixels == pytest.approx(4 * 2**0.5) and found[16, 8].share == pytest.approx(400 * 2**0.5 / 104)


def test_roi_warp_is_the_rounding_step_of_its_stride(root, tmp_path):
    curve = {item.step: item for item in doses(photo_like(root, tmp_path)) if item.stride == 16 and item.on_curve}
    assert {step: item.op for step, item in curve.items()} == {8: "align", 16: "warp", 32: "align"}
    assert [curve[step].lost.mean for step in (8, 16, 32)] == pytest.approx([1.1, 2.1, 4.1])


def test_without_objects_of_the_size_there_are_none(root, tmp_path):
    study = photo_like(root, tmp_path)
    shutil.copyfile(root / "misalignment/ground_truth.json", study.folder / "ground_truth.json")  # up to 96 px
    assert doses(read_study(tmp_path, "misalignment")) == []


def test_roi_pool_comes_from_the_study_beside_it(root, found):
    beside = [item for item in found if item.op == "pool"]
    assert [(item.stride, item.study, item.same_net) for item in beside] == [
        (16, "roialign", True),
        (32, "roialign", True),
    ]
    study = read_study(root, "roialign")
    behind = [study.value("align16", seed, "segm.AP") - study.value("pool16", seed, "segm.AP") for seed in range(3)]
    assert beside[0].lost.mean == pytest.approx(np.mean(behind))


def test_other_backbones_are_left_out_and_other_heads_named(root, tmp_path):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "roialign").glob("*/seed*/run.json"):
        if path.parent.parent.name.endswith("16"):
            edit_record(path, lambda record: record["stages"].update(backbone="another"))
        else:
            edit_record(path, lambda record: record["config"]["model"].update(head="another"))
    beside = [item for item in doses(read_study(tmp_path, "misalignment")) if item.op == "pool"]
    assert [(item.stride, item.same_net) for item in beside] == [(32, False)]


def test_studies_without_a_step_or_without_ground_truth_have_none(root, tmp_path):
    assert doses(read_study(root, "roialign")) == []
    folder = write_rounding(tmp_path, seeds=1)
    (folder / "ground_truth.json").unlink()
    assert [item.study for item in doses(read_study(tmp_path, "misalignment"))] == ["roialign"] * 2
    shutil.rmtree(tmp_path / "roialign")
    assert doses(read_study(tmp_path, "misalignment")) == []
