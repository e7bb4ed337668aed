"""Whole reports from fixed records: what they say, and that the same records give the same bytes."""

import dataclasses
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ablations.records.schema import Arm, Hypothesis
from ablations.records.storage import load_study, save
from reports import render as render_module
from reports.__main__ import main
from reports.figures import samples
from reports.figures.style import Figures
from reports.load import read_study
from reports.render import render
from reports.scenes import read_scenes
from reports.text import scope
from tests.damage import edit_record
from tests.reports.conftest import ARMS, save_nothing, write_study
from tests.reports.stats.test_floors import with_floors

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rendered report")]  # one process makes what the tests share


@pytest.fixture(scope="module")
def report(outputs, tmp_path_factory) -> Path:
    """The folder of the complete study's report."""
    folder = tmp_path_factory.mktemp("report")
    render(read_study(outputs, "roialign"), folder)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but no files: for tests of what a report says."""
    monkeypatch.setattr(Figures, "save", save_nothing)
    monkeypatch.setattr(render_module, "write_page", lambda *_: None)


def read(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


def test_the_answer_comes_first_with_interval_seeds_and_the_papers_value(report):
    text = read(report)
    assert text.startswith("# RoIPool against RoIAlign\n\n**What does it cost")
    assert text.index("**+14.3 points**") < text.index("figures/paired.svg") < text.index("## Claims")
    assert "Of 5 claims, 4 are reproduced and 1 is undecided but smaller than the paper's." in text
    assert (
        "**✔ Reproduced.** The claim: RoIAlign beats RoIPool in mask AP at stride 16. Measured: **+14.3 points** (95 % "
        "interval +12.5 to +16.0; the paper +3.4). Of 5 claims"
    ) in text
    assert (
        "Measured, RoIAlign − RoIPool, stride 16: **+14.3 points** (95 % interval +12.5 to +16.0, n = 5 seeds; other "
        "images +"
    ) in text and "; the paper +3.4, table 2c)." in text
    assert "**○ Smaller than the paper's.** The claim: The gain in mask AP is larger" in text
    assert "The paper's +3.9 lies outside the interval: a difference as large is excluded." in text
    assert "The paper's +3.4 lies outside the interval: the difference is larger here." in text


def test_the_parts_come_in_order(report):
    headings = re.findall(r"^## (.+)$", read(report), re.MULTILINE)
    assert headings == [
        "Why: one object on the feature grid",
        "The same images under each arm",
        "Claims",
        "RoIAlign − RoIPool: does the difference depend on the stride?",
        "The numbers",
        "Missing and failed runs",
        "Limits",
        "Words",
    ]
    assert re.findall(r"^<summary>(.+)</summary>$", read(report), re.MULTILINE) == [
        "Every metric",
        "By size of the object",
        "Every seed",
        "The tests behind the verdicts",
        "Training",
        "What differs between the arms",
        "Cost",
        "Provenance",
    ]
    assert "| RoIPool, stride 16 | 5 | 36.4 ± 1.0 (26.9) |" in read(report)
    assert "None: all 20 planned runs are done." in read(report)


def test_every_picture_is_there_and_charts_have_an_svg(report):
    text = read(report)
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 7 and all((report / picture).is_file() for picture in pictures)
    for name in ("paired", "forest", "interaction", "curves", "why"):
        assert (report / "figures" / f"{name}.svg").is_file()


def test_the_page_needs_nothing_from_elsewhere(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert targets and all(target.startswith(("data:", "#", "https://arxiv.org/abs/")) for target in targets)
    assert "<link" not in page and "@import" not in page and "<script src" not in page and "{{" not in page
    assert page.count("<img") == 7 and 'class="reproduced"' in page and page.count("<details>") == 8
    anchors = {target[1:] for target in targets if target.startswith("#")}
    assert all(f'id="{anchor}"' in page for anchor in anchors)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(outputs, report, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "stale.png").write_bytes(b"")
    render(read_study(outputs, "roialign"), tmp_path)
    first = {path.relative_to(report): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    second = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert first.keys() == second.keys() and all(first[name] == second[name] for name in first)


def test_the_csv_files_hold_every_value(outputs, report):
    runs = pd.read_csv(report / "runs.csv")
    study = read_study(outputs, "roialign")
    assert len(runs.groupby(["arm", "seed"])) == len(runs) == 20
    row = runs.query("arm == 'align32' and seed == 3")
    assert row["bbox.AP75"].item() == pytest.approx(study.value("align32", 3, "bbox.AP75"))
    assert (row["roi"].item(), row["stride"].item()) == ("align", 32)
    contrasts = pd.read_csv(report / "contrasts.csv")
    asked = contrasts.dropna(subset="hypothesis")
    assert set(asked["hypothesis"]) == {"mask-ap-16", "mask-ap-32", "interaction", "strict", "box-ap-32"}
    interaction = asked.set_index("hypothesis").loc["interaction"]
    assert interaction["contrast"] == "RoIAlign − RoIPool, stride 32 − stride 16"
    assert interaction["paper"] == pytest.approx(3.9)


@pytest.mark.slow
def test_where_boxes_are_given_the_report_does_not_speak_of_finding_objects(tmp_path, undrawn):
    folder = write_study(tmp_path / "outputs", seeds=2)
    edit_record(folder / "study.json", lambda record: record.update(hypotheses=record["hypotheses"][:1]))
    for path in [folder / "study.json", *folder.glob("*/seed*/run.json")]:
        edit_record(path, lambda record: record["config"].update(rpn="jitter", jitter={"share": 0.1, "copies": 8}))
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path / "report")
    text = read(tmp_path / "report")
    assert "to which no mask fits with an IoU of 0.3 or more, though its box was given" in text
    assert "With every object handed to the detector there is no background" in text
    assert "box AP," not in text.replace("box AP, which would mean nothing", "") and "see box AP" not in text
    assert "In brackets: the paper's value" not in text and "smaller than the paper's" not in text
    assert json.loads((tmp_path / "report/figures/scenes.json").read_text())["missed"] == "without a mask that fits"


def test_missing_runs_are_listed_and_the_rest_is_provisional(tmp_path, undrawn):
    write_study(tmp_path / "outputs", seeds=4, skip=(("pool16", 1), ("align32", 3)))
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path)
    text = read(tmp_path)
    assert "**Provisional.**" in text and "| RoIPool, stride 16 | 1 | missing | not started |" in text
    assert "n = 3 seeds" in text and "n = 2 seeds" in text  # each contrast uses the seeds that its own arms share


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [0, 1])
def test_fewer_than_two_seeds_get_no_verdict(tmp_path, undrawn, seeds):
    skip = () if seeds else tuple((arm, 0) for arm in ARMS)
    write_study(tmp_path / "outputs", seeds=1, skip=skip)
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path)
    text = read(tmp_path)
    assert "All 5 claims are without a verdict" in text and "Reproduced." not in text
    assert "A verdict needs the same metric from at least 2 seeds in every arm" in text


def test_equal_undefined_and_damaged_values_do_not_stop_a_report(tmp_path, undrawn):
    folder = write_study(tmp_path / "outputs", seeds=2)
    for path in sorted(folder.glob("*/seed*/run.json")):
        edit_record(
            path,
            lambda record: record["metrics"].update(
                segm=dict.fromkeys(record["metrics"]["segm"], 30.0), bbox=dict.fromkeys(record["metrics"]["bbox"])
            ),
        )
    (folder / "pool16" / "seed0" / "detections.json").write_text("[]")
    (folder / "pool16" / "seed0" / "metrics.jsonl").unlink()
    (folder / "samples" / "1.png").unlink()
    (folder / "samples" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path)
    text = read(tmp_path)
    assert "The arms gave the same value in every seed" in text
    assert "No number of seeds would decide it" in text
    assert "RoIAlign beats RoIPool in box AP at stride 32. Measured: no complete seed" in text


@pytest.mark.slow
def test_an_undeclared_difference_is_flagged(tmp_path, undrawn):
    folder = write_study(tmp_path / "outputs", seeds=2)
    edit_record(folder / "align16/seed1/run.json", lambda record: record["config"].update(lr=0.02))
    edit_record(folder / "align32/seed0/run.json", lambda record: record["provenance"]["git"].update(dirty=True))
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path)
    text = read(tmp_path)
    assert "> **Warning.** The runs differ in more than the declared factors: `lr`." in text
    assert "uncommitted changes" in text and "nothing else differs" not in text


def test_runs_reused_from_another_study_are_named(tmp_path, undrawn):
    folder = write_study(tmp_path / "outputs", seeds=2)
    edit_record(folder / "align16" / "seed1" / "run.json", lambda record: record.update(taken_from="roiops/align-ave"))
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path)
    assert "reused from `roiops/align-ave`, which has the same settings (seeds 1)" in read(tmp_path)


@pytest.mark.slow
def test_a_clean_study_proves_that_only_its_factors_differ(report):
    text = read(report)
    assert "All of them belong to the declared factors: `roi` and `stride`." in text and "Warning" not in text
    assert "| `roi.op` | pool | align | pool | align |" in text


@pytest.mark.slow
def test_a_study_of_another_kind(tmp_path, undrawn):
    """One factor, no paper figures, an equivalence, no RoI operator: nothing of RoIAlign is left in the page."""
    folder = write_study(tmp_path / "outputs", seeds=3)
    record = load_study(folder / "study.json")
    arms = {
        "pool16": Arm("class-specific", [], {"mask_class": "specific"}),
        "align16": Arm("class-agnostic", [], {"mask_class": "agnostic"}),
    }
    equal = Hypothesis("same", "Both are equally good", "segm.AP", {"align16": 1, "pool16": -1}, "equal", margin=1.0)
    save(
        dataclasses.replace(
            record, title="Masks for each class, or for all", factors=["mask_class"], arms=arms, hypotheses=[equal]
        ),
        folder / "study.json",
    )
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path)
    text = read(tmp_path)
    assert "**✘ Contradicted.** The claim: Both are equally good" in text and "outside ±1 points" in text
    assert "no value from the paper is given" in text and "In brackets" not in text and "RoI" not in text


@pytest.mark.parametrize("reached", [66.0, 80.0])
def test_a_report_gives_no_verdict_where_masks_are_too_near_to_the_floors(tmp_path, undrawn, reached):
    with_floors(tmp_path / "outputs", reached)
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path, resamples=0)
    text = read(tmp_path)
    withheld = "> **Warning.** No verdict: the reference arm, RoIAlign, stride 16, is only 3.5 points above" in text
    assert withheld == (reached == 66.0) == ("All 5 claims are without a verdict." in text)
    assert ("The masks are worth comparing" in text) != withheld


def test_the_report_says_that_proposals_are_jittered_true_boxes(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    assert "true boxes" not in scope.setting(read_study(tmp_path, "roialign"))
    jitter = {"rpn": "jitter", "jitter": {"share": 0.2, "copies": 8}}
    edit_record(folder / "pool16/seed0/run.json", lambda record: record["config"].update(jitter))
    text = scope.setting(read_study(tmp_path, "roialign"))
    assert "In RoIPool, stride 16, proposals are true boxes with each side moved at random by up to 20 % of" in text
    for path in folder.glob("*/seed0/run.json"):
        edit_record(path, lambda record: record["config"].update(jitter))
    assert "In all arms, proposals are true boxes" in scope.setting(read_study(tmp_path, "roialign"))


def test_metrics_without_image_noise_are_named(tmp_path, undrawn):
    folder = write_study(tmp_path / "outputs", seeds=2)
    edit_record(folder / "study.json", lambda record: record["hypotheses"][0].update(metric="segm.APm"))
    render(read_study(tmp_path / "outputs", "roialign"), tmp_path, resamples=5)
    assert "Not known for: mask AP, medium objects, which cannot be measured again" in read(tmp_path)


@pytest.mark.slow
def test_the_command(outputs, tmp_path, capsys, undrawn):
    assert main(["--outputs", str(outputs), "--out", str(tmp_path)]) == 0
    assert f"roialign: open {tmp_path / 'roialign' / 'report.html'}" in capsys.readouterr().out
    assert main(["nothing", "--outputs", str(outputs), "--out", str(tmp_path)]) == 1
    assert "expected the record of study 'nothing'" in capsys.readouterr().err
    assert main(["--outputs", str(tmp_path / "empty")]) == 1
    assert "no study has records" in capsys.readouterr().err


def test_pictures_without_numbers_are_explained(report, undrawn, tmp_path, monkeypatch):
    assert "carry neither numbers nor names" not in read(report)
    monkeypatch.setattr(samples, "MOST_NOTES", 1)
    folder = write_study(tmp_path / "outputs", seeds=1)
    render(read_study(folder.parent, "roialign"), tmp_path)
    assert "Images with more than 1 objects carry neither numbers nor names.*" in read(tmp_path)


@pytest.mark.parametrize(("metric", "told"), [("segm.AP", True), ("bbox.AP", False)])
def test_the_main_charts_caption_names_the_threshold_only_if_a_claim_about_its_metric_has_one(
    tmp_path, undrawn, metric, told
):
    record = load_study(write_study(tmp_path) / "study.json")
    first, second = record.hypotheses[:2]
    claims = [first, dataclasses.replace(second, name="other", metric=metric, threshold=3.0)]
    save(dataclasses.replace(record, hypotheses=claims), tmp_path / "roialign/study.json")
    text = render(read_study(tmp_path, "roialign"), tmp_path / "report", resamples=0).read_text()
    assert first.metric == "segm.AP" and ("the dashed line is what the claim has to exceed" in text) == told


def test_arms_without_masks_are_pictured_with_their_boxes(tmp_path, monkeypatch):
    folder = write_study(tmp_path / "outputs", seeds=1)
    for arm in ("pool16", "align16"):
        path = folder / arm / "seed0" / "detections.json"
        boxes = [{key: item[key] for key in item if key != "segmentation"} for item in json.loads(path.read_text())]
        path.write_text(json.dumps(boxes))
        edit_record(folder / arm / "seed0" / "run.json", lambda record: record["metrics"].pop("segm"))
    (folder / "pool32" / "seed0" / "detections.json").unlink()
    study = read_study(tmp_path / "outputs", "roialign")
    drawn = []
    monkeypatch.setattr(samples, "paint", lambda axes, pixels, instances, *_: drawn.append(instances))
    scenes = read_scenes(study)
    assert samples.samples(study, scenes, Figures(tmp_path)) == samples.Samples(0, False, (1, 5))
    assert len(drawn) == 8 and all(drawn[:4])  # two images, the truth and three arms: one has no detections
    shown = {arm: [item for scene in scenes for item in scene.matched[arm, 0] if item] for arm in ("pool16", "align32")}
    assert all(item.is_box for item in shown["pool16"]) and not any(item.is_box for item in shown["align32"])
    box = max(shown["pool16"], key=lambda item: item.mask.sum())
    rows, columns = box.mask.any(1), box.mask.any(0)
    assert (box.mask == rows[:, None] & columns).all() and box.iou > 0.5
