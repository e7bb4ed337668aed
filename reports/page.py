"""A report in Markdown to one self-contained HTML page: style, script and pictures are inside, nothing is loaded.

The Markdown may hold text of records that came from somebody else. It is parsed with raw HTML switched off, and of the
tree that results only known tags, links within the reports, and pictures of the report's own folder are kept; text is
escaped when the tree is written. A content security policy in the page forbids everything else to the browser.
"""

import base64
import html
import json
import re
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from pathlib import Path

import markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from markdown.treeprocessors import Treeprocessor

from reports.text.labels import NOTHING
from reports.web.assemble import content_security_policy

TEMPLATES = Path(__file__).parent / "templates"
CLASSES = {"✔": "reproduced", "✘": "contradicted", "○": "open", "◐": "open", "–": "open"}
MIME = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".csv": "text/csv"}
TAGS = {
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "ul",
    "ol",
    "li",
    "blockquote",
    "hr",
    "br",
    "pre",
    "code",
    "strong",
    "em",
    "a",
    "img",
}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
ANCHOR = re.compile(r"#[a-z0-9_-]+")
PAGE = re.compile(r"(\.\./)?[A-Za-z0-9_-]+/[A-Za-z0-9_-]+\.md(#[a-z0-9_-]+)?")
OUTSIDE = re.compile(
    r"https://www\.flickr\.com/photo\.gne\?id=[0-9]+|https://creativecommons\.org/licenses/[a-z-]+/[0-9.]+/"
    r"|https://arxiv\.org/abs/[0-9.]+"
)
"""Where photographs and their licences are found, and papers: the only links that leave a page."""
UNBROKEN = re.compile(r"(?<=\d) (?=%|px\b)|(?<=\bn) (?=[=≥])|(?<=[=≥]) (?=\d)|(?<=\btable) (?=\d)")
"""Spaces at which a line may not break."""

MOST_COLUMNS = 9
"""Of a table with letters of the usual size: those of more columns would not fit a screen of 1280 pixels."""

FILE = re.compile(r"[a-z]+\.csv")
PICTURE = re.compile(r"(\.\./[A-Za-z0-9_-]+/)?figures/[A-Za-z0-9_.-]+\.(png|svg|jpg)")
OPEN, CLOSE = "\ue000details\ue001", "\ue000/details\ue001"
"""Stand for the lines `<details>` and `</details>` while Markdown is parsed; no text of a record holds such characters,
see text/markup.py."""


def write_page(report: Path, folder: Path | None = None, navigation: str = "") -> Path:
    """Writes a Markdown report of this package as a page, and returns its path: <folder>/<report's name>.html.

    folder: where the page goes, by default beside the report. The page holds all of the report's files; links to other
    reports lead to their pages. navigation: HTML of this package that stands before the report.
    """
    target = (folder or report.parent) / f"{report.stem}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(to_html(report.read_text(encoding="utf-8"), report.parent, navigation), encoding="utf-8")
    return target


def to_html(text: str, folder: Path, navigation: str = "") -> str:
    """`text` as a page. folder: where the pictures and tables that it names are."""
    policy = Policy(folder)
    parser = markdown.Markdown(extensions=["tables", "toc", "sane_lists", policy], output_format="html")
    body = parser.convert(text)
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8").strip() + "\n" for name in ("style.css", "script.js")
    )
    page = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    values = {
        "title": html.escape(html.unescape(re.sub(r"\\(.)", r"\1", title.group(1)))) if title else "Report",
        "policy": content_security_policy(style, script),
        "style": style,
        "script": script,
        "scenes": _data(folder / "figures" / "scenes.json") if policy.has_samples else "{}",
        "navigation": navigation,
        "end": str(navigation).replace('aria-label="site"', 'aria-label="site, at the end"'),
        "body": body,
    }
    return re.sub(r"{{ (\w+) }}", lambda match: values[match.group(1)], page)


