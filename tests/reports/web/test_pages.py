"""The site: every slide, every report, and links that lead somewhere."""

import re
from pathlib import Path

import pytest
from markupsafe import escape

from reports.analysis import analyse
from reports.claims import read_claims
from reports.gallery import GALLERY
from reports.text import transfer
from reports.text.source import find_line
from reports.web import story
from reports.web.pages import published, write_site
from tests.reports.text.hand_made import study

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]  # one process makes what the tests share


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    write_site(folder, ROOT / GALLERY)
    return folder


def test_every_published_study_has_a_page_and_every_link_leads_somewhere(site):
    studies = {path.parent.parent.name for path in (ROOT / GALLERY).glob("*/records/study.json")}
    pages = {path.parent.name for path in site.glob("*/report.html")}
    assert pages == studies
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r'href="([^"#]+?)(?:#[^"]*)?"', text):
            outside = ("https://creativecommons.org/", "https://www.flickr.com/", "https://arxiv.org/abs/")
            if not target.startswith(("data:", *outside)):
                assert (page.parent / target).is_file(), f"{page.relative_to(site)} links to {target}"


def test_a_reader_gets_from_each_report_to_the_next_and_back(site):
    pages = sorted(site.glob("*/*.html"))
    steps = {page: re.findall(r'rel="(prev|next)" href="\.\./([^"]+)"', page.read_text("utf-8")) for page in pages}
    after = {page: site / target for page, links in steps.items() for kind, target in links if kind == "next"}
    before = {page: site / target for page, links in steps.items() for kind, target in links if kind == "prev"}
    assert len(after) == len(pages) - 1 and {target: page for page, target in after.items()} == before
    # At the top and at the end, under names that tell the two apart.
    ends = [re.findall(r'<nav class="site" aria-label="([^"]+)"', page.read_text("utf-8")) for page in pages]
    assert all(names == ["site", "site, at the end"] for names in ends)
    assert all(page.read_text("utf-8").count('href="../index.html"') == 2 for page in pages)


def test_the_story_tells_every_slide_with_what_came_out(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<section class="slide" id="slide-(\d+)">', text) == [str(number) for number in range(1, 12)]
    measured = {claim.slide for claim in read_claims(published(ROOT / GALLERY)) if claim.findings}
    told = text.partition('id="photographs"')[0]
    assert told.count('class="predict"') == len(measured) > 6 and 7 not in measured  # 7 is a step of the construction
    assert text.count("The line that decides it") == 11


def test_the_story_sets_photographs_beside_synthetic_images_where_there_are_any(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    published = [entry["study"] for entry in transfer.contents()["set"] if (site / entry["study"]).is_dir()]
    table = text.partition('id="photographs"')[2].partition("</table>")[0]
    assert bool(table) == bool(published)
    assert table.count("<tr>") == (1 + len(transfer.contents()["question"]) if published else 0)


def test_a_slide_asks_only_with_choices():
    assert [slide["number"] for slide in story.slides()] == list(range(1, 12))
    assert all(bool(slide.get("question")) == bool(slide.get("choices")) for slide in story.slides())


def test_an_excerpt_marks_its_line():
    line = find_line("models/build.py", "def build_roi_operator(")
    excerpt = story.excerpt(line)
    assert excerpt.where == line.where and f"<mark>{escape(line.text)}</mark>" in excerpt.text
    assert excerpt.text.count("\n") == story.CONTEXT  # the lines before it are blank
    inside = find_line("ops/geometry.py", "first, last = round_half_away(low)")  # right after a docstring
    assert '"""' not in story.excerpt(inside).text


def test_sources_are_links_where_their_address_is_known():
    assert story.source_link("models/build.py:3", "") == "<code>models/build.py:3</code>"
    link = story.source_link("models/build.py:3", "https://example.org/a/blob/c")
    assert 'href="https://example.org/a/blob/c/models/build.py#L3"' in link
    assert "href" not in story.source_link("models/build.py:3", 'https://example.org/"onclick=')


def test_what_came_out_is_one_of_the_choices():
    studies = published(GALLERY)
    for slide in story.slides():
        right = story.right_choice(slide, studies)
        assert (right is None) == ("choices" not in slide), slide["number"]
        assert story.right_choice(slide, {}) is None


def test_a_choice_is_read_from_the_records():
    measured = {"choices": [{"text": "less", "below": 1}, {"text": "about equal", "below": 2}, {"text": "more"}]}
    studies = {"roialign": analyse(study(), resamples=0)}
    name = f"roialign/{studies['roialign'].verdicts[0].hypothesis.name}"  # 11 points
    assert story.right_choice(measured | {"measure": name}, studies) == 2
    assert story.right_choice(measured | {"measure": [name, name]}, studies) == 1
    choices = [{"text": "no", "verdict": "contradicted"}, {"text": "unclear"}, {"text": "yes", "verdict": "reproduced"}]
    assert story.right_choice({"choices": choices, "verdict": name}, studies) == 1


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("https://github.com/some/one.git", "https://github.com/some/one/blob/0123"),
        ("git@github.com:some/one", "https://github.com/some/one/blob/0123"),
        ("https://example.org/some/one.git", ""),
        ("", ""),
    ],
)
def test_sources_are_on_github_where_the_clone_is_from_there(monkeypatch, origin, address):
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    monkeypatch.setattr(story, "_git", lambda *arguments: origin if arguments[0] == "remote" else "0123")
    assert story.repository() == address


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_story_fits_loads_nothing_external_and_is_accessible(open_page, accessible, site, width, scheme):
    page = open_page(site / "index.html", width, scheme)
    assert page.locator("#hero .scene").first.bounding_box()["y"] < 500
    page.locator(".choices button").first.click()
    assert page.locator(".predict details").first.get_attribute("open") is not None
    first = page.locator(".predict").first
    right = first.locator(".choices button").nth(int(first.get_attribute("data-right")))
    assert "right" in right.get_attribute("class") and right.inner_text() in first.locator(".outcome").inner_text()
    right.click()
    assert first.locator(".outcome").inner_text() == "Right."
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    accessible(page)
    assert page.troubles == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_ledger_fits_loads_nothing_external_and_is_accessible(open_page, accessible, site, width, scheme):
    page = open_page(site / "claims/claims.html", width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h2", has_text="Slide").count() == 11
    accessible(page)
    assert page.troubles == []


def test_no_published_report_nor_any_of_its_tables_is_wider_than_the_screen(open_page, site):
    wide = "[...document.querySelectorAll('.wide')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    for path in sorted(site.glob("*/report.html")):
        page = open_page(path)
        page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path.parent.name
            assert page.evaluate(wide) == 0, path.parent.name
        assert page.troubles == [], path.parent.name


def test_the_story_can_be_read_without_scripts(open_page, site):
    page = open_page(site / "index.html", java_script_enabled=False)
    page.locator("summary").first.click()
    assert page.locator("#slide-1 .predict em").first.is_visible()
