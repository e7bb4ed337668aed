"""Markdown to one self-contained HTML page: style and pictures are inside, nothing is loaded from elsewhere."""

import base64
import html
import re
from pathlib import Path

import markdown

TEMPLATES = Path(__file__).parent / "templates"
CLASSES = {"✔": "reproduced", "✘": "contradicted", "○": "open", "–": "open"}


def to_html(text: str, folder: Path) -> str:
    """`text` with the pictures that it names (relative to `folder`) as data, of a drawing the SVG."""
    body = markdown.markdown(text, extensions=["tables", "toc", "sane_lists"], output_format="html")
    body = re.sub(r'src="([^":]+)"', lambda match: f'src="{_data_uri(folder / match.group(1))}"', body)
    body = re.sub(
        r'<a href="([^"#:]+\.csv)">',
        lambda match: f'<a href="{_data_uri(folder / match.group(1))}" download="{Path(match.group(1)).name}">',
        body,
    )
    body = re.sub(r'href="(\.\./[^":]+)\.md"', r'href="\1.html"', body)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    body = re.sub(r"<td([^>]*)>([^<]{31,})</td>", r'<td class="long"\1>\2</td>', body)  # long texts wrap, figures not
    body = _mark_verdicts(body)
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    page = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    for name, value in (
        ("title", html.escape(title.group(1)) if title else "Report"),
        ("style", (TEMPLATES / "style.css").read_text(encoding="utf-8").strip()),
        ("body", body),
    ):
        page = page.replace("{{ " + name + " }}", value)
    return page


def _mark_verdicts(body: str) -> str:
    """Gives list items that open with a verdict's mark its class, and their list one of its own."""
    for mark, kind in CLASSES.items():
        body = re.sub(rf"<li>\s*(?:<p>)?<strong>{mark} ", f'<li class="{kind}"><strong>{mark} ', body)
    return re.sub(r"<ul>(\s*<li class=)", r'<ul class="verdicts">\1', body)


def _data_uri(path: Path) -> str:
    drawing = path.with_suffix(".svg")
    kinds = {".svg": "image/svg+xml", ".png": "image/png", ".csv": "text/csv"}
    if path.suffix == ".png" and drawing.is_file():
        path = drawing
    return f"data:{kinds[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
