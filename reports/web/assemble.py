"""Pages of the site: one file each, with style, script and pictures inside, which load nothing from anywhere."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent.parent / "templates"
FOLDER = Path(__file__).parent


def page(title: str, body: str, style: str = "", script: str = "", kind: str = "") -> str:
    """`body` as a page in the style of the reports. style, script: what it needs besides; kind: a class of `main`."""
    base = (TEMPLATES / "style.css").read_text(encoding="utf-8") + (FOLDER / "site.css").read_text(encoding="utf-8")
    style, script = base + style, f'"use strict";\n{script}'
    values = {
        "title": html.escape(title),
        "policy": content_security_policy(style, script),
        "style": style,
        "script": script,
        "body": body,
        "kind": kind,
    }
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    return re.sub(r"{{ (\w+) }}", lambda match: values[match.group(1)], template)


def content_security_policy(style: str, script: str) -> str:
    """Nothing but this style, this script, and pictures that are in the page."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(f"\n{text}".encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        f"base-uri 'none'; form-action 'none'"
    )


def as_data(content: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
