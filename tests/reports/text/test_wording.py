"""Verdicts as sentences: the estimate, its interval, the number of seeds and the paper's value, whatever came out."""

import dataclasses

import pytest

from ablations.records.schema import Arm, Hypothesis
from reports.analysis import analyse
from reports.stats.bootstrap import ImageNoise
from reports.stats.dose import Dose
from reports.stats.paired import Scale, Verdict, estimate, judge
from reports.text import captions, comparisons, wording
from tests.reports.conftest import AT_16, AT_32, MORE_AT_32
from tests.reports.text.hand_made import run, study

CLAIM = "The claim: More points. Measured:"
MORE = Hypothesis("more", "More points.", "segm.AP", AT_16, paper=3.4, source="table 2c")


def verdict_on(values, hypothesis=MORE) -> Verdict:
    """On values by seed, counted from the hypothesis's threshold."""
    [verdict] = judge([(hypothesis, estimate(dict(enumerate(values))))])
    return verdict


def test_a_reproduced_claim():
    assert wording.sentence(verdict_on([10.0, 10.2, 9.8, 10.0]), 1) == (
        f"**✔ Reproduced.** {CLAIM} **+10.0 points** (95 % interval +9.7 to +10.3, n = 4 seeds; the paper +3.4, "
        "table 2c). The paper's +3.4 lies outside the interval: the difference is larger here."
    )


def test_an_interval_has_the_decimals_that_show_on_which_side_the_papers_value_lies():
    claim = dataclasses.replace(MORE, paper=5.5, threshold=5)
    values = [-1.5, -1.0, -0.3, 0.1, 0.3]  # 3.58 to 5.46, counted from 0
    near = wording.sentence(verdict_on(values, claim), 1)
    assert "interval +3.58 to +5.46 against" in near and "The paper's +5.5 lies outside the interval" in near
    for paper in (5.4, 5.6):  # inside; outside, which one decimal shows
        text = wording.sentence(verdict_on(values, dataclasses.replace(claim, paper=paper)), 1)
        assert "interval +3.6 to +5.5 against" in text


def test_a_contradicted_claim():
    claim = dataclasses.replace(MORE, paper=None)
    assert wording.sentence(verdict_on([-10.0, -10.2, -9.8], claim), 1) == (
        f"**✘ Contradicted.** {CLAIM} **−10.0 points** (95 % interval −10.5 to −9.5, n = 3 seeds). "
        "The interval lies on the other side of 0."
    )


def test_the_opposite_of_a_slide_speaks_against_or_for_it():
    reproduced, contradicted = verdict_on([10.0, 10.2, 9.8]), verdict_on([-10.0, -10.2, -9.8])
    assert wording.sentence(reproduced, 1, about_slide=True).startswith(f"**✘ Speaks against the slide.** {CLAIM}")
    assert wording.sentence(contradicted, 1, about_slide=True).startswith(f"**✔ Speaks for the slide.** {CLAIM}")


def test_too_few_seeds_for_a_verdict():
    alone = wording.sentence(verdict_on([4.0]), 1)
    assert f"**– No verdict.** {CLAIM} +4.0 points from a single complete seed; the paper +3.4" in alone
    assert alone.endswith("A verdict needs the same metric from at least 2 seeds in every arm that is compared.")
    assert f"{CLAIM} no complete seed; the paper +3.4" in wording.sentence(verdict_on([]), 1)


def test_an_undecided_claim_says_how_many_seeds_it_takes():
    text = wording.sentence(verdict_on([1.0, 3.0, -0.5, 2.5, 4.0]), 1)
    assert text.startswith("**○ Undecided with 5 seeds.**") and "The interval covers 0." in text
    assert "If mean and spread stay as they are, deciding it would take about" in text
    assert "With 5 seeds a true difference shows up in 80 % of the cases if it is at least" in text


def test_a_claim_too_close_to_call_names_no_number_of_seeds():
    text = wording.sentence(verdict_on([1.0, -0.9, 1.1, -1.0], dataclasses.replace(MORE, paper=None)), 1)
    assert "It is too close to call." in text and "would take" not in text


def test_equal_values_are_unusual():
    assert "The arms gave the same value in every seed, which is unusual" in wording.sentence(verdict_on([0.0, 0.0]), 1)
    assert "Every seed gave the same value, which is unusual" in wording.sentence(verdict_on([1.0, 1.0]), 1)


