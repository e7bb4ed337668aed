"""Bad settings are refused before any work, and the message says what would be good."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ablations.config.loading import from_hydra, from_settings
from ablations.config.schema import SCHEDULES, ScheduleConfig
from ablations.config.unused_settings import unused_settings
from ablations.errors import ConfigError
from ablations.stages.store import Stages
from data.specs import CocoSpec, ShapesSpec
from models.config import FCISConfig, MaskRCNNConfig, ResNetConfig, ToyConfig

CONF = Path(__file__).parents[3] / "conf"
MASK_HEADS = ("fcn", "mlp", "mlp3")


def test_defaults_are_typed_and_valid(compose):
    config = from_hydra(compose([]))
    assert (config.roi.op, config.stride, config.mask_loss.kind) == ("align", 16, "sigmoid")
    assert config.data.num_train == config.budget.train_images


@pytest.mark.parametrize(
    "override, expected",
    [
        ("stride=8", "16 or 32"),
        ("stride=abc", "stride"),
        ("seed=-1", "0 or more"),
        ("device=tpu", "one of auto, cpu, cuda"),
        ("rpn=none", "one of separate, joint"),
        ("roi.op=crop", "one of pool, warp, align"),
        ("roi.sampling_ratio=-2", "0 or more"),
        ("+roi.aligend=true", "roi.aligend: no such setting; did you mean roi.aligned?"),
        ("+lr=0.1", "lr: no such setting; did you mean budget.train.lr or budget.rpn.lr?"),
        ("budget.train.steps=0", "1 or more"),
        ("budget.train.lr=0", "more than 0"),
        ("budget.train.lr=nan", "a number"),
        ("budget.train.lr=fast", "budget.train.lr"),
        ("budget.seeds=0", "1 or more"),
        ("model.rois_per_image=1000", "at most model.proposals"),
        ("model.positive_fraction=1.5", "more than 0 and less than 1"),
        ("model.channels=[8,16]", "a list of 4 whole numbers"),
        ("model.freeze=9", "0 to 3"),
        ("data.image_side=100", "multiple of 32"),
        ("data.kind=voc", "data.kind: expected one of coco, collage, shapes, got voc"),
        ("workers=0", "1 or more"),
        ("mask_head.depth=-1", "0 or more"),
        ("roi.backend=gpu", "triton"),
        ("model.nms_threshold=2", "0 or more and at most 1"),
        ("model.mask_pooled_size=0", "1 or more, or null"),
        ("model.box_depth=0", "1 or more"),
        ("model.anchor_sizes=[]", "1 or more numbers, more than 0"),
        ("seed=true", "a whole number"),
        ("outputs=", "outputs: expected text, 1 or more characters"),
        ("+data.num_train=5", "data.num_train: no such setting; set budget.train_images"),
    ],
)
def test_a_bad_value_is_refused_with_the_good_ones(compose, override, expected):
    with pytest.raises(ConfigError) as error:
        from_hydra(compose([override]))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "overrides, reason",
    [
        (["roi=pool", "roi.reduce=ave"], "RoIPool is a maximum"),
        (["roi=pool", "roi.aligned=true"], "only RoIAlign"),
        (["mask_head=mlp", "mask_head.depth=0"], "1 or more for mlp"),
        (["mask_head=none", "mask_loss=softmax"], "without a mask branch"),
        (["mask_head=none", "mask_head.channels=8"], "without a mask branch"),
        (["roi=pool", "roi.sampling_ratio=2"], "roi.sampling_ratio: expected 0, got 2: RoIPool .* no samples"),
        (["system=fcis", "roi=pool"], "position-sensitive pooling"),
        (["system=fcis", "roi.sampling_ratio=0"], "position-sensitive pooling"),
        (["system=fcis", "mask_loss=softmax"], "inside against outside"),
        (["system=fcis", "mask_class=agnostic"], "tell the classes apart"),
        (["system=fcis", "mask_head=none"], "reads masks from its score maps"),
        (["system=fcis", "mask_head.channels=8"], "reads masks from its score maps"),
        (["system=fcis", "system.cells=20"], "multiple of system.parts = 7"),
        (["system=fcis", "system.vote_threshold=0"], "more than 0"),
        (["system=fcis", "system.parts=many"], r"system\.parts: expected a whole number"),
        (["model=toy_fpn_head", "model.shared_depth=2"], "shares nothing"),
        (["model=r50_c4", "stride=32"], "share res5 behind C4 only"),
        (["model=r50_fpn", "model.mask_pooled_size=null"], "share res5 behind C4 only"),
        (["model=r50_c5", "model.res5_stride=2"], "share no res5"),
        (["model=r50_c4", "model.res5_stride=2"], "multiple of res5_stride = 2"),
        (["model=r50_fpn", "stride=16"], "expected 4 for this model"),
        (["model=toy", "stride=4"], "expected 16 or 32 for this model"),
        (["model=r50_fpn", "model.anchor_sizes=[32,64]"], "one for each of P2 to P6"),
        (["model=r50_c4", "model.weights=/nowhere.pth"], "expected imagenet, or a file"),
        (["model=r50_c4", "model.depth=34"], "model.depth"),
        (["model=r50_c4", "+model.channels=[1,2,3,4]"], "model.channels: no such setting"),
        (["model=r50_fpn", "system=fcis"], "not on a pyramid"),
    ],
)
def test_contradictions_are_refused_with_the_reason(compose, overrides, reason):
    with pytest.raises(ConfigError, match=reason):
        from_hydra(compose(overrides))


def test_all_mistakes_are_reported_at_once_one_line_each(compose):
    """Of types, of limits, and of groups together, even where another group is wrong."""
    wrong = ["seed=-1", "stride=8", "roi.op=crop", "budget.train.lr=0", "workers=0", "system=fcis", "system.cells=20"]
    with pytest.raises(ConfigError) as error:
        from_hydra(compose(wrong))
    told = {line.partition(":")[0] for line in str(error.value).splitlines()}
    assert told == {override.partition("=")[0] for override in wrong} - {"system"}
    assert all("expected" in line and "got" in line for line in str(error.value).splitlines())


@pytest.mark.parametrize("overrides", [[], ["system=fcis"], ["budget=gpu", "model=toy_fpn_head"]])
def test_settings_give_the_configuration_back(compose, overrides):
    config = from_hydra(compose(overrides))
    kept = json.loads(json.dumps(config.settings()))
    assert from_settings(kept).hash() == config.hash() and kept["data"]["kind"] == "shapes"
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("data, kind", [({"root": "somewhere"}, CocoSpec), ({"image_side": 128}, ShapesSpec)])
def test_older_settings_that_lack_the_kind_of_data_are_read(compose, data, kind):
    settings = from_hydra(compose([])).settings() | {"data": data}
    assert isinstance(from_settings(settings).data, kind)


def test_files_that_hold_no_settings_are_refused():
    for content in (None, [], {}, {"budget": 3, "data": {}}, {"budget": {}, "data": {}}):
        with pytest.raises(ConfigError):
            from_settings(content)


def test_the_files_and_the_dataclasses_agree_on_the_defaults(compose):
    config = from_hydra(compose([]))
    assert config.model == ToyConfig()
    assert config.system == MaskRCNNConfig()
    assert from_hydra(compose(["system=fcis"])).system == FCISConfig()
    assert dataclasses.replace(config.data, num_train=1, num_val=1) == ShapesSpec(num_train=1, num_val=1)


def test_separate_heads_use_the_same_stages(compose):
    shared, separate = (from_hydra(compose([f"model={name}"])) for name in ("toy", "toy_fpn_head"))
    assert shared.hash() != separate.hash()
    assert Stages(Path("outputs"), shared).keys == Stages(Path("outputs"), separate).keys


def test_a_mask_heads_width_and_depth_come_from_the_model(compose):
    heads = {name: from_hydra(compose(["model=toy_fpn_head", f"mask_head={name}"])).mask_head for name in MASK_HEADS}
    assert (heads["fcn"].depth, heads["mlp"].depth, heads["mlp3"].depth) == (4, 2, 3)
    assert heads["mlp"].channels == heads["mlp3"].channels == 4 * heads["fcn"].channels  # as in the paper


@pytest.mark.parametrize("depth", ["r50", "r101"])
def test_resnets_come_with_the_stride_of_their_map(compose, depth):
    made = {name: from_hydra(compose([f"model={depth}_{name}"])) for name in ("c4", "c5", "fpn")}
    assert {name: config.stride for name, config in made.items()} == {"c4": 16, "c5": 32, "fpn": 4}
    assert all(config.model.depth == int(depth[1:]) for config in made.values())
    keys = [Stages(Path("outputs"), config).keys for config in made.values()]
    assert len({key["backbone"] for key in keys}) == 1  # ImageNet's weights are the same for all three
    assert len({key["rpn"] for key in keys}) == 3
    assert from_hydra(compose(["model=r50_c4"])).model == ResNetConfig()


def test_a_schedule_is_written_once_and_is_no_choice_of_a_group():
    schedule = set(OmegaConf.load(CONF / "_schedule.yaml"))
    assert schedule == {field.name for field in dataclasses.fields(ScheduleConfig)}
    for path in (CONF / "budget").glob("*.yaml"):
        assert not path.name.startswith("_")
        budget = OmegaConf.load(path)
        assert all(budget[name].keys() <= schedule for name in SCHEDULES if name in budget)


def test_the_precision_is_decided_before_the_run_is_named(compose):
    resolved = from_hydra(compose([])).precision
    assert resolved in ("float32", "bfloat16")
    assert from_hydra(compose([f"precision={resolved}"])).hash() == from_hydra(compose([])).hash()
    assert from_hydra(compose(["precision=float32"])).hash() != from_hydra(compose(["precision=bfloat16"])).hash()


@pytest.mark.slow
def test_the_hash_knows_what_decides_the_result_and_nothing_else(compose):
    base = from_hydra(compose([])).hash()
    for harmless in ("outputs=/elsewhere", "workers=3", "threads=2", "logger=wandb", "budget.seeds=9", "force=true"):
        assert from_hydra(compose([harmless])).hash() == base
    for decisive in ("stride=32", "seed=1", "roi=pool", "budget.train.steps=7", "data.noise=1", "mask_loss=softmax"):
        assert from_hydra(compose([decisive])).hash() != base


def test_stages_have_one_seed_for_all_runs_or_each_runs_own(compose):
    def keys(*overrides):
        return Stages(Path("stages"), from_hydra(compose(["model.weights=scratch", *overrides]))).keys

    assert keys("seed=1") == keys("seed=2")
    assert keys("seed=1", "stages.seed=null") == keys("seed=2", "stages.seed=1")
    for name in ("backbone", "rpn"):
        assert len({keys(f"seed={seed}", "stages.seed=null")[name] for seed in range(3)}) == 3


def test_a_seed_of_stages_that_nothing_draws_from_is_refused(compose):
    joint = from_hydra(compose(["rpn=joint", "stages.seed=1"]))
    assert unused_settings(joint, ["stages.seed"], study=False)
    assert not unused_settings(from_hydra(compose(["stages.seed=1"])), ["stages.seed"], study=False)
    scratch = from_hydra(compose(["rpn=joint", "model.weights=scratch", "stages.seed=1"]))
    assert not unused_settings(scratch, ["stages.seed"], study=False)


def test_both_systems_use_the_same_stages(compose):
    mask_rcnn, fcis = (from_hydra(compose([f"system={name}"])) for name in ("mask_rcnn", "fcis"))
    assert mask_rcnn.hash() != fcis.hash()
    assert Stages(Path("stages"), mask_rcnn).keys == Stages(Path("stages"), fcis).keys
