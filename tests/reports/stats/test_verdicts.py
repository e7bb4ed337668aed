"""Interactions on several scales: which of them oppose each other, and what the verdict then says."""

import math

import pytest

from reports.load import read_study
from reports.stats.paired import Scale, estimate
from reports.stats.verdicts import opposed, verdicts
from reports.text import wording
from tests.damage import edit_record
from tests.reports.conftest import write_study

UP, DOWN, UNSURE = (5.0, 5.5, 6.0, 5.2), (-5.0, -5.5, -6.0, -5.2), (5.0, -5.5, 6.0, -5.2)


def scale(values, is_subset=False):
    effect = estimate(dict(enumerate(values)))
    return Scale("", effect, effect, effect, is_subset=is_subset)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((scale(UP), scale(DOWN)), True),
        ((scale(UNSURE), scale(UP), scale(DOWN)), True),
        ((scale(UP), scale(UP)), False),
        ((scale(UP), scale(UNSURE)), False),
        ((scale(UP), scale(DOWN, is_subset=True)), False),  # small objects are no other scale
        ((), False),
    ],
)
def test_opposed_are_resolved_effects_of_both_signs(measured, expected):
    assert opposed(measured) == expected


def test_effects_are_resolved_after_a_correction_for_the_number_of_scales():
    weak = (-0.2, -2.2, -1.0, -1.5, -0.9)
    assert 0.01 < estimate(dict(enumerate(weak))).p < 0.05
    assert opposed((scale(UP), scale(weak)))
    assert not opposed((scale(UP), scale(weak), *[scale(UNSURE)] * 4))


def changed(outputs, gains):
    """A study in whose arm align32 metrics of masks are changed by so much in each seed."""
    folder = write_study(outputs, seeds=4)

    def add(table):
        table.update({key: table[key] + gain for key, gain in gains.items()})

    for path in (folder / "align32").glob("seed*/run.json"):
        edit_record(path, lambda record: add(record["metrics"]["segm"]))
    return read_study(outputs, "roialign")


def test_a_verdict_depends_on_the_scale_where_scales_oppose(tmp_path):
    study = changed(tmp_path, {"AP50": 12, "AP75": -12})
    named = {verdict.hypothesis.name: verdict for verdict in verdicts(study)}
    interaction = named["interaction"]
    assert interaction.kind == "depends on the scale" and interaction.seeds_needed is None
    assert named["mask-ap-32"].kind == "reproduced" and named["mask-ap-32"].scales == ()
    labels = [scale.label for scale in interaction.scales]
    assert labels == ["mask AP", "log ratio of mask AP", "mask AP50", "mask AP75", *labels[4:]]
    assert labels[4:] == ["mask AP, medium objects", "mask AP, large objects"]  # there are no small ones
    text = wording.sentence(interaction, 5)
    assert text.startswith("**◐ Depends on the scale.**") and "mask AP50 +1" in text and "mask AP75 −1" in text
    assert "The paper's +3.9 lies outside the interval" in text and "seeds" not in text.partition("n = 4 seeds")[2]


def test_the_log_ratio_compares_proportions(tmp_path):
    study = changed(tmp_path, {})
    [ratio] = [
        scale for verdict in verdicts(study) for scale in verdict.scales if scale.label == "log ratio of mask AP"
    ]
    level = {arm: study.value(arm, 2, "segm.AP") for arm in study.record.arms}
    expected = math.log(level["align32"] / level["pool32"]) - math.log(level["align16"] / level["pool16"])
    assert ratio.between.values[2] == pytest.approx(expected)
    assert ratio.paper == pytest.approx(math.log(30.9 / 23.6) - math.log(30.3 / 26.9))