def test_a_claim_that_counts_alone_but_not_among_the_others_says_so():
    """t is 3 times the root of 3, with two degrees of freedom: p = 1 - (27 / 29)^(1/2) = 0.0351."""
    values = estimate({0: 2.0, 1: 3.0, 2: 4.0})
    claim = dataclasses.replace(MORE, paper=None)
    for sided, side in ((claim, "for"), (dataclasses.replace(claim, direction="less"), "against")):
        first, *_ = judge([(sided, values)] * 5)
        assert (
            f"On its own it would count {side} the claim (p = 0.035); corrected for the study's 5 hypotheses it does "
            "not (p = 0.175)."
        ) in wording.sentence(first, 5)


def test_an_interval_beyond_the_margin_is_said_to_lie_there_though_the_correction_leaves_it_open():
    equal = dataclasses.replace(MORE, paper=None, direction="equal", margin=1.0)
    first, *_ = judge([(equal, estimate({0: 0.5, 1: 2.0, 2: 3.5}))] * 5)
    text = wording.sentence(first, 5)
    assert first.kind == "undecided" and "reaches across ±1 points" in text
    first, *_ = judge([(equal, estimate({0: 2.5, 1: 3.0, 2: 3.5}))] * 5)
    text = wording.sentence(first, 5)
    assert first.kind == "undecided" and "The 95 % interval, which decides, lies outside ±1 points" in text
    assert "count against the claim" in text and wording.reason(first) == "after correction"
    # At 90 % these lie beyond the margin, at 95 %, which would contradict the claim, they do not.
    [alone] = judge([(equal, estimate({0: 2.0, 1: 3.0, 2: 4.0}))])
    text = wording.sentence(alone, 1)
    assert alone.kind == "undecided" and alone.interval[0] > 1 and "The 90 % interval, which decides, reaches" in text
    assert wording.reason(alone) == "across the margin"


def test_the_difference_that_was_measured_tells_what_a_sign_means():
    text = wording.sentence(verdict_on([10.0, 10.2, 9.8]), 1, of="RoIAlign − RoIPool")
    assert "Measured, RoIAlign − RoIPool: **+10.0 points**" in text


def test_an_equivalence_is_judged_by_its_90_percent_interval():
    same = Hypothesis("same", "The same", "segm.AP", AT_16, "equal", margin=1.0)
    within = wording.sentence(verdict_on([0.1, -0.1, 0.0, 0.05], same), 1)
    assert "(90 % interval" in within and "which decides, lies within ±1 points, the margin fixed beforehand." in within
    beyond = wording.sentence(verdict_on([5.1, 4.9, 5.0, 5.0], same), 1)
    assert beyond.startswith("**✘ Contradicted.**") and "The 95 % interval, which decides, lies outside ±1" in beyond
    across = wording.sentence(verdict_on([-2.0, 2.0, 0.5, 3.0], same), 1)
    assert "which decides, reaches across ±1 points" in across


def test_a_threshold_is_named_and_values_stay_as_they_were_measured():
    verdict = verdict_on([7.0, 7.2, 6.8, 7.0], dataclasses.replace(MORE, threshold=3.0))
    assert verdict.estimate.mean == pytest.approx(7) and verdict.measured.mean == pytest.approx(10)
    assert (
        "**+10.0 points** (95 % interval +9.7 to +10.3 against the threshold of 3 fixed beforehand, n = 4 seeds; the "
        "paper +3.4, table 2c). The paper's +3.4 lies outside the interval: the difference is larger here."
    ) in wording.sentence(verdict, 1)


def test_a_claim_that_depends_on_the_scale_gives_all_scales_of_all_objects():
    up, down = estimate({0: 5.0, 1: 5.0}), estimate({0: -0.25, 1: -0.25})
    scales = (
        Scale("mask AP", up, up, up),
        Scale("log ratio of mask AP", up, up, down, digits=2),
        Scale("mask AP, small objects", up, up, down, is_subset=True),
    )
    verdict = Verdict(MORE, "depends on the scale", estimate({0: 4.9, 1: 5.1}), 0.01, 0.01, scales=scales)
    text = wording.sentence(verdict, 1)
    assert text.startswith("**◐ Depends on the scale.**") and "small objects" not in text
    assert "mask AP +5.0 (+5.0 to +5.0) and log ratio of mask AP −0.25 (−0.25 to −0.25)." in text


def test_what_a_record_says_is_text():
    hostile = dataclasses.replace(MORE, claim="*everything* <b>")
    assert r"The claim: \*everything\* &lt;b&gt;. Measured: +1.0 points" in wording.sentence(
        verdict_on([1.0], hostile), 1
    )


