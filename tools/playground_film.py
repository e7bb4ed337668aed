"""python tools/playground_film.py: films the playground for README.md, as docs/playground.gif; needs a Chromium.

The box slides by one cell of the feature map and back.
"""

import io
import math
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.terminal import run_command
from reports.web.playground import playground_page

TARGET = Path("docs/playground.gif")
WIDTH, COLOURS = 820, 200
NUM_FRAMES, MILLISECONDS = 20, 110
TRAVEL = 16.0  # how far the box slides that the playground starts with, in pixels

STAGE = """() => {
  document.body.replaceChildren(document.createElement("main"));
  const root = document.querySelector("main");
  root.style = "max-width: none; padding: 6px 2px 2px";
  window.film = new Playground(root, pictures, { isCompact: true });
  window.start = film.state.box;
}"""
MOVE = """(by) => film.move([start[0] + by, start[1], start[2] + by, start[3]])"""


def frames() -> list[Image.Image]:
    """The pictures of one there and back."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        sys.exit(f"error: expected one of {', '.join(names)} on the PATH, found none; install Chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        file = Path(folder) / "playground.html"
        file.write_text(playground_page(), encoding="utf-8")
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 400})
        page.goto(file.as_uri())
        page.evaluate(STAGE)
        pictures = []
        for index in range(NUM_FRAMES):
            by = TRAVEL * (1 - math.cos(2 * math.pi * index / NUM_FRAMES)) / 2
            page.evaluate(MOVE, by)
            pictures.append(Image.open(io.BytesIO(page.locator("main").screenshot())).convert("RGB"))
        browser.close()
    return pictures


def main() -> None:
    pictures = frames()
    together = Image.new("RGB", (WIDTH, 2 * pictures[0].height))
    for index, picture in enumerate((pictures[0], pictures[len(pictures) // 2])):
        together.paste(picture, (0, index * picture.height))
    palette = together.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    reduced = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    reduced[0].save(TARGET, save_all=True, append_images=reduced[1:], duration=MILLISECONDS, loop=0, optimize=True)
    print(f"written: {TARGET}, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_command(main)
