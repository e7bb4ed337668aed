"""The ledger: every slide is there, verdicts bear on claims the right way round, and nothing breaks without records."""

import dataclasses
import re
import tomllib

import pytest

from ablations.records.schema import ExhibitRecord, Hypothesis
from ablations.records.storage import load_study, save
from reports.analysis import analyse
from reports.claims import CLAIMS, Claim, Finding, main, read_claims, render_claims
from reports.figures import claim_pictures
from reports.figures.style import Figures
from reports.load import read_study
from reports.render import render
from reports.text.answers import PLACE
from reports.text.labels import changed_factors, factor_label
from reports.text.source import ROOT, find_line
from tests.reports.conftest import AT_16, AT_32, write_study

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ledger")]  # one process makes what the tests share


@pytest.fixture(scope="module")
def ledger(outputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    render_claims(outputs, folder)
    return folder


def test_all_eleven_slides_are_there(ledger):
    text = (ledger / "claims.md").read_text(encoding="utf-8")
    assert re.findall(r"^## Slide (\d+)$", text, re.MULTILINE) == [str(number) for number in range(1, 12)]
    counts = "2 reproduced; 1 partly run; 11 not run yet; 1 describes a step"
    assert f"15 claims on eleven slides: {counts}." in text
    assert (
        "Not run yet: fcis, length, maskclass, maskhead, maskloss, misalignment, multitask, roiops, rpn, stages."
        in text
    )
    assert "[roialign](../roialign/report.md)" in text
    assert (
        "| 8 | At stride 16 RoIAlign gains more than three points of AP. | mask AP: RoIAlign − RoIPool, stride 16 |"
        in text
    )
    assert "| ✔ reproduced | +3.4 | +14.3 points | +12.5 to +16.0 | 5 |" in text


def test_a_claim_has_its_answer_and_says_where_it_is_decided(ledger):
    text = (ledger / "claims.md").read_text(encoding="utf-8")
    slide = text.partition("### At stride 16 RoIAlign gains")[2].partition("###")[0]
    assert "**✔ Reproduced.** At stride 16 RoIAlign gains **14.3** points of mask AP. The paper: +3.4" in slide
    line = find_line("models/backbone.py", "TOY_DEPTHS = {16: 2, 32: 3}")
    assert "Run it: `python run.py study=roialign`. Configuration: `conf/model/toy_fpn_head.yaml`." in slide
    assert f"The line that decides it, `models/backbone.py:{line.number}`: `TOY_DEPTHS = " in slide


def test_the_page_needs_nothing_from_elsewhere(ledger):
    page = (ledger / "claims.html").read_text(encoding="utf-8")
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))
    links = {link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith(("#", "data:"))}
    assert links == {"../roialign/report.html"}


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(outputs, ledger, tmp_path):
    render_claims(outputs, tmp_path)
    files = [path.relative_to(ledger) for path in ledger.rglob("*") if path.is_file()]
    assert len(files) > 5 and all((tmp_path / name).read_bytes() == (ledger / name).read_bytes() for name in files)


def test_every_claim_names_hypotheses_that_studies_state_and_files_that_exist(compose):
    entries = tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]
    asked = {name for entry in entries for role in ("decides", "against", "beside") for name in entry.get(role, [])}
    named = {match[2] for entry in entries for match in PLACE.finditer(entry.get("answer", ""))}
    stated, measured = set(), set()
    for path in sorted((ROOT / "conf" / "study").glob("*.yaml")):
        study = compose([f"study={path.stem}"]).study if path.stem not in ("none", "real") else None
        if study is not None:
            stated |= {f"{path.stem}/{hypothesis.name}" for hypothesis in study.hypotheses}
            measured |= {f"{path.stem}/{arm}" for arm in study.arms}
    assert asked <= stated
    assert {place for place in named if place.count("/") == 1} <= stated
    assert {place.rpartition("/")[0] for place in named if place.count("/") == 2} <= measured
    for claim in read_claims({}):
        assert (ROOT / claim.config).is_file() and claim.code.text
        assert claim.status in ("not run yet", "describes a step") and claim.answer == ""


def test_every_answer_tells_what_decides_its_claim():
    for entry in tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]:
        named = {match[2] for match in PLACE.finditer(entry.get("answer", ""))}
        deciding = set(entry.get("decides", []) + entry.get("against", []))
        assert deciding <= named or all(place.startswith("rpn/stride-16/") for place in named)


def test_a_claim_finds_its_hypotheses(outputs):
    claims = read_claims({"roialign": analyse(read_study(outputs, "roialign"), resamples=0)})
    named = {
        (claim.slide, claim.says[:12]): [item.verdict.hypothesis.name for item in claim.findings]
        for claim in claims
        if claim.findings
    }
    assert named == {
        (5, "Boxes and cl"): ["box-ap-32"],
        (8, "At stride 16"): ["mask-ap-16"],
        (8, "At stride 32"): ["mask-ap-32"],
        (8, "The coarser "): ["interaction"],
    }


