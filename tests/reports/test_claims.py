"""The ledger: every slide is there, verdicts bear on claims the right way round, and nothing breaks without records."""

import dataclasses
import re

import pytest

from ablations.records.storage import load_study, save
from reports.analysis import analyse
from reports.claims import Claim, Finding, main, read_claims, render_claims
from reports.load import read_study
from reports.render import render
from tests.reports.conftest import write_study


@pytest.fixture(scope="module")
def ledger(outputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    render_claims(outputs, folder)
    return folder


def test_all_eleven_slides_are_there(ledger):
    text = (ledger / "claims.md").read_text(encoding="utf-8")
    assert re.findall(r"^## Slide (\d+)$", text, re.MULTILINE) == [str(number) for number in range(1, 12)]
    counts = "2 reproduced; 1 mixed; 1 contradicted; 8 not run yet; 1 nothing to measure"
    assert f"13 claims on eleven slides: {counts}." in text
    assert "Not run yet: fcis, maskclass, maskhead, maskloss, multitask, roiops, rpn." in text
    assert "[roialign](../roialign/report.md)" in text
    assert "| 8 | At stride 16 RoIAlign brings more than three points of AP. | ✔ reproduced | +3.4 | +14.3 |" in text


def test_the_page_needs_nothing_from_elsewhere(ledger):
    page = (ledger / "claims.html").read_text(encoding="utf-8")
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))
    links = {link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith(("#", "data:"))}
    assert links == {"../roialign/report.html"}


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(outputs, ledger, tmp_path):
    render_claims(outputs, tmp_path)
    files = [path.relative_to(ledger) for path in ledger.rglob("*") if path.is_file()]
    assert len(files) > 6 and all((tmp_path / name).read_bytes() == (ledger / name).read_bytes() for name in files)


def test_evidence_finds_its_hypotheses(outputs):
    claims = read_claims({"roialign": analyse(read_study(outputs, "roialign"), resamples=0)})
    named = {
        (claim.slide, claim.says[:12]): [item.verdict.hypothesis.name for item in claim.findings]
        for claim in claims
        if claim.findings
    }
    assert named == {
        (5, "RoIPool roun"): ["mask32"],
        (5, "Boxes and cl"): ["box32"],
        (8, "At stride 16"): ["mask16"],
        (8, "At stride 32"): ["mask32", "interaction"],
    }


def test_evidence_against_a_claim_reverses_the_verdict(outputs):
    claims = read_claims({"roialign": analyse(read_study(outputs, "roialign"), resamples=0)})
    boxes = next(claim for claim in claims if claim.says.startswith("Boxes"))
    assert boxes.findings[0].verdict.kind == "reproduced" and boxes.status == "contradicted"
    assert boxes.findings[0].against


def test_a_reversed_verdict_says_so(ledger):
    slide = (ledger / "claims.md").read_text(encoding="utf-8").partition("### Boxes and classes")[2]
    assert "**✘ Contradicted.**" in slide
    assert "**✘ Speaks against the slide.** RoIAlign beats RoIPool in box AP" in slide


@pytest.mark.slow
def test_pictures_of_a_report_beside_it_are_used(outputs, tmp_path):
    render(read_study(outputs, "roialign"), tmp_path / "roialign", resamples=0)
    text = render_claims(outputs, tmp_path / "claims", tmp_path).read_text(encoding="utf-8")
    assert "](../roialign/figures/paired.png)" in text and "](../roialign/figures/why.png)" in text
    drawn = {path.name for path in (tmp_path / "claims" / "figures").glob("*.png")}
    assert drawn == {"overview.png", "slide05-05-paired.png"}  # of box AP, which the report does not draw
    page = (tmp_path / "claims" / "claims.html").read_text(encoding="utf-8")
    assert page.count("<img ") == text.count("![")


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "contradicted"], "mixed"),
        (["no verdict"], "no verdict"),
        ([], "not run yet"),
    ],
)
def test_the_status_of_a_claim(kinds, status):
    findings = [Finding(None, "", None, kind, 1) for kind in kinds]
    assert Claim(1, "", "", "", [], {}, {}, [], findings, measurable=True).status == status
    assert Claim(1, "", "", "", [], {}, {}, [], [], measurable=False).status == "nothing to measure"


def test_what_stands_beside_a_claim_does_not_decide_it():
    deciding, aside = Finding(None, "", None, "reproduced", 2), Finding(None, "", None, "contradicted", 2, aside=True)
    for findings, status in (([deciding, aside], "reproduced"), ([aside], "measured, no claim to test")):
        assert Claim(1, "", "", "", [], {}, {}, [], findings, measurable=True).status == status


def test_without_any_records(tmp_path):
    render_claims(tmp_path / "nothing", tmp_path)
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "12 not run yet; 1 nothing to measure" in text and "![" not in text


def test_unreadable_and_silent_studies_are_named(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    record = load_study(folder / "study.json")
    for name, hypotheses in (("maskloss", record.hypotheses[4:]), ("fcis", record.hypotheses[:1])):
        save(dataclasses.replace(record, name=name, hypotheses=hypotheses), tmp_path / name / "study.json")
    (folder / "study.json").write_text("[]")
    assert main(["--outputs", str(tmp_path), "--out", str(tmp_path / "claims")]) == 0
    text = (tmp_path / "claims" / "claims.md").read_text(encoding="utf-8")
    assert "> **Warning.** roialign: roialign/study.json: expected a record of schema 1, got list" in text
    assert "The study `maskloss` has records but states no hypothesis about this." in text
    assert "**– No verdict.**" in text