def _data(path: Path) -> str:
    """JSON for a script element, with its pictures as data; "{}" where the file is not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "{}"
    for scene in content["scenes"]:
        scene["picture"] = data_uri(path.parent / Path(scene["picture"]).name)
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def data_uri(path: Path) -> str:
    """The content of a picture or a table."""
    return f"data:{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


class Policy(Extension):
    """Markdown without raw HTML, in which only what a report needs survives. has_samples: whether it shows scenes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.has_samples = folder, False

    def extendMarkdown(self, md: markdown.Markdown) -> None:
        md.preprocessors.deregister("html_block")
        md.parser.blockprocessors.deregister("reference")
        for name in ("html", "autolink", "automail", "reference", "image_reference", "short_reference"):
            md.inlinePatterns.deregister(name)
        md.inlinePatterns.deregister("short_image_ref")
        md.preprocessors.register(Folds(md), "folds", 25)
        md.treeprocessors.register(Reader(md, self), "reader", 0)


class Folds(Preprocessor):
    """Takes the lines `<details>`, `<summary>...</summary>` and `</details>`, which stand alone in a report."""

    def run(self, lines: list[str]) -> list[str]:
        rewritten: list[str] = []
        for line in lines:
            summary = re.fullmatch(r"<summary>(.*)</summary>", line)
            if line == "<details>":
                continue
            if summary:
                rewritten += ["", OPEN + summary.group(1), ""]
            else:
                rewritten += ["", CLOSE, ""] if line == "</details>" else [line]
        return rewritten


class Reader(Treeprocessor):
    """The last step over the parsed page: folds, what is allowed, and what style and script need."""

    def __init__(self, md: markdown.Markdown, policy: Policy) -> None:
        super().__init__(md)
        self.policy = policy

    def run(self, root: etree.Element) -> None:
        _fold(root)
        for element in root.iter():
            if element.tag != "code":
                element.text = _unbroken(element.text)
            element.tail = _unbroken(element.tail)
        for parent in list(root.iter()):
            for child in list(parent):
                self._allow(parent, child)
        for element in list(root.iter()):
            if element.tag == "table":
                _label_cells(element)
            elif element.tag == "ul":
                _mark_verdicts(element)
            elif element.tag == "p" and _is_one(element, "em"):
                element.set("class", "note")
            elif element.tag == "p" and (kind := _verdict(element)):
                element.set("class", kind)
        _wrap(root, "table", "div", "wide")
        _wrap_pictures(root)

    def _allow(self, parent: etree.Element, child: etree.Element) -> None:
        if child.tag in ("details", "summary"):
            return
        if child.tag not in TAGS:
            child.tag = "span"
        attributes, child.attrib = dict(child.attrib), {}
        if child.tag in ("h1", "h2", "h3", "h4") and ANCHOR.fullmatch(f"#{attributes.get('id', '')}"):
            child.set("id", attributes["id"])
        elif child.tag in ("th", "td") and "right" in attributes.get("style", ""):
            child.set("class", "number")
        elif child.tag == "a":
            self._link(child, attributes.get("href", ""))
        elif child.tag == "img":
            self._picture(child, attributes.get("src", ""), attributes.get("alt", ""))

    def _link(self, element: etree.Element, target: str) -> None:
        """Anchors, other reports, the report's own tables, sources and licences; of other links the text is left."""
        if ANCHOR.fullmatch(target):
            element.set("href", target)
        elif OUTSIDE.fullmatch(target):
            element.set("href", target)
            element.set("rel", "noreferrer")
        elif PAGE.fullmatch(target):
            element.set("href", target.replace(".md", ".html"))
        elif FILE.fullmatch(target) and self._is_ours(self.policy.folder / target):
            element.set("href", data_uri(self.policy.folder / target))
            element.set("download", target)
        else:
            element.tag = "span"

    def _picture(self, element: etree.Element, source: str, alternative: str) -> None:
        """Pictures of the report's own figures, or of a report beside it; of any other one only the text is left."""
        path = self.policy.folder / source
        if not PICTURE.fullmatch(source) or not self._is_ours(path):
            element.tag, element.text = "span", alternative
            return
        self.policy.has_samples |= source in ("figures/samples.png", "figures/samples.jpg")
        element.set("src", data_uri(path))
        element.set("alt", alternative)
        element.set("class", "chart" if path.suffix == ".svg" else "picture")
        element.set("data-name", path.stem)

    def _is_ours(self, path: Path) -> bool:
        """Whether a file lies in the folder of reports and is no link to elsewhere."""
        return path.is_file() and path.resolve().is_relative_to(self.policy.folder.resolve().parent)


