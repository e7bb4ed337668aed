"""Every study composes, and its arms differ in the declared factors only."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ablations.config.study import compose_study, declared, differences, single_run
from ablations.errors import ConfigError
from ablations.execution.command import cost
from ablations.records.schema import Floor

CONF = Path(__file__).parents[3] / "conf"
STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml") if path.stem != "none")


def composed_study(compose, name, *more):
    overrides = [f"study={name}", *more]
    return compose_study(compose(overrides), overrides, compose)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_arms_differ_in_the_declared_factors_only(compose, name):
    study, runs = composed_study(compose, name)
    arms = {run.arm: run.config for run in runs if run.config.seed == runs[0].config.seed}
    assert set(arms) == set(study.arms)
    changed = differences(arms)
    assert all(any(declared(key, [factor]) for key in changed) for factor in study.factors)
    assert all(declared(key, study.factors) for key in changed)
    assert len({config.hash() for config in arms.values()}) == len(arms)
    for arm in study.arms.values():
        assert set(arm.factors) <= set(study.factors)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_hypotheses_are_about_arms_that_exist_and_balance(compose, name):
    study, _ = composed_study(compose, name)
    assert study.hypotheses
    for hypothesis in study.hypotheses:
        assert set(hypothesis.contrast) <= set(study.arms)
        single = hypothesis.threshold or " - " in hypothesis.metric  # a level, or two measures of one arm
        assert (single and list(hypothesis.contrast.values()) == [1]) or sum(hypothesis.contrast.values()) == 0


def test_a_studys_stride_is_not_overwritten_by_the_default(compose):
    """`_self_` stands first in the defaults list: after the study, every arm would get stride 16."""
    _, runs = composed_study(compose, "roialign")
    assert {run.config.stride for run in runs if run.arm.endswith("32")} == {32}


def test_runs_go_seed_by_seed_and_all_arms_have_the_same_seeds(compose):
    study, runs = composed_study(compose, "roialign", "budget.seeds=3")
    assert [run.config.seed for run in runs] == [5] * 4 + [6] * 4 + [7] * 4
    assert len({run.folder for run in runs}) == 12


@pytest.mark.slow
def test_setting_what_the_study_varies_is_refused(compose):
    overrides = ["stride=32", "roi=pool", "roi.aligned=true", "seed=3"]
    with pytest.raises(ConfigError) as refused:
        composed_study(compose, "roialign", *overrides)
    assert set(overrides) <= {line.partition(":")[0] for line in str(refused.value).splitlines()}
    with pytest.raises(ConfigError, match=r"budget\.train\.lr=0\.1"):
        composed_study(compose, "maskhead", "budget.train.lr=0.1")
    composed_study(compose, "maskhead", "budget.train.steps=2")


def test_an_undeclared_difference_is_refused(compose):
    composed = compose(["study=roialign"])
    composed.study.arms["pool-16"].overrides.append("budget.log_every=3")
    with pytest.raises(ConfigError, match=r"expected arms that differ in .*, got also \['budget.log_every'\]"):
        compose_study(composed, [], compose)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda study: study.hypotheses[0].update(treshold=3), "no such setting; did you mean .*threshold"),
        (lambda study: study.arms["pool-16"].update(pape={}), "no such setting; did you mean .*paper"),
        (lambda study: study.update(arms={}), "study.arms: expected a group of settings, with 1 or more entries, got"),
        (lambda study: study.update(exibits=[]), "study.exibits: no such setting; did you mean study.exhibits"),
        (lambda study: study.hypotheses[0].update(direction="equal"), "margin: expected points, more than 0"),
        (lambda study: study.hypotheses[0].update(margin=2.0), "margin: expected direction: equal"),
        (lambda study: study.hypotheses[0].update(contrast={"pol-16": 1.0}), "names unknown arms"),
    ],
)
def test_a_study_with_a_mistake_is_refused(compose, change, expected):
    composed = compose(["study=roialign"])
    OmegaConf.set_struct(composed, False)
    change(composed.study)
    with pytest.raises(ConfigError, match=expected):
        compose_study(composed, [], compose)


def test_all_mistakes_of_a_study_are_told_at_once(compose):
    composed = compose(["study=roialign"])
    OmegaConf.set_struct(composed, False)
    composed.study.hypotheses[0].margin = 2.0
    composed.study.arms["pool-16"].overrides.append("budget.log_every=3")
    with pytest.raises(ConfigError) as error:
        compose_study(composed, ["seed=1", "jitter.share=0.1"], compose)
    lines = str(error.value).splitlines()
    assert len(lines) == 4, lines


@pytest.mark.parametrize(
    "study, floor, expected",
    [
        ("roialign", {"arm": "align", "margin": 10}, "study.floor.arm: expected one of .* align-16, .* got align"),
        (
            "multitask",
            {"arm": "faster-align", "margin": 10},
            "study.floor.arm: expected one of .*with masks, mask-align",
        ),
        (
            "roialign",
            {"arm": "align-16", "margin": 0},
            "study.floor.margin: expected a number, more than 0 and less than 100, got 0",
        ),
        ("roialign", {"arm": "align-16"}, "study.floor.margin: missing"),
        (
            "roialign",
            {"arm": "align-16", "margin": "ten"},
            "study.floor.margin: expected a number, more than 0 and less than 100, got ten",
        ),
        (
            "roialign",
            {"arm": "align-16", "margin": 10, "figure": "AP"},
            "study.floor.figure: expected one of IoU, IoU_96_px_and_more, got AP",
        ),
        ("roialign", {"arm": "align-16", "margin": 10, "metric": "AP"}, "study.floor.metric: no such setting"),
    ],
)
def test_a_floor_names_an_arm_with_masks_and_a_margin(compose, study, floor, expected):
    composed = compose([f"study={study}"])
    OmegaConf.set_struct(composed, False)
    composed.study.floor = floor
    with pytest.raises(ConfigError, match=expected):
        compose_study(composed, [f"study={study}"], compose)
    composed.study.floor = {"arm": list(composed.study.arms)[-1], "margin": 10}
    assert compose_study(composed, [f"study={study}"], compose)[0].floor == Floor(list(composed.study.arms)[-1], 10)


def test_a_study_whose_exhibits_run_networks_on_images_refuses_one_that_takes_maps(compose, tmp_path):
    (tmp_path / "weights.pth").touch()
    frozen = ["model=r50_frozen", f"model.weights={tmp_path / 'weights.pth'}"]
    composed_study(compose, "misalignment", *frozen)
    with pytest.raises(ConfigError, match=r"model.freeze: expected a number of stages in study maskclass"):
        composed_study(compose, "maskclass", *frozen)


def test_a_single_run_is_named_by_what_it_sets(compose):
    overrides = ["stride=32", "roi=pool", "seed=3", "outputs=/tmp/x"]
    run = single_run(compose(overrides), overrides)
    assert run.folder == Path("/tmp/x/single/roi=pool,stride=32/seed3")
    assert single_run(compose([]), []).arm == "default"
    # What has no effect on the result does not name it, or the same command with it would not find the run.
    assert single_run(compose(["threads=2"]), ["threads=2", "compile=true"]).arm == "default"
    # Or `force` would name another folder instead of replacing what is in this one.
    assert single_run(compose(["force=true", "stride=32"]), ["force=true", "stride=32"]).arm == "stride=32"


def test_a_single_run_that_sets_much_still_gets_a_name_that_a_folder_can_have(compose):
    much = [f"model.anchor_sizes=[{', '.join(['16'] * count)}]" for count in (100, 101)]
    names = {single_run(compose([override]), [override]).arm for override in much}
    assert len(names) == 2 and all(len(name) < 255 for name in names)


def test_make_knows_every_study():
    text = (CONF.parent / "Makefile").read_text(encoding="utf-8")
    listed = [name for line in text.splitlines() if "STUDIES :=" in line for name in line.split()[2:]]
    elsewhere = {"photos", "photos_objects", "real", "taste"}  # which need a folder, or have another name there
    assert sorted(listed) == sorted(set(STUDIES) - elsewhere)
    assert all(f"\nablation-{name}: ## " in text for name in listed)


def test_the_papers_own_setting_composes_for_a_coco_folder(compose, tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / f"annotations/instances_{split}.json").write_text("{}")
    weights = tmp_path / "resnet50.pth"
    weights.touch()
    more = ["model=r50", f"model.weights={weights}", "data=coco", f"data.root={tmp_path}", "budget=paper"]
    _, runs = composed_study(compose, "roialign", *more, "budget.train.images_per_step=4")
    arms = {(run.config.roi.op, run.config.stride) for run in runs}
    assert arms == {("pool", 16), ("align", 16), ("pool", 32), ("align", 32)}
    train = runs[0].config.budget.train
    assert (train.steps, train.lr) == (640_000, pytest.approx(0.005)) and runs[0].config.data.num_train is None
    assert cost(runs) == "12 runs x 640,000 steps x 4 images, 30,720,000 images to train on"
