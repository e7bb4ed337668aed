"""playground.html: one file that shows what RoIPool, RoIWarp and RoIAlign read of a feature map, for a box to drag.

The scripts in playground/ are put together with pictures.json, which tools/playground_pictures.py draws.
"""

import json
from pathlib import Path

from reports.web.assemble import as_data, page

FOLDER = Path(__file__).parent
SCRIPTS = ("geometry.js", "operators.js", "masks.js", "state.js", "panel.js", "controls.js", "main.js")
START = 'const playground = new Playground(document.getElementById("playground"), pictures, { withHash: true });\n'


def parts() -> tuple[str, str, str]:
    """Style, script and data of the playground, for any page with one. The script leaves the data in `pictures`."""
    folder = FOLDER / "playground"
    style = (folder / "playground.css").read_text(encoding="utf-8")
    script = "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script += 'const pictures = JSON.parse(document.getElementById("pictures").textContent);\n'
    data = as_data(json.loads((FOLDER / "pictures.json").read_text(encoding="utf-8")))
    return style, script, f'<script type="application/json" id="pictures">{data}</script>'


def playground_page() -> str:
    """The page of its own, which keeps its state in the address."""
    style, script, data = parts()
    body = (FOLDER / "playground" / "page.html").read_text(encoding="utf-8")
    return page("RoIPool, RoIWarp, RoIAlign: a box to drag", body + data, style, script + START, kind="broad")