def test_it_is_said_once_that_the_paper_has_no_value_for_some_claims():
    own = dataclasses.replace(MORE, paper=None)
    assert wording.sentence(verdict_on([10.0, 10.2, 9.8], own), 1).endswith("+9.5 to +10.5, n = 3 seeds).")
    assert captions.without_values([own, MORE]) == "Where no value from the paper is given, the paper has none."
    assert captions.without_values([MORE]) == ""


def test_a_chart_explains_the_measure_that_it_shows():
    assert captions.measure("segm.AP75").startswith("AP is average precision")
    assert captions.measure("true_boxes.IoU_96_px_and_more").startswith("IoU, intersection over union")
    assert captions.measure("recall.AR@100") == ""


def test_names_of_arms_are_explained_where_they_occur():
    named = study(arms={"align16": Arm("FCN, stride 16", []), "pool16": Arm("RoIPool", [])})
    assert [text[:7] for text in captions.terms(named)] == ["**FCN**"]
    assert captions.terms(study()) == []


def test_verdicts_are_counted():
    verdicts = [verdict_on(values) for values in ([10.0, 10.2, 9.8], [10.0, 10.1, 9.9], [-9.0, -9.1, -9.2], [4.0])]
    assert wording.summary(verdicts) == ("Of 4 claims, 2 are reproduced, 1 is contradicted and 1 is without a verdict.")
    assert wording.summary(verdicts[:1]) == "The claim is reproduced."
    assert wording.summary(verdicts[:2]) == "Both claims are reproduced."
    assert wording.summary(verdicts[:1] * 3) == "All 3 claims are reproduced."
    assert wording.summary([]) == wording.answer(analyse(study(hypotheses=[]), 0)) == "The study states no hypotheses."


def test_the_answer_is_the_first_claim_and_the_count():
    text = wording.answer(analyse(study(), resamples=0))
    assert text.startswith(
        "Mask AP: **42.0** with “RoIAlign, stride 16”, **31.0** with “RoIPool, stride 16”. **○ Undecided with 2 "
        "seeds.** The claim: RoIAlign beats RoIPool in mask AP at stride 16. Measured: **+11.0 points**"
    )
    assert ". Of 5 claims, " in text
    alone = wording.answer(analyse(study(hypotheses=[MORE]), resamples=0))
    assert "The claim is" not in alone


def test_a_sentence_has_the_interval_over_images_and_says_where_it_covers_0():
    sure, unsure = ImageNoise(10.0, 8.0, 12.0, 300, 3), ImageNoise(10.0, -1.0, 21.0, 300, 3, error=5.0)
    verdict = verdict_on([10.0, 10.2, 9.8])
    text = wording.sentence(verdict, 1, noise=sure)
    assert "n = 3 seeds; other images +8.0 to +12.0; the paper" in text and "Not resolved" not in text
    text = wording.sentence(verdict, 1, noise=unsure)
    assert text.startswith("**✔ Reproduced.**") and "other images −1.0 to +21.0" in text
    assert text.endswith(
        "Not resolved over images: that interval covers 0, and only differences of 14.0 points or more would show."
    )
    just = ImageNoise(10.0, 0.02, 21.0, 300, 3)
    assert "other images +0.02 to +21.00;" in wording.sentence(verdict, 1, noise=just)
    over_nine = verdict_on([10.0, 10.2, 9.8], dataclasses.replace(MORE, threshold=8.5))
    assert "that interval covers the threshold." in wording.sentence(over_nine, 1, noise=sure)
    equal = verdict_on([0.1, 0.2, -0.2], dataclasses.replace(MORE, direction="equal", margin=4.0))
    assert "Not resolved" not in wording.sentence(equal, 1, noise=unsure)


def test_where_boxes_are_given_no_claim_is_smaller_than_the_papers():
    """Of 0, 0.1 and -0.1 the interval excludes the paper's 3.4, which is of a detector that finds objects."""

    def at_16(config):
        values = {("align16", 0): 30.0, ("align16", 1): 30.2, ("pool16", 0): 30.1, ("pool16", 1): 30.1}
        return study(
            [
                dataclasses.replace(run(*key), metrics={"segm": {"AP": value}}, config=run(*key).config | config)
                for key, value in values.items()
            ],
            config=study().record.config | config,
        )

    found, given = analyse(at_16({}), 0).verdicts[0], analyse(at_16({"rpn": "jitter"}), 0).verdicts[0]
    assert found.kind == "smaller than the paper's" and given.kind == "undecided"
    text = wording.sentence(given, 1)
    assert "; the paper's +3.4, table 2c, is of detectors that find objects themselves)" in text
    assert "lies outside" not in text and "lies outside" in wording.sentence(found, 1)


