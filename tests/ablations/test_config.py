"""Bad settings are refused before any work, and the message says what would be good."""

import pytest
from hydra.errors import HydraException

from ablations.config import ConfigError, from_hydra


def test_defaults_are_typed_and_valid(compose):
    config = from_hydra(compose([]))
    assert (config.roi.op, config.stride, config.mask_loss.kind) == ("align", 16, "sigmoid")
    assert config.data.num_train == config.budget.train_images


@pytest.mark.parametrize(
    "override, expected",
    [
        ("stride=8", "16, 32"),
        ("stride=abc", "stride"),
        ("seed=-1", "0 or more"),
        ("device=tpu", "'cuda'"),
        ("rpn=none", "'separate'"),
        ("roi.op=crop", "'align'"),
        ("roi.sampling_ratio=-2", "0 (adaptive) or more"),
        ("+roi.aligend=true", "aligned"),
        ("budget.train.steps=0", "more than 0"),
        ("budget.train.lr=fast", "budget.train.lr"),
        ("budget.seeds=0", "1 or more"),
        ("model.rois_per_image=1000", "at most model.proposals"),
        ("model.positive_fraction=1.5", "(0, 1)"),
        ("model.channels=[8,16]", "four"),
        ("model.freeze=9", "0 to 3"),
        ("data.image_side=100", "multiple of 32"),
        ("data.kind=voc", "shapes, coco"),
        ("workers=0", "1 or more"),
        ("mask_head.depth=-1", "depth >= 0"),
    ],
)
def test_a_bad_value_is_refused_with_the_good_ones(compose, override, expected):
    with pytest.raises(ConfigError) as error:
        from_hydra(compose([override]))
    assert expected in str(error.value)


@pytest.mark.parametrize("overrides", [["roi=pool", "roi.reduce=ave"], ["roi=pool", "roi.aligned=true"]])
def test_contradictions_are_refused_with_the_reason(compose, overrides):
    with pytest.raises(ConfigError, match="RoI"):
        from_hydra(compose(overrides))


def test_unknown_options_of_a_group_are_listed(compose):
    with pytest.raises(HydraException, match=r"(?s)roi/pol.*align.*pool.*warp"):
        compose(["roi=pol"])


def test_the_precision_is_decided_before_the_run_is_named(compose):
    resolved = from_hydra(compose([])).precision
    assert resolved in ("float32", "bfloat16")
    assert from_hydra(compose([f"precision={resolved}"])).hash() == from_hydra(compose([])).hash()
    assert from_hydra(compose(["precision=float32"])).hash() != from_hydra(compose(["precision=bfloat16"])).hash()


def test_the_hash_knows_what_decides_the_result_and_nothing_else(compose):
    base = from_hydra(compose([])).hash()
    for harmless in ("outputs=/elsewhere", "workers=3", "threads=2", "logger=wandb", "device=cpu"):
        assert from_hydra(compose([harmless])).hash() == base
    for decisive in ("stride=32", "seed=1", "roi=pool", "budget.train.steps=7", "data.noise=1", "mask_loss=softmax"):
        assert from_hydra(compose([decisive])).hash() != base
