"""Charts as small SVG files that follow a dark screen."""

import xml.etree.ElementTree as xml

import matplotlib.pyplot as plt
import pytest

from reports.figures import svg
from reports.figures.style import DARK, INK, Figures, figure

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = """<svg xmlns="http://www.w3.org/2000/svg">
 <defs>
  <style type="text/css">*{stroke-linejoin: round}</style>
 </defs>
 <!-- a word -->
 <path d="M 43.441234 130.291234
L 242.729876 -0.512345
z
" style="fill: #1a1a1a; stroke: #123456"/>
 <use x="1.2345" style="fill: #1a1a1a; stroke: #123456"/>
</svg>"""


def test_the_same_drawing_in_fewer_bytes():
    compacted = svg.compact(DRAWN, {INK: "#e8e8e6"})
    assert 'd="M43.4 130.2L242.7 -0.5z"' in compacted and "<!--" not in compacted
    assert ".s0{fill: #1a1a1a; stroke: #123456}" in compacted and compacted.count('class="s0"') == 2
    assert "@media (prefers-color-scheme: dark) {.s0{fill:#e8e8e6}}" in compacted
    xml.fromstring(compacted)


def test_letters_stand_where_they_stood_under_short_names():
    text = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><defs>
<path id="DejaVuSans-Bold-4b" d="M0 0"/><path id="m1a" d="M0 1"/></defs>
<use xlink:href="#DejaVuSans-Bold-4b"/><use xlink:href="#DejaVuSans-Bold-4b" transform="translate(97.40625 0)"/>
<use xlink:href="#DejaVuSans-Bold-4b" transform="translate(12.4 38.28125) scale(0.7)"/>
<use xlink:href="#DejaVuSans-Bold-4b" transform="translate(12.4 38.28125)"/><use xlink:href="#m1a" x="1.26"/></svg>"""
    drawing = xml.fromstring(svg.compact(text, {}))
    assert [path.get("id") for path in drawing.iter(f"{SVG}path")] == ["DVSB-4b", "m1a"]
    marks = [dict(use.items()) for use in drawing.iter(f"{SVG}use")]
    assert [mark.pop("href") for mark in marks] == ["#DVSB-4b"] * 4 + ["#m1a"]
    assert marks[:2] + marks[3:] == [{}, {"x": "97"}, {"x": "12", "y": "38"}, {"x": "1.2"}]
    assert marks[2] == {"transform": "translate(12.4 38.28125) scale(0.7)"}


def test_a_drawing_on_a_photograph_stays_on_white():
    assert "@media" not in svg.compact(DRAWN.replace("<use", "<image/><use"), DARK)


@pytest.mark.parametrize("text", ["A < B & C", "“x” d=1 2 L 3"])
def test_what_matplotlib_writes_stays_a_drawing_with_the_same_marks(tmp_path, text):
    drawn, grid = figure(width=3, height=2)
    grid[0][0].plot([1, 2, 3], [3, 1, 2], marker="o", color=INK)
    grid[0][0].set_title(text)
    plain = tmp_path / "plain.svg"
    drawn.savefig(plain)
    Figures(tmp_path / "figures").save(drawn, "small")
    small = tmp_path / "figures/small.svg"
    counts = [len(xml.parse(path).getroot().findall(f".//{SVG}use")) for path in (plain, small)]
    assert counts[0] == counts[1] > 3 and small.stat().st_size < 0.8 * plain.stat().st_size
    plt.close(drawn)


def test_pictures_of_photographs_are_jpeg(tmp_path):
    figures = Figures(tmp_path / "figures")
    for name, photographs in (("drawing", False), ("photograph", True)):
        figures.save(figure(width=1, height=1)[0], name, vector=False, photographs=photographs)
    assert figures.reference("drawing") == "figures/drawing.png"
    assert figures.reference("photograph") == "figures/photograph.jpg"