def test_an_interaction_in_words():
    analysis = analyse(study(), resamples=0)
    [item] = analysis.interactions
    assert (item.first, item.second, item.weights) == (AT_16, AT_32, MORE_AT_32)
    assert comparisons.interaction(analysis, item) == (
        "RoIAlign − RoIPool in mask AP: +11.0 points at stride 16, +15.0 at stride 32. The second minus the first: "
        "**+4.0 points** (95 % interval −8.7 to +16.7, n = 2 seeds; the paper +3.9)."
    )
    partial = analyse(study([run("pool16", 0)]), resamples=0)
    assert comparisons.interaction(partial, item) == "There are not enough runs for this comparison yet."


def test_operators_from_elsewhere_say_where_from():
    dose = Dose("warp", 0, 16, 5.0, 10.0, estimate({}), "roiops")
    assert captions.operator_of(dose) == "RoIWarp (study roiops)"
    assert captions.operator_of(dataclasses.replace(dose, op="pool", same_net=False)) == (
        "RoIPool (study roiops, with another head)"
    )
    assert captions.operator_of(dataclasses.replace(dose, op="align", step=8)) == "RoIAlign of rounded boxes"
    assert captions.operator_of(dataclasses.replace(dose, study="")) == "RoIWarp"


def three_arms(*levels: float):
    """Arms of one seed at these levels of mask AP: each is compared with the next, the first with the last too."""
    names = ("align16", "pool32", "pool16")
    arms = {name: Arm(label, [], {}) for name, label in zip(names, ("A", "B", "C"), strict=True)}
    runs = [
        dataclasses.replace(run(name, 0), metrics={"segm": {"AP": level}})
        for name, level in zip(names, levels, strict=True)
    ]
    pairs = [(names[0], names[2]), (names[0], names[1]), (names[1], names[2])]
    claims = [Hypothesis(plus + minus, "", "segm.AP", {plus: 1.0, minus: -1.0}) for plus, minus in pairs]
    return analyse(study(runs, arms=arms, hypotheses=claims, seeds=[0]), resamples=0)


def test_a_difference_that_is_the_sum_of_two_is_divided():
    assert comparisons.shares(three_arms(20.0, 13.0, 10.0)) == [
        "“A” scores +10.0 points of mask AP against “C”. **7.0 of them (70 %)** remain against “B”; "
        "the other 3.0 (30 %) are “B” against “C”."
    ]


def test_differences_of_opposite_signs_are_no_shares():
    assert comparisons.shares(three_arms(20.0, 25.0, 10.0)) == [] and comparisons.shares(analyse(study(), 0)) == []


def test_costs_are_in_per_cent_and_what_is_counted_may_be_the_same_for_every_seed():
    metric = "inference_cost.parameters_added"
    runs = [
        dataclasses.replace(run(arm, seed), metrics={"inference_cost": {"parameters_added": value}})
        for arm, value in (("pool16", 0.0), ("align16", 1.25))
        for seed in (0, 1)
    ]
    claim = Hypothesis("parameters", "They grow.", metric, {"align16": 1.0, "pool16": -1.0}, paper=4.4)
    (verdict,) = analyse(study(runs, hypotheses=[claim], seeds=[0, 1]), resamples=0).verdicts
    text = wording.sentence(verdict, 1)
    assert "**+1.2 % of the parameters without masks**" in text or "**+1.3 % of the parameters without masks**" in text
    assert "as it is counted and not measured" in text and "unusual" not in text and " points" not in text


def test_why_a_verdict_is_open_though_its_interval_excludes_0():
    over_five = dataclasses.replace(MORE, threshold=5.0)
    assert wording.reason(verdict_on([-1.0, 0.2, 0.6], over_five)) == "threshold"
    equal = dataclasses.replace(MORE, direction="equal", margin=4.0)
    assert wording.reason(verdict_on([3.0, 4.2, 4.6], equal)) == "across the margin"
    assert wording.reason(verdict_on([10.0, 10.2, 9.8])) == wording.reason(verdict_on([-1.0, 2.0, 3.0])) == ""


def test_a_line_of_numbers():
    assert wording.brief(verdict_on([10.0, 10.2, 9.8])) == "+10.0 points, 95 % interval +9.5 to +10.5, 3 seeds"
    assert wording.brief(verdict_on([10.0, 10.0])) == "+10.0 points in every seed"