def test_what_speaks_against_a_claim_reverses_the_verdict(outputs):
    claims = read_claims({"roialign": analyse(read_study(outputs, "roialign"), resamples=0)})
    (found,) = next(claim for claim in claims if claim.says.startswith("Boxes")).findings
    assert found.verdict.kind == "reproduced" and found.kind == "contradicted" and found.against


def test_an_equivalence_outside_our_margin_does_not_contradict_a_slide(tmp_path):
    folder = write_study(tmp_path)
    record = load_study(folder / "study.json")
    equal = Hypothesis("mask-ap-16", "Equal.", "segm.AP", dict(record.hypotheses[0].contrast), "equal", margin=2.0)
    save(dataclasses.replace(record, hypotheses=[equal]), folder / "study.json")
    claims = read_claims({"roialign": analyse(read_study(tmp_path, "roialign"), resamples=0)})
    (claim,) = (claim for claim in claims if claim.findings)
    assert claim.findings[0].verdict.kind == "contradicted" and claim.status == "beyond our margin"


def test_a_reversed_verdict_says_so(ledger):
    slide = (ledger / "claims.md").read_text(encoding="utf-8").partition("### Boxes and classes")[2]
    assert "**– Partly run.**" in slide  # of three hypotheses, one has records
    assert "**✘ Speaks against the slide.** The claim: RoIAlign beats RoIPool in box AP" in slide


@pytest.mark.slow
def test_pictures_of_a_report_beside_it_are_used(outputs, tmp_path):
    render(read_study(outputs, "roialign"), tmp_path / "roialign", resamples=0)
    text = render_claims(outputs, tmp_path / "claims", tmp_path).read_text(encoding="utf-8")
    assert "](../roialign/figures/paired.svg)" in text and "](../roialign/figures/why.svg)" in text
    drawn = {path.name for path in (tmp_path / "claims" / "figures").iterdir()}
    assert drawn == {"overview.svg", "slide05-05-paired.svg"}  # of box AP, which the report does not draw
    page = (tmp_path / "claims" / "claims.html").read_text(encoding="utf-8")
    assert page.count("<img ") == text.count("![")


def claim(findings, num_deciding):
    return Claim(1, "", "", "", "", [], "", {}, "", None, num_deciding, findings)


@pytest.mark.parametrize(
    ("kinds", "num_deciding", "status"),
    [
        (["reproduced", "reproduced"], 2, "reproduced"),
        (["reproduced", "contradicted"], 2, "mixed"),
        (["reproduced"], 2, "partly run"),
        (["no verdict"], 1, "no verdict"),
        ([], 1, "not run yet"),
        ([], 0, "describes a step"),
    ],
)
def test_the_status_of_a_claim(kinds, num_deciding, status):
    assert claim([Finding(None, "", None, kind, 1) for kind in kinds], num_deciding).status == status


def test_what_stands_beside_a_claim_does_not_decide_it():
    deciding, aside = Finding(None, "", None, "reproduced", 2), Finding(None, "", None, "contradicted", 2, aside=True)
    assert claim([deciding, aside], 1).status == "reproduced"
    assert claim([aside], 1).status == "not run yet"


def test_without_any_records(tmp_path):
    render_claims(tmp_path / "nothing", tmp_path)
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "14 not run yet; 1 describes a step" in text and "![" not in text


def test_unreadable_and_silent_studies_are_named(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    record = load_study(folder / "study.json")
    mask_ap = dataclasses.replace(record.hypotheses[0], name="mask-ap")
    for name, hypotheses in (("maskloss", record.hypotheses[4:]), ("fcis", [mask_ap])):
        save(dataclasses.replace(record, name=name, hypotheses=hypotheses), tmp_path / name / "study.json")
    (folder / "study.json").write_text("[]")
    assert main(["--outputs", str(tmp_path), "--out", str(tmp_path / "claims")]) == 0
    text = (tmp_path / "claims" / "claims.md").read_text(encoding="utf-8")
    assert "> **Warning.** roialign: roialign/study.json: expected a record of schema 1, got list" in text
    assert "The study `maskloss` has records but states no hypothesis about this." in text
    assert "**– No verdict.**" in text


def test_a_line_of_code_is_found_by_its_text():
    line = find_line("models/build.py", "def build_roi_operator(")
    assert line.text.startswith("def build_roi_operator(") and line.where == f"models/build.py:{line.number}"
    with pytest.raises(ValueError, match=r"models/build\.py: expected one line with 'no such line', got 0"):
        find_line("models/build.py", "no such line")


def test_an_interaction_names_the_factors_that_change_between_its_differences(outputs):
    study = read_study(outputs, "roialign")
    assert changed_factors(study, AT_16, AT_32) == ["stride"]
    assert factor_label("stride") == "stride" and factor_label("budget.train.steps") == "number of steps"


def test_a_picture_of_an_exhibit_that_cannot_be_read_is_left_out(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    record = ExhibitRecord("inference_cost", "roialign", {}, {"variants": "none"}, {})
    save(record, folder / "exhibits" / "inference_cost.json")
    analysis = analyse(read_study(tmp_path, "roialign"), resamples=0)
    figures = Figures(tmp_path / "figures")
    for kind in ("inference_cost", "neighbours", "pairs"):
        assert not claim_pictures.draw(analysis, {"kind": kind}, figures, kind)
