"""The tables of a report, from values that can be checked by hand."""

import dataclasses

from ablations.records.schema import Hypothesis
from reports.analysis import analyse
from reports.figures import forest
from reports.load import RunProblem
from reports.stats.bootstrap import ImageNoise
from reports.stats.dose import Dose
from reports.stats.paired import Scale, Verdict, estimate
from reports.text import tables
from tests.reports.conftest import AT_16, MORE_AT_32
from tests.reports.text.hand_made import VALUES, run, study


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table, without the line below its header."""
    lines = table.splitlines()
    return [line.strip("| ").split(" | ") for line in lines[:1] + lines[2:]]


def test_the_headline_has_mean_spread_and_the_papers_value():
    header, pool16, *others = rows(tables.headline(study()))
    assert header == ["arm", "n", "mask AP", "mask AP75", "parameters"]
    assert pool16 == ["RoIPool, stride 16", "2", "31.0 ± 1.4 (26.9)", "30.0 ± 1.4 (26.4)", "0.81 M"]
    assert [row[2] for row in others] == ["42.0 ± 2.8 (30.3)", "21.0 ± 1.4 (23.6)", "36.0 ± 1.4 (30.9)"]


def test_where_boxes_are_given_neither_box_ap_nor_the_papers_values_are_shown():
    """Every object is handed to the detector: its AP is not that of one that finds objects."""
    tables_of = {"segm": {"AP": 30.0, "APm": 25.0}, "bbox": {"AP": 70.0, "APm": 65.0}}
    runs = [
        dataclasses.replace(item, metrics=tables_of, config=item.config | {"rpn": "jitter"})
        for item in study().runs.values()
    ]
    claims = study().record.hypotheses[:1]
    given = study(runs, config=study().record.config | {"rpn": "jitter"}, hypotheses=claims)
    header, pool16, *_ = rows(tables.headline(given))
    assert header == ["arm", "n", "mask AP", "parameters"] and pool16[2] == "30.0 ± 0.0"
    analysis = analyse(given, resamples=0)
    assert "box AP" not in tables.by_size(analysis) and "mask AP, medium" in tables.by_size(analysis)
    assert forest.metrics_of(analysis) == ["segm.AP", "segm.APm"]
    assert analysis.paper(AT_16, "segm.AP") is None and analyse(study(), resamples=0).paper(AT_16, "segm.AP") == 3.4
    one_found = study([*runs[1:], study().runs["pool16", 0]], config=given.record.config, hypotheses=claims)
    assert not one_found.boxes_are_given and analyse(one_found, 0).paper(AT_16, "segm.AP") == 3.4


def test_where_claims_are_about_large_objects_the_headline_has_all_of_them_too():
    large = "true_boxes.IoU_96_px_and_more"
    metrics = {"segm": {"AP": 1.0}, "true_boxes": {"IoU_96_px_and_more": 60.0, "IoU": 50.0}}
    runs = [dataclasses.replace(item, metrics=metrics) for item in study().runs.values()]
    claimed = study(runs, hypotheses=[Hypothesis("large", "", large, AT_16)])
    assert tables.headline_metrics(claimed) == ["segm.AP", "true_boxes.IoU", large]
    assert tables.headline_metrics(study(runs)) == ["segm.AP"]


def test_a_single_value_has_no_spread_and_none_is_a_dash():
    assert tables.mean_and_spread([3.0]) == "3.0" and tables.mean_and_spread([3.0, None, 5.0]) == "4.0 ± 1.4"
    assert tables.mean_and_spread([None]) == "–"


def test_parameters_are_given_where_arms_differ_in_them():
    alike = [run(*key, num_parameters=800_000) for key in study().runs]
    assert tables.parameters(study(alike)) == {} and "parameters" not in tables.headline(study(alike))
    unlike = study([run("pool16", 0, num_parameters=4_000_000, parameters={"mask_head": 3_200_000}), *alike[2:]])
    assert tables.parameters(unlike)["pool16"] == "4.00 M (mask head 3.20 M)"
    assert tables.parameters(unlike)["align16"] == "0.80 M"
    assert tables.parameters(study([run("pool16", 0), run("pool32", 0)]))["align16"] == "–"


def test_every_planned_run_has_a_row():
    partial = study([run("pool16", 0), run("align16", 1)])
    partial.problems.append(RunProblem("pool16", 1, "failed", "the disk is full"))
    header, first, second, *_ = rows(tables.every_seed(partial))
    assert header == ["arm", "seed", "run", "mask AP", "mask AP75"]
    assert first == ["RoIPool, stride 16", "0", "done", "30.0", "29.0"]
    assert second == ["RoIPool, stride 16", "1", "failed", "–", "–"]
    assert rows(tables.problems(partial)) == [
        ["arm", "seed", "state", "detail"],
        ["RoIPool, stride 16", "1", "failed", "the disk is full"],
    ]


def test_every_difference_seed_by_seed():
    header, *values = rows(tables.every_difference(analyse(study(), resamples=0), "segm.AP"))
    assert header == [
        "mask AP",
        "RoIAlign − RoIPool, stride 16",
        "RoIAlign − RoIPool, stride 32",
        "RoIAlign − RoIPool, stride 32 − stride 16",
    ]
    assert values == [
        ["seed 0", "+10.0", "+15.0", "+5.0"],
        ["seed 1", "+12.0", "+15.0", "+3.0"],
        ["**mean**", "**+11.0**", "**+15.0**", "**+4.0**"],
        ["sd", "1.4", "0.0", "1.4"],
    ]


def test_the_tests_behind_the_verdicts():
    """Of 10 and 12 points t is 11 with one degree of freedom: p = 1 - 2 / pi * arctan(11) = 0.058."""
    hypotheses = [Hypothesis("more", "More", "segm.AP", AT_16, threshold=0.0)]
    header, row = rows(tables.tests(analyse(study(hypotheses=hypotheses), resamples=0)))
    assert header[:6] == ["claim", "metric", "n", "mean", "sd", "95 % interval"]
    assert row[:8] == ["More", "mask AP", "2", "+11.0", "1.4", "−1.7 to +23.7", "0.058", "0.058"]


def test_equivalences_and_thresholds_have_columns_of_their_own():
    """The 90 % interval of two seeds is 6.31 standard errors of 1 wide to each side."""
    hypotheses = [
        Hypothesis("same", "The same", "segm.AP", AT_16, "equal", margin=1.0),
        Hypothesis("more", "More", "segm.AP", AT_16, threshold=3.0),
    ]
    header, same, more = rows(tables.tests(analyse(study(hypotheses=hypotheses), resamples=0)))
    assert header[6:8] == ["90 % interval", "threshold"]
    assert same[6:8] == ["+4.7 to +17.3", "0"] and more[6:8] == ["–", "3"]
    assert more[3] == "+11.0"  # as measured, not counted from the threshold


def test_the_two_kinds_of_interval_stand_beside_each_other():
    analysis = analyse(study(), resamples=0)
    assert tables.image_noise(analysis) == ""
    analysis.noise["mask-ap-16"] = ImageNoise(11.0, 9.0, 13.0, num_images=300, num_seeds=2)
    _, row = rows(tables.image_noise(analysis))
    assert row[1:] == ["+11.0", "−1.7 to +23.7", "+9.0 to +13.0", "2", "300"]
    counted = {"error": 2.5, "num_objects": 184, "with_objects": 84}
    analysis.noise["mask-ap-32"] = ImageNoise(1.0, -4.0, 6.0, num_images=103, num_seeds=2, **counted)
    header, kept, row = rows(tables.image_noise(analysis))
    assert header == ["claim", "mean", "other seeds", "other images", "detectable", "seeds", "images"]
    assert row[3:] == ["−4.0 to +6.0 (covers 0)", "7.0", "2", "184 objects in 84 of 103 images"] and kept[4] == "–"
    every = ImageNoise(1.0, -4.0, 6.0, num_images=84, num_seeds=2, **counted)
    assert tables.counted_images(every) == "184 objects in 84 images"


def test_an_interaction_has_a_row_for_each_scale_and_that_of_the_hypothesis_is_bold():
    first, second, between = estimate({0: 1.0, 1: 3.0}), estimate({0: 5.0, 1: 7.0}), estimate({0: 4.0, 1: 4.0})
    subset = Scale("mask AP, small objects", first, second, between, is_subset=True)
    ratio = Scale("log ratio of mask AP", first, second, between, paper=0.154, digits=2)
    points = Scale("mask AP", first, second, between, paper=3.9)
    claim = Hypothesis("more", "More at 32", "segm.AP", MORE_AT_32)
    verdict = Verdict(claim, "undecided", between, scales=(subset, points, ratio))
    assert rows(tables.scales([verdict], ["stride 16", "stride 32"])) == [
        ["gain in", "stride 16", "stride 32", "how much more", "95 % interval", "the paper"],
        ["**mask AP**", "**+2.0**", "**+6.0**", "**+4.0**", "**+4.0 to +4.0**", "**+3.9**"],
        ["log ratio of mask AP", "+2.00", "+6.00", "+4.00", "+4.00 to +4.00", "+0.15"],
        ["mask AP, small objects", "+2.0", "+6.0", "+4.0", "+4.0 to +4.0", "–"],
    ]
    without_paper = dataclasses.replace(verdict, scales=(subset,))
    assert rows(tables.scales([without_paper], ["a", "b"]))[0][-1] == "95 % interval"
    assert tables.scales([dataclasses.replace(verdict, scales=())], ["a", "b"]) == ""


def test_doses_name_the_operator_and_where_it_comes_from():
    lost = estimate({0: 2.0, 1: 4.0})
    own = Dose("align", 8, 16, 2.83, 7.07, lost, "")
    warp = Dose("warp", 16, 16, 5.0, 10.0, lost, "")
    beside = Dose("pool", 0, 32, 12.0, 30.0, estimate({0: 9.0}), "roialign", same_net=False)
    assert rows(tables.doses([own, warp, beside])) == [
        ["operator", "stride", "displacement (px)", "of the object's side", "lost in mask AP", "n"],
        ["RoIAlign, boxes rounded to 8 px", "16", "2.8", "7.1 %", "+3.0 (−9.7 to +15.7)", "2"],
        ["RoIWarp, boxes rounded to 16 px", "16", "5.0", "10.0 %", "+3.0 (−9.7 to +15.7)", "2"],
        ["RoIPool (study roialign, with another head)", "32", "12.0", "30.0 %", "+9.0", "1"],
    ]


def test_sizes_that_no_run_defines_are_left_out():
    assert tables.by_size(analyse(study(), resamples=0)) == ""
    runs = [
        dataclasses.replace(run(arm, seed), metrics={"segm": {"AP": 1.0, "APm": VALUES[arm][seed]}})
        for arm in ("pool16", "align16")
        for seed in (0, 1)
    ]
    header, *values = rows(tables.by_size(analyse(study(runs), resamples=0)))
    assert header == ["arm", "mask AP, medium"]
    assert values[0] == ["RoIPool, stride 16", "31.0 ± 1.4"] and values[2] == ["RoIPool, stride 32", "–"]
    assert values[4] == ["*RoIAlign − RoIPool, stride 16*", "+11.0 (−1.7 to +23.7)"]


def test_costs_are_medians_and_the_largest_peak():
    cost = {"seconds_per_step": 0.1, "train_seconds": 40.0, "eval_seconds": 5.0, "peak_memory_bytes": 2**29}
    dearer = cost | {"seconds_per_step": 0.2, "train_seconds": 60.0, "peak_memory_bytes": 2**30}
    partial = study([run("pool16", 0, cost=cost), run("pool16", 1, cost=dearer), run("align16", 0, cost={})])
    _, pool16, align16, pool32, _ = rows(tables.cost(partial))
    assert pool16 == ["RoIPool, stride 16", "150", "50", "5.0", "1.00", "812,345"]
    assert align16[1:5] == ["–"] * 4 and pool32[1:] == ["–"] * 5