def _fold(root: etree.Element) -> None:
    """Moves what stands between two marks into a details element. Folds are not nested."""
    fold: etree.Element | None = None
    for child in list(root):
        text = child.text or ""
        if child.tag == "p" and text.startswith(OPEN):
            fold = etree.SubElement(root, "details")
            root.remove(fold)
            root.insert(list(root).index(child), fold)
            etree.SubElement(fold, "summary").text = text.removeprefix(OPEN)
            root.remove(child)
        elif child.tag == "p" and text == CLOSE:
            fold = None
            root.remove(child)
        elif fold is not None:
            root.remove(child)
            fold.append(child)


def _label_cells(element: etree.Element) -> None:
    """Gives each cell its column's name: on a narrow screen rows become blocks of names and values. A table of many
    columns gets a class, and with it smaller letters."""
    names = ["".join(cell.itertext()) for cell in element.findall("thead/tr/th")]
    if len(names) > MOST_COLUMNS:
        element.set("class", "many")
    for row in element.findall("tbody/tr"):
        for name, cell in zip(names, row, strict=False):
            cell.set("data-label", name)
            text = "".join(cell.itertext())
            # Long texts wrap, numbers do not; blocks leave out what is not defined.
            kind = "long" if len(text) > 30 else "nothing" if text == NOTHING else ""
            if kind:
                cell.set("class", f"{cell.get('class', '')} {kind}".strip())
            if len(cell):  # one element, which stays together beside the label
                content = etree.Element("span")
                content.text, cell.text = cell.text, None
                content.extend(list(cell))
                cell[:] = [content]


def _mark_verdicts(element: etree.Element) -> None:
    """Gives items that open with a verdict's mark its class, and their list one of its own."""
    for item in element.findall("li"):
        kind = _verdict(item)
        if kind:
            item.set("class", kind)
            element.set("class", "verdicts")


def _verdict(element: etree.Element) -> str | None:
    """The class of a text with a verdict's mark in bold."""
    marks = [CLASSES.get((strong.text or "")[:1]) for strong in element.iter("strong")]
    return next(filter(None, marks), None)


def _unbroken(text: str | None) -> str | None:
    """A number and what it counts stay on one line; code is left as it is."""
    return UNBROKEN.sub("\u00a0", text) if text else text


def _is_one(element: etree.Element, tag: str) -> bool:
    """Whether a paragraph is nothing but one element of this kind."""
    alone = [child.tag for child in element] == [tag] and not (element[0].tail or "").strip()
    return alone and not (element.text or "").strip()


def _parents(root: etree.Element, tag: str) -> Iterator[tuple[etree.Element, int, etree.Element]]:
    for parent in list(root.iter()):
        for index, child in enumerate(list(parent)):
            if child.tag == tag:
                yield parent, index, child


def _wrap(root: etree.Element, tag: str, wrapper: str, name: str) -> None:
    for parent, index, child in list(_parents(root, tag)):
        around = etree.Element(wrapper, {"class": name})
        around.tail, child.tail = child.tail, None
        parent.remove(child)
        parent.insert(index, around)
        around.append(child)


def _wrap_pictures(root: etree.Element) -> None:
    """A paragraph that is one picture becomes a figure; the emphasised paragraph after it its caption."""
    for parent in list(root.iter()):
        children = list(parent)
        for index, child in enumerate(children):
            if child.tag != "p" or not _is_one(child, "img"):
                continue
            child.tag = "figure"
            after = children[index + 1] if index + 1 < len(children) else None
            if after is not None and after.tag == "p" and _is_one(after, "em"):
                parent.remove(after)
                after.tag, after.attrib = "figcaption", {}
                [caption] = list(after)
                after.text, after.tail = caption.text, None
                after.remove(caption)
                for node in list(caption):
                    after.append(node)
                child.append(after)
