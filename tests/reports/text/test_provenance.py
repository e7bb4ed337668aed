"""What the runs were: what differs between arms, what made them, and what a reader must know first."""

import dataclasses

import pytest

from ablations.records.storage import UNPACKED
from reports.text import provenance
from tests.reports.text.hand_made import run, study

ALL = [(arm, seed) for arm in ("pool16", "align16", "pool32", "align32") for seed in (0, 1)]


def changed(changes: dict):
    """The study in which runs, by arm and seed, have other fields."""
    return study([run(*key, **changes.get(key, {})) for key in ALL])


def with_config(arm, seed, **settings):
    return {(arm, seed): {"config": run(arm, seed).config | settings}}


def with_git(arm, seed, **facts):
    record = run(arm, seed)
    return {(arm, seed): {"provenance": record.provenance | {"git": record.provenance["git"] | facts}}}


def test_settings_that_differ_belong_to_the_declared_factors():
    difference = provenance.config_difference(study())
    assert difference.undeclared == {} and provenance.warnings(study()) == []
    assert list(difference.declared) == ["roi.op", "roi.reduce", "roi.sampling_ratio", "stride"]
    assert difference.declared["roi.op"] == {"pool16": "pool", "align16": "align", "pool32": "pool", "align32": "align"}
    assert difference.same == 4  # model.pooled, model.channels, roi.aligned, mask_loss.name; the seed does not count
    lines = provenance.difference_table(study(), difference.declared).splitlines()
    assert (
        lines[0] == "| setting | RoIPool, stride 16 | RoIAlign, stride 16 | RoIPool, stride 32 | RoIAlign, stride 32 |"
    )
    assert lines[-1] == "| `stride` | 16 | 16 | 32 | 32 |"


def test_a_setting_that_no_factor_declares_is_a_warning():
    lone = changed(with_config("align16", 1, lr=0.02))
    assert provenance.config_difference(lone).undeclared == {
        "lr": {"pool16": "not set", "align16": "not set / 0.02", "pool32": "not set", "align32": "not set"}
    }
    assert provenance.warnings(lone) == [
        "The runs differ in more than the declared factors: `lr`. Their difference cannot be put down to `roi` and "
        "`stride` alone."
    ]


def test_a_factor_that_is_not_the_same_in_all_seeds_of_an_arm_is_not_declared():
    unsteady = changed(with_config("pool16", 1, stride=8))
    assert unsteady.record.factors == ["roi", "stride"]
    assert provenance.config_difference(unsteady).undeclared["stride"]["pool16"] == "16 / 8"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (with_git("pool32", 0, dirty=True), "Some runs used code with uncommitted changes"),
        (with_git("pool32", 0, commit="def5678"), "The runs used code of 2 different commits: abc1234 and def5678."),
        ({("pool16", 0): {"data": {"digest": "other"}}}, "did not use the same data: there are 2 different digests"),
    ],
)
def test_other_code_and_other_data_are_warnings(changes, expected):
    (warning,) = provenance.warnings(changed(changes))
    assert expected in warning


def test_a_smoke_test_and_a_refused_file_are_warnings():
    small = study(config={"budget": {"name": "smoke"}})
    small.refused["pool16/seed0/detections.json"] = "not <JSON>"
    first, second = provenance.warnings(small)
    assert first.startswith("This is a smoke test")
    assert second.startswith("The file `pool16/seed0/detections.json` cannot be used: not &lt;JSON&gt;.")


def test_facts_have_one_value_where_the_runs_agree():
    lines = provenance.provenance_table(changed(with_git("pool32", 0, commit="def5678"))).splitlines()
    assert "| git.commit | abc1234; def5678 |" in lines and "| machine.cores | 2 |" in lines
    assert "| finished | 2026-01-01T00:00:00Z to 2026-01-01T00:01:00Z |" in lines


def test_more_than_four_values_of_a_fact_are_counted():
    commits = [with_git(*key, commit=f"commit{number}") for number, key in enumerate(ALL[:5])]
    table = provenance.provenance_table(changed({key: value for part in commits for key, value in part.items()}))
    assert "| git.commit | 6 different values |" in table.splitlines()


def test_stages_are_listed_with_the_arms_that_use_them():
    lines = provenance.stage_table(study()).splitlines()
    assert "| backbone | `backbone-16` | RoIPool, stride 16; RoIAlign, stride 16 | 0, 1 |" in lines
    assert len(lines) == 2 + 4


def test_stages_of_their_own_for_each_seed_are_not_shared():
    assert provenance.shared_by_seeds(study()) == ["backbone", "rpn"]
    own = {key: {"stages": {"backbone": "one", "rpn": f"rpn-{key[1]}"}} for key in ALL}
    assert provenance.shared_by_seeds(changed(own)) == ["backbone"]


def test_runs_reused_from_another_study_are_named():
    taken = changed({("align16", seed): {"taken_from": "roiops/align-ave"} for seed in (0, 1)})
    assert provenance.reused(study()) == []
    assert provenance.reused(taken) == [
        "RoIAlign, stride 16: reused from `roiops/align-ave`, which has the same settings (seeds 0 and 1)."
    ]


def test_runs_that_nobody_here_can_vouch_for_are_counted(tmp_path):
    signed = changed({key: {"digest": "0123"} for key in ALL})
    assert provenance.unchecked(signed) == []
    unpacked = dataclasses.replace(signed, folder=tmp_path)
    (tmp_path / "pool16" / "seed1").mkdir(parents=True)
    (tmp_path / "pool16" / "seed1" / UNPACKED).touch()
    assert provenance.unchecked(unpacked) == [
        "1 of 8 runs were unpacked from an archive; their values are unverified: they come from whoever packed it."
    ]
    assert provenance.unchecked(study()) == [
        "8 of 8 runs have a record without a digest, as older versions wrote it: damage to its values would go "
        "unnoticed."
    ]
