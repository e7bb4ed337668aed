"""Every figure of every published study: text clear of text, and data inside its axes."""

import dataclasses
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ablations.records.schema import Arm, Hypothesis
from ablations.records.storage import load_study, save
from reports import claims, scenes
from reports.analysis import analyse
from reports.figures import closeups, forest, overview, paired, samples
from reports.figures.canvas import Instance, paint
from reports.figures.paired import Panel
from reports.figures.style import REST, ArmStyle, arm_styles, figure, text_width, wrap
from reports.load import read_study
from reports.render import content
from tests.damage import edit_record
from tests.reports.conftest import write_study
from tests.reports.figures.measure import Measured
from tests.reports.text.hand_made import study

GALLERY = Path(__file__).parents[3] / "reports" / "gallery"
PUBLISHED = sorted(path.parent.parent for path in GALLERY.glob("**/records/study.json"))


def published(folder: Path, tmp_path: Path):
    """A published study as `read_study` finds it: its records under its name."""
    name = load_study(folder / "records" / "study.json").name
    (tmp_path / name).symlink_to(folder / "records", target_is_directory=True)
    return read_study(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_figures_of_the_gallery(folder, tmp_path):
    measured = Measured()
    content(analyse(published(folder, tmp_path), resamples=0), measured)
    assert {"paired", "forest", "curves"} <= set(measured.drawn)
    assert measured.faults == {}


@pytest.mark.slow
def test_figures_with_pictures(outputs):
    measured = Measured()
    content(analyse(read_study(outputs, "roialign"), resamples=0), measured)
    assert {"why", "samples", "closeups", "interaction"} <= set(measured.drawn)
    assert measured.faults == {}


@pytest.mark.slow
def test_figures_of_the_ledger(tmp_path):
    analyses = {
        folder.name: analyse(published(folder, tmp_path), resamples=0)
        for folder in GALLERY.glob("*/")
        if (folder / "records").is_dir()
    }
    measured, ledger = Measured(), claims.read_claims(analyses)
    assert overview.overview(claims.overview_rows(ledger), measured)
    for index, claim in enumerate(ledger):
        claims.draw_picture(claim, analyses, measured, index)
    assert len(measured.drawn) > 6 and measured.faults == {}


def test_long_labels_are_wrapped_and_not_printed_over_each_other(tmp_path):
    folder = write_study(tmp_path, seeds=2)
    record = load_study(folder / "study.json")
    long = "An operator with a name that nobody could read in a single line of a figure, {}"
    arms = {name: dataclasses.replace(arm, label=long.format(name)) for name, arm in record.arms.items()}
    save(dataclasses.replace(record, arms=arms), folder / "study.json")
    measured = Measured()
    paired.paired(analyse(read_study(tmp_path, "roialign"), resamples=0), "segm.AP", measured)
    assert measured.drawn == ["paired"] and measured.faults == {}


def test_a_seed_far_from_the_others_stays_on_the_axis_of_differences():
    # Seed 2 is so far out that neither values, nor interval, nor the paper's difference reach it.
    pairs = {0: (40.0, 41.0), 1: (50.0, 51.0), 2: (45.0, 40.0)}
    styles = [ArmStyle("black", "o")] * 2
    low, high = paired.value_range([Panel("", pairs, ["a", "b"], styles, paper=0.5)], from_zero=False)
    assert low < 45.0 - 5.0 < high


def test_measuring_finds_what_is_wrong():
    measured = Measured()
    drawn, [[axes]] = figure(width=3, height=2)
    axes.plot([0.5, 2.0], [0.5, 0.5], "o")
    axes.set_xlim(0, 1)
    axes.text(0.5, 0.8, "one text")
    axes.text(0.52, 0.8, "another")
    measured.save(drawn, "wrong")
    assert len(measured.faults["wrong"]) == 2


def test_text_is_wrapped_by_its_measured_width():
    text = "FCN, five convolutions against an MLP"
    lines = wrap(text, 1.2).split("\n")
    assert len(lines) > 1 and " ".join(lines) == text
    assert all(text_width(line) <= 1.2 for line in lines)


def test_a_concept_has_one_colour_in_all_studies(tmp_path):
    colours: dict[str, set[str]] = {}
    for folder in PUBLISHED:
        study = published(folder, tmp_path)
        for arm, style in arm_styles(study).items():
            factors = study.record.arms[arm].factors
            value = factors.get("roi") or factors.get("system")
            if value is not None:
                colours.setdefault(value.removesuffix("_max"), set()).add(style.colour)
    assert all(len(used) == 1 for used in colours.values())
    assert set(colours) == {"pool", "warp", "align", "align_8", "align_16", "align_32", "fcis"}
    assert len({min(used) for used in colours.values()}) == len(colours)


def test_arms_of_other_studies_have_colours_of_their_own(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    record = load_study(folder / "study.json")
    arms = {name: dataclasses.replace(arm, factors={"lr": name}) for name, arm in record.arms.items()}
    save(dataclasses.replace(record, factors=["lr"], arms=arms), folder / "study.json")
    styles = arm_styles(read_study(tmp_path, "roialign"))
    assert [style.colour for style in styles.values()] == list(REST[:4])


@pytest.mark.slow
def test_long_names_of_arms_stand_beside_each_other_over_pictures(tmp_path):
    folder = write_study(tmp_path, seeds=1)

    def name(record):
        for number in range(2):
            record["arms"][f"more{number}"] = dict(record["arms"]["align16"])
        for arm in record["arms"].values():
            arm["label"] = arm["label"].replace("RoIAlign", "RoIAlign on boxes rounded to 32 px")

    edit_record(folder / "study.json", name)
    for number in range(2):
        shutil.copytree(folder / "align16", folder / f"more{number}")
        edit_record(folder / f"more{number}/seed0/run.json", lambda record, arm=f"more{number}": record.update(arm=arm))
    analysis, measured = analyse(read_study(tmp_path, "roialign"), resamples=0), Measured()
    shown = scenes.read_scenes(analysis.study)
    assert samples.samples(analysis.study, shown, measured) and closeups.closeups(analysis, shown, measured)
    assert measured.faults == {}


ARMS = {
    f"{op}{stride}": Arm(f"{op}, stride {stride}", [], {"roi": op, "stride": stride})
    for stride in (16, 32)
    for op in ("align", "warp", "pool", "step8")
}
PAIRS = ("align16 pool16", "align32 pool32", "warp16 align16", "pool32 warp32")


def many_arms(pairs=PAIRS, **changes):
    claims_on = [Hypothesis(pair, "", "segm.AP", dict(zip(pair.split(), (1.0, -1.0), strict=True))) for pair in pairs]
    return study([], arms=ARMS, hypotheses=claims_on, **changes)


def test_pictures_of_many_arms_show_those_that_the_first_claims_compare():
    few, every = ["align16", "warp16", "pool16"], list(ARMS)
    assert scenes.arms_to_show(many_arms(), every) == few
    assert scenes.arms_to_show(many_arms(), every[:6]) == every[:6]  # of no more than six all are shown
    more = (*PAIRS, "align16 step816", "align16 step832")
    assert scenes.arms_to_show(many_arms(more), every) == every[:4]  # four, and no fifth
    assert scenes.arms_to_show(many_arms(()), every) == every
    between = Hypothesis("more", "", "segm.AP", {"align16": 1.0, "pool16": -1.0, "align32": -1.0, "pool32": 1.0})
    late = many_arms().record.hypotheses
    interrupted = study([], arms=ARMS, hypotheses=[late[0], between, *late[1:]])
    assert scenes.arms_to_show(interrupted, every) == ["align16", "pool16"]


def test_close_ups_of_many_arms_show_those_of_the_first_stride():
    every = list(ARMS)
    assert scenes.arms_of_first_strides(many_arms(), every) == every[:4]
    assert scenes.arms_of_first_strides(many_arms(), every[:6]) == every[:6]
    other = many_arms(("align32 pool32", "warp32 align32"))  # the claim is about the second stride
    assert scenes.arms_of_first_strides(other, every) == ["align32", "warp32", "pool32"]


def test_objects_that_no_claim_is_about_have_no_notes_and_one_class_is_not_named():
    mask = np.ones((4, 4), bool)
    scene = scenes.SampleScene(1, Path("nowhere"), [mask] * 3, ["disc"] * 3, [True, False, False])
    assert [item.note for item in samples.truth_of(scene)] == ["disc", "", ""]
    assert [item.note for item in samples.truth_of(scene, named=False)] == ["", "", ""]
    found = samples.detections_of(scene, [scenes.Shown(mask, 0.5, False), scenes.Shown(mask, 0.5, False), None])
    assert [item.note for item in found] == ["0.50", "", ""] and found[2].dashed


@pytest.mark.parametrize("side", [240, 480, 960])
def test_an_outline_is_as_thick_on_a_large_photograph(side):
    mask = np.zeros((side, side), bool)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = True
    drawn, [[axes]] = figure(width=2, height=2)
    paint(axes, np.full((side, side, 3), 128, np.uint8), [Instance(mask, "#FF0000")], inches=2)
    [image] = axes.get_images()
    middle = image.get_array()[side]  # a row of twice the image's pixels
    is_red = (middle[:, 0] > 200) & (middle[:, 1] < 50)
    assert is_red.sum() * 240 / side == pytest.approx(8)  # of 480 pixels, on two sides
    plt.close(drawn)


def test_how_hard_a_scene_is_counts_the_objects_that_claims_are_about():
    mask = np.ones((4, 4), bool)

    def scene(number, asked, *ious):
        found = {("a", 0): [scenes.Shown(mask, iou, False) for iou in ious]}
        return scenes.SampleScene(number, Path("nowhere"), [mask] * 2, ["disc"] * 2, asked, found)

    first, second = scene(1, [True, False], 0.4, 0.9), scene(2, [True, True], 0.4, 0.8)
    third, without = scene(3, [False, True], 0.1, 0.9), scene(4, [False, False], 0.6, 0.6)
    assert [round(item.fit(0), 2) for item in (first, second, third, without)] == [0.4, 0.6, 0.9, 0.0]
    assert [item.image_id for item in scenes.middling([first, second, third, without], 0, 1)] == [2]
    assert [item.image_id for item in scenes.middling([without], 0, 1)] == [4]


def test_no_two_differences_of_a_forest_look_the_same(tmp_path):
    names = "abcdefghijkl"
    arms = {name: Arm(f"{name}, stride 16", [], {"roi": "align", "stride": 16}) for name in names}
    claims_on = [Hypothesis(name, "", "segm.AP", {name: 1.0, "a": -1.0}) for name in names[1:]]
    styles = forest.styles_of(analyse(study([], arms=arms, hypotheses=claims_on), resamples=0))
    assert len(styles) == 11 and len({str(style) for style in styles}) == 11


@pytest.mark.parametrize(("data", "side"), [({}, 24.0), ({"image_size": 200, "max_size": 300}, 48.0)])
def test_the_side_of_an_object_is_in_pixels_of_the_image_as_the_network_gets_it(data, side):
    mask = np.zeros((100, 120), dtype=bool)
    mask[10:46, 20:36] = True  # 36 x 16
    assert scenes.side_of(mask, study([], config={"data": data})) == pytest.approx(side)


@pytest.mark.slow
def test_closeups_are_of_large_objects_where_claims_are(tmp_path):
    """Of the fixture's objects none has a side of more than 96 px; at one and a half times the size some have."""
    folder = write_study(tmp_path, seeds=1)

    def ask(record, data):
        record["hypotheses"][0]["metric"] = "true_boxes.IoU_96_px_and_more"
        record["config"]["data"] = data

    def shown(data):
        edit_record(folder / "study.json", lambda record: ask(record, data))
        analysis = analyse(read_study(tmp_path, "roialign"), resamples=0)
        return closeups.closeups(analysis, scenes.read_scenes(analysis.study), Measured())

    everything = analyse(read_study(tmp_path, "roialign"), resamples=0)
    every = closeups.closeups(everything, scenes.read_scenes(everything.study), Measured())
    large = shown({"image_size": 384, "max_size": 384})
    assert shown({}) is None and 0 < large.candidates < every.candidates
