"""index.html: the eleven slides as a page to read, with what came out, and the way to every report."""

import math
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import markdown
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as html_escape

from reports import claims
from reports.analysis import Analysis
from reports.figures import claim_pictures
from reports.figures.style import Figures
from reports.page import Policy, data_uri
from reports.text import answers, transfer, wording
from reports.text.markup import escape
from reports.text.source import Line, lines_of
from reports.web import playground
from reports.web.assemble import page

FOLDER = Path(__file__).parent
CONTEXT = 2  # lines of code shown before and after the one that decides


@dataclass(frozen=True)
class Excerpt:
    """Some lines of a file around the one that matters. where: "path:number"."""

    text: Markup
    where: str


def story_page(studies: dict[str, Analysis], gallery: Path, repository: str = "") -> str:
    """The page, from the analyses of all studies that have a report.

    gallery: where the reports and their pictures are; repository: address of the source files' folder, for links.
    """
    style, script, data = playground.parts()
    script += (FOLDER / "story.js").read_text(encoding="utf-8")
    style += (FOLDER / "story.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    environment.filters["source"] = lambda where: source_link(where, repository)
    body = environment.get_template("story.html.j2").render(
        slides=_slides(studies, gallery),
        reports=[_report(analysis) for analysis in studies.values()],
        cost=_inline(answers.fill(_contents()["cost"], studies)),
        still=_still(gallery),
        photographs=_photographs(studies, gallery),
        has_claims=(gallery / "claims" / "claims.md").is_file(),
    )
    return page("Mask R-CNN, taken apart", body + data, style, script, kind="story")


def slides() -> list[dict[str, Any]]:
    """The slides of story.toml."""
    return _contents()["slide"]


def _photographs(studies: dict[str, Analysis], gallery: Path) -> dict[str, Any] | None:
    """The section on what holds on photographs; None without such a study."""
    sets = [entry["study"] for entry in transfer.sets(studies)]
    if not sets:
        return None
    section = _contents()["photographs"]
    left = transfer.share_left(studies, sets[0])
    picture = gallery / sets[0] / "figures" / "dose.svg"
    return {
        **section,
        "text": to_html(section["text"]),
        "choices": [choice["text"] for choice in section["choices"]],
        "right": None if left is None else _first_above(section["choices"], left),
        "answer": to_html(f"{section['answer']}\n\n{transfer.table(studies)}\n\n{transfer.floors(studies)}"),
        "picture": data_uri(picture) if picture.is_file() else "",
        "reports": sets,
    }


def _contents() -> dict[str, Any]:
    return tomllib.loads((FOLDER / "story.toml").read_text(encoding="utf-8"))


def _still(gallery: Path) -> str:
    """The picture that stands for the playground without scripts; "" where its study has no report."""
    path = gallery / "roialign" / "figures" / "why.svg"
    return data_uri(path) if path.is_file() else ""


def excerpt(line: Line) -> Excerpt:
    """A line of a file of the repository with the lines around it, without the end of a docstring before it."""
    lines, index = lines_of(line.path), line.number - 1
    ended = [number + 1 for number in range(max(index - CONTEXT, 0), index) if lines[number].endswith('"""')]
    first, last = max([index - CONTEXT, 0, *ended]), index + CONTEXT + 1
    while not lines[first].strip():
        first += 1
    shown = lines[first:last]
    indent = min(len(text) - len(text.lstrip()) for text in shown if text.strip())
    texts = [html_escape(text[indent:]) for text in shown]
    texts[index - first] = Markup("<mark>{}</mark>").format(texts[index - first])
    return Excerpt(Markup("\n").join(texts), line.where)


def source_link(where: str, repository: str) -> Markup:
    """A file, or a line of a file as "path:number": a link where the repository's address is known."""
    name = Markup("<code>{}</code>").format(where)
    if not re.fullmatch(r"https://[\w./-]+", repository):
        return name
    path, _, number = where.partition(":")
    return Markup('<a href="{}/{}{}">{}</a>').format(
        repository.rstrip("/"), path, f"#L{number}" if number else "", name
    )


def to_html(text: str, folder: Path = FOLDER) -> Markup:
    """Markdown of this package as HTML; what a report may not hold is left out."""
    return Markup(markdown.Markdown(extensions=["tables", Policy(folder)], output_format="html").convert(text))


def _slides(studies: dict[str, Analysis], gallery: Path) -> list[dict[str, Any]]:
    entries: dict[int, list[dict[str, Any]]] = {}
    pictures: dict[int, list[dict[str, Any]]] = {}
    reports: dict[int, list[str]] = {}
    first: dict[int, claims.Claim] = {}
    for claim in claims.read_claims(studies):
        first.setdefault(claim.slide, claim)
        names = reports.setdefault(claim.slide, [])
        names += [name for name in claim.studies if name in studies and name not in names]
        if claim.findings:
            shown = pictures.setdefault(claim.slide, [])
            # A picture that serves two claims stands with the first.
            picture = ("", "") if claim.picture in shown else _picture(claim, studies, gallery)
            shown.append(claim.picture)
            entries.setdefault(claim.slide, []).append(_entry(claim, *picture))
    return [
        {
            "playground": False,
            "question": "",
            **slide,
            "text": to_html(slide["text"]),
            "choices": [choice["text"] for choice in slide.get("choices", [])],
            "right": right_choice(slide, studies),
            "config": first[slide["number"]].config,
            "code": excerpt(first[slide["number"]].code),
            "entries": entries.get(slide["number"], []),
            "reports": reports.get(slide["number"], []),
        }
        for slide in slides()
    ]


def right_choice(slide: dict[str, Any], studies: dict[str, Analysis]) -> int | None:
    """Which of a slide's choices came out; None where it offers none, or its studies have no records."""
    choices = slide.get("choices", [])
    if "verdict" in slide:
        verdict = answers.find_verdict(slide["verdict"], studies)
        kinds = [choice.get("verdict") for choice in choices]
        return None if verdict is None else kinds.index(verdict.kind if verdict.kind in kinds else None)
    places = slide.get("measure", [])
    names = [places] if isinstance(places, str) else places
    values = [value for name in names if (value := answers.value(name, studies)) is not None]
    if not values or len(values) < len(names) or (len(values) == 2 and not values[1]):
        return None
    measured = values[0] if len(values) == 1 else values[0] / values[1]
    return _first_above(choices, measured)


def _first_above(choices: list[dict[str, Any]], measured: float) -> int:
    """The first choice whose "below" the measured value does not reach."""
    return next(index for index, choice in enumerate(choices) if measured < choice.get("below", math.inf))


def _entry(claim: claims.Claim, picture: str, caption: str) -> dict[str, Any]:
    """What came out for a claim: the answer, its picture, and the findings that bear on it."""
    paper = f"\n\nThe paper: {claim.paper}." if claim.paper else ""
    verdict = f"**{claims.mark(claim.status)} {claim.status[:1].upper()}{claim.status[1:]}.** {claim.answer}"
    answer = f"The claim: *{claim.says}*\n\n{verdict}"
    return {
        "says": claim.says,
        "answer": to_html(answer + paper),
        "picture": picture,
        "caption": _inline(caption),
        "note": to_html(claim.note),
        "numbers": to_html("\n".join(_number(finding) for finding in claim.findings)),
    }


def _number(finding: claims.Finding) -> str:
    """A line of a list: what was measured, its interval, and its verdict on the claim."""
    why = wording.reason(finding.verdict)
    verdict = "alongside the claim" if finding.aside else f"{finding.kind}{f' ({why})' if why else ''}"
    return f"- {escape(finding.measures)}: {wording.brief(finding.verdict)}; {verdict}"


def _picture(claim: claims.Claim, studies: dict[str, Analysis], gallery: Path) -> tuple[str, str]:
    """A claim's picture as data, and its caption: drawn from the records, or where they do not suffice, the one that
    the gallery's page of claims shows."""
    analysis = studies.get(claim.picture.get("study", ""))
    if analysis is None:
        return "", ""
    with TemporaryDirectory() as folder:
        figures = Figures(Path(folder) / "figures")
        if claim_pictures.draw(analysis, claim.picture, figures, "picture"):
            drawn = Path(folder) / figures.reference("picture")
            return data_uri(drawn), claim_pictures.caption(analysis, claim.picture)
    path = gallery / "claims" / "claims.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    shown = re.search(rf"^!\[{re.escape(claim.says)}\]\((\S+)\)\n(?:\n\*(.+)\*\n)?", text, re.MULTILINE)
    if shown is None or not (path.parent / shown.group(1)).is_file():
        return "", ""
    return data_uri(path.parent / shown.group(1)), shown.group(2) or ""


def _report(analysis: Analysis) -> dict[str, Any]:
    summary = _inline(wording.summary(analysis.verdicts))
    return {"name": analysis.study.name, "title": analysis.study.record.title, "summary": summary}


def _inline(text: str) -> Markup:
    """One paragraph of Markdown, without the paragraph."""
    return Markup(re.sub(r"</?p[^>]*>", "", to_html(text)))


def repository() -> str:
    """The address under which GitHub shows the files of this commit, as a workflow or the clone tells it; else ""."""
    server, name, commit = (os.environ.get(f"GITHUB_{key}", "") for key in ("SERVER_URL", "REPOSITORY", "SHA"))
    if server and name and commit:
        return f"{server}/{name}/blob/{commit}"
    origin = re.match(
        r"(?:https://|git@)github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?$", _git("remote", "get-url", "origin")
    )
    return f"https://github.com/{origin[1]}/blob/{_git('rev-parse', 'HEAD')}" if origin else ""


def _git(*arguments: str) -> str:
    """What git says of the folder of this file; "" where it says nothing."""
    try:
        said = subprocess.run(["git", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""
