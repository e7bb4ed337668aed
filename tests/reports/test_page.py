"""Pages of records that came from somebody else: nothing runs, nothing is loaded, nothing of this machine is shown."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ablations.errors import RecordError
from ablations.records.storage import load_study, save
from reports.load import read_study
from reports.page import to_html, write_page
from reports.render import render
from reports.text.markup import escape, table
from tests.damage import edit_record
from tests.reports.conftest import write_study

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[link](javascript:alert(1))",
    "[link](&#106;avascript:alert(1))",
    "[link](javascript&colon;alert(1))",
    "[link](data:text/html;base64,PHNjcmlwdD4=)",
    "[link][ref]\n\n[ref]: javascript:alert(1)",
    "![picture](http://example.org/track.png)",
    "![picture](../../../secret.png)",
    "![picture](figures/../../secret.png)",
    "<http://example.org>",
    "[link](https://www.flickr.com.example.org/photo.gne?id=1)",
    "[link](https://www.flickr.com/photo.gne?id=1&x=javascript:alert(1))",
    "[link](http://www.flickr.com/photo.gne?id=1)",
    "[link](https://www.flickr.com/signin)",
    "[link](https://creativecommons.org@example.org/licenses/by/2.0/)",
    "[link](https://creativecommons.org/licenses/../../by/2.0/)",
    "<details>\n<summary>x</summary>\n<iframe src=http://example.org></iframe>\n</details>",
    "a | b\n\n# heading\n\n> **Warning.** made up",
    "$$\\frac{1}{0}$$ `code` *em* **bold** _em_ ~~gone~~",
]


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            del self.inside[len(self.inside) - 1 - self.inside[::-1].index(tag) :]

    def handle_data(self, data):
        if self.inside and self.inside[-1] in self.inline:
            self.inline[self.inside[-1]].append(data)
        else:
            self.text += data

    def check(self) -> None:
        """That nothing is here but what this package writes."""
        assert [attributes for tag, attributes in self.tags if tag == "script"] == [
            {"type": "application/json", "id": "scenes"},
            {},
        ]
        assert not {"iframe", "object", "embed", "link", "form", "base", "svg"} & {tag for tag, _ in self.tags}
        for tag, attributes in self.tags:
            assert not any(name.startswith("on") or name == "style" for name in attributes)
            for name in ("href", "src"):
                target = attributes.get(name)
                assert target is None or re.fullmatch(
                    r"#[a-z0-9_-]+|https://www\.flickr\.com/photo\.gne\?id=\d+|https://creativecommons\.org/licenses/[a-z-]+/[\d.]+/|"
                    r"https://arxiv\.org/abs/[\d.]+|"
                    r"data:(image/(svg\+xml|png|jpeg)|text/csv);base64,[A-Za-z0-9+/=]*|(\.\./)?[\w-]+/[\w-]+\.html",
                    target,
                ), f"{tag} {name}={target[:60]}"


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_from_elsewhere_is_text(text, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path.parent / "secret.png").write_bytes(b"secret")
    page = to_html(f"# Title\n\n{text}\n\n| a | b |\n|---|---|\n| {text} | 1 |\n", tmp_path / "report")
    Page(page).check()
    assert "c2VjcmV0" not in page  # "secret" as data


def test_links_lead_to_photographs_and_their_licences_and_nowhere_else(tmp_path):
    good = ["https://www.flickr.com/photo.gne?id=100911501", "https://creativecommons.org/licenses/by-sa/2.0/"]
    page = Page(to_html("# Title\n\n" + " ".join(f"[a]({target})" for target in good), tmp_path))
    page.check()
    links = [attributes for tag, attributes in page.tags if tag == "a"]
    assert links == [{"href": target, "rel": "noreferrer"} for target in good]
    bad = to_html(
        "# Title\n\n" + "\n\n".join(text for text in HOSTILE if "flickr" in text or "commons" in text), tmp_path
    )
    assert not [attributes for tag, attributes in Page(bad).tags if tag == "a"]


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_shown_as_it_is(text, tmp_path):
    page = Page(to_html(f"# Title\n\nBefore {escape(text)} after\n\n{table(['head'], [[text]])}\n", tmp_path))
    page.check()
    shown = re.sub(r"\s+", " ", text)
    assert f"Before {shown} after" in re.sub(r"\s+", " ", page.text)
    assert not {"em", "strong", "code", "a", "img", "span"} & {tag for tag, _ in page.tags}


@pytest.mark.slow
def test_a_report_of_hostile_records(tmp_path):
    """The hostile texts stand wherever a record holds text."""
    folder = write_study(tmp_path / "outputs", seeds=2, skip=(("pool32", 1),))
    texts = iter(HOSTILE * 20)
    record = load_study(folder / "study.json")
    hypotheses = [
        dataclasses.replace(item, name=next(texts), claim=next(texts), source=next(texts)) for item in record.hypotheses
    ]
    arms = {
        name: dataclasses.replace(arm, label=f"{next(texts)} {name}", factors=arm.factors | {next(texts): next(texts)})
        for name, arm in record.arms.items()
    }
    changed = {"title": next(texts), "question": next(texts), "data": {"name": next(texts)}}
    record = dataclasses.replace(record, hypotheses=hypotheses, arms=arms, exhibits=[next(texts)], **changed)
    save(record, folder / "study.json")
    for path in folder.glob("*/seed*/run.json"):
        run = json.loads(path.read_text()) | {"digest": ""}
        run["config"][next(texts)] = next(texts)
        run["provenance"] |= {next(texts): next(texts), "git": {"commit": next(texts), "dirty": True}}
        run |= {"taken_from": next(texts), "stages": {next(texts): next(texts)}}
        run["metrics"][next(texts)] = {next(texts): 1.0}
        path.write_text(json.dumps(run))
    truth = json.loads((folder / "ground_truth.json").read_text())
    for category in truth["categories"]:
        category["name"] = next(texts)
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    (folder / "pool32" / "seed1").mkdir(parents=True)
    (folder / "pool32" / "seed1" / "log.txt").write_text(f"started\nTraceback\n{HOSTILE[0]}")
    path = render(read_study(tmp_path / "outputs", "roialign"), tmp_path / "report", resamples=0)
    page = Page(path.with_suffix(".html").read_text(encoding="utf-8"))
    page.check()
    assert "<script>alert(1)</script>" in page.text
    assert "<script>" not in path.read_text(encoding="utf-8")


def test_a_picture_that_is_a_link_to_elsewhere_is_not_shown(tmp_path):
    report = tmp_path / "reports" / "report"
    (report / "figures").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (report / "figures" / "mine.png").write_bytes(b"mine")
    (report / "figures" / "link.png").symlink_to(tmp_path / "secret.png")
    page = to_html("![mine](figures/mine.png)\n\n![link](figures/link.png)\n", report)
    assert "bWluZQ==" in page and "c2VjcmV0" not in page


def test_arms_cannot_point_out_of_their_study(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    strange = {"../../elsewhere": {"label": "", "overrides": []}}
    edit_record(folder / "study.json", lambda record: record["arms"].update(strange))
    with pytest.raises(RecordError, match="expected names of arms of letters"):
        read_study(tmp_path, "roialign")


def test_the_browser_is_told_to_allow_nothing_else(tmp_path):
    text = to_html("# Title\n", tmp_path)
    page = Page(text)
    [policy] = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind, content in (("style", page.inline["style"][0]), ("script", page.inline["script"][-1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_tables_can_be_stacked_and_folds_are_folds(tmp_path):
    cells = "| arm | AP |\n|:--|--:|\n| one | 1.0 |"
    fold = "<details>\n<summary>More *text*</summary>\n\nInside\n\n</details>"
    page = to_html(f"# Title\n\n{cells}\n\n{fold}\n\nAfter\n", tmp_path)
    assert '<td data-label="arm">one</td>' in page and '<td class="number" data-label="AP">1.0</td>' in page
    fold = page[page.index("<details>") : page.index("</details>")]
    assert "<summary>More" in fold and "Inside" in fold and "After" not in fold


def test_a_page_is_written_anywhere_with_links_to_other_pages(tmp_path):
    report = tmp_path / "gallery" / "claims" / "claims.md"
    report.parent.mkdir(parents=True)
    report.write_text("# Title\n\n[the report](../roialign/report.md)\n")
    path = write_page(report, tmp_path / "site" / "claims")
    assert path == tmp_path / "site" / "claims" / "claims.html"
    assert 'href="../roialign/report.html"' in path.read_text()


def test_damaged_detections_count_as_missing(tmp_path):
    folder = write_study(tmp_path, seeds=1)
    path: Path = folder / "pool16" / "seed0" / "detections.json"
    for damage in (
        "[1, 2]",
        '[{"image_id": 1}]',
        '[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [0, 0, 1, 1]}]',
    ):
        path.write_text(damage)
        assert read_study(tmp_path, "roialign").detections("pool16", 0) is None


def test_numbers_stay_with_what_they_count_and_code_stays_as_it_is(tmp_path):
    page = to_html("# T\n\n95 % of 16 px with n = 5 (table 2c), by `x = 5 px n = 3 %`.", tmp_path)
    assert "95\u00a0% of 16\u00a0px with n\u00a0=\u00a05 (table\u00a02c)" in page
    assert "<code>x = 5 px n = 3 %</code>" in page
