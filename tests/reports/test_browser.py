"""Reports in a real browser: they fit the screen, load nothing, and their slider and tables work by keyboard."""

import shutil

import pytest

from reports.load import read_study
from reports.render import render

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def report(outputs, tmp_path_factory):
    return render(read_study(outputs, "roialign"), tmp_path_factory.mktemp("report"), resamples=0).with_suffix(".html")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser, report, width=1280, scheme="light", **options):
    """The page, and what went wrong on it: messages of the console, errors, and requests."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
    page, troubles = context.new_page(), []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: request.url.startswith("data:") or troubles.append(request.url))
    page.goto(report.as_uri())
    return page, [trouble for trouble in troubles if trouble != report.as_uri()]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_asks_for_nothing(browser, report, width, scheme):
    page, troubles = opened(browser, report, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    assert troubles == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    overflowing = (
        "[...document.querySelectorAll('.wide')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    )
    assert page.evaluate(overflowing) == 0


def test_the_first_chart_is_on_the_first_screen(browser, report):
    page, _ = opened(browser, report)
    box = page.locator("figure img").first.bounding_box()
    assert box["y"] + box["height"] < 900


def test_the_slider_works_by_keyboard(browser, report):
    page, _ = opened(browser, report)
    line = page.locator(".compare .handle").last
    before = float(line.get_attribute("x1"))
    page.locator(".compare input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    assert float(line.get_attribute("x1")) > before
    page.locator(".compare select").first.select_option("pool32")
    assert "RoIPool, stride 32" in page.locator(".compare output").text_content()


def test_a_table_is_sorted_by_a_click_and_back(browser, report):
    page, _ = opened(browser, report)
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


def test_the_page_can_be_read_without_scripts(browser, report):
    page, _ = opened(browser, report, java_script_enabled=False)
    assert page.locator(".compare").count() == 0 and page.locator("img[data-name=samples]").is_visible()
    page.locator("summary", has_text="Every seed").click()
    assert page.locator("td", has_text="RoIPool, stride 16").first.is_visible()
