"""Reports in a real browser: they fit the screen, load nothing, and their slider and tables work by keyboard."""

import pytest

from reports.load import read_study
from reports.render import render

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report")]  # one process makes what the tests share


@pytest.fixture(scope="module")
def report(outputs, tmp_path_factory):
    return render(read_study(outputs, "roialign"), tmp_path_factory.mktemp("report"), resamples=0).with_suffix(".html")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_loads_nothing_external_and_is_accessible(open_page, accessible, report, width, scheme):
    page = open_page(report, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    accessible(page)
    assert page.troubles == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    overflowing = (
        "[...document.querySelectorAll('.wide')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    )
    assert page.evaluate(overflowing) == 0


def test_the_first_chart_is_on_the_first_screen(open_page, report):
    page = open_page(report)
    box = page.locator("figure img").first.bounding_box()
    assert box["y"] + box["height"] < 900


def test_the_slider_works_by_keyboard(open_page, report):
    page = open_page(report)
    line = page.locator(".compare .handle").last
    before = float(line.get_attribute("x1"))
    page.locator(".compare input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    assert float(line.get_attribute("x1")) > before
    page.locator(".compare select").first.select_option("pool32")
    assert "RoIPool, stride 32" in page.locator(".compare output").text_content()


def test_the_slider_draws_true_outlines_and_names_classes_where_there_are_several(open_page, report):
    page = open_page(report)
    assert page.locator(".compare .own").count() > 0
    assert "box 0." in page.locator(".compare output").text_content()
    assert page.locator(".compare a").count() == 0  # images that are drawn have no sources


def test_a_table_is_sorted_by_a_click_and_back(open_page, report):
    page = open_page(report)
    table = page.locator("table", has=page.locator("th", has_text="mask AP50")).first
    heads = [head.text_content() for head in table.locator("th").all()]
    column = heads.index("mask AP")

    def values():
        return [
            float(row.locator("td").nth(column).text_content().split()[0]) for row in table.locator("tbody tr").all()
        ]

    button = table.locator("th button").nth(column)
    button.click()
    assert values() == sorted(values())
    button.click()
    assert values() == sorted(values(), reverse=True)


def test_differences_stay_below_the_arms_when_a_table_is_sorted(open_page, report):
    page = open_page(report)
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    table = page.locator("table", has=page.locator("td:first-child em")).first

    def is_difference():
        return [row.locator("td:first-child em").count() > 0 for row in table.locator("tbody tr").all()]

    assert is_difference() == sorted(is_difference()) and any(is_difference()) and not all(is_difference())
    for _ in ("ascending", "descending", "as it was"):
        table.locator("th button").nth(1).click()
        assert is_difference() == sorted(is_difference())


def test_the_page_can_be_read_without_scripts(open_page, report):
    page = open_page(report, java_script_enabled=False)
    assert page.locator(".compare").count() == 0 and page.locator("img[data-name=samples]").is_visible()
    page.locator("summary", has_text="Every seed").click()
    assert page.locator("td", has_text="RoIPool, stride 16").first.is_visible()
