"""The whole site: the story, the playground, the claims, and every report, with the way from one to the next."""

from pathlib import Path

from markupsafe import Markup

from reports import claims
from reports.analysis import Analysis, analyse
from reports.load import read_study
from reports.page import write_page
from reports.web.playground import playground_page
from reports.web.story import story_page


def published(gallery: Path) -> dict[str, Analysis]:
    """The studies in `gallery`, in the order in which the slides come to them."""
    paths = sorted(gallery.glob("*/records/study.json"))
    studies = {
        path.parent.parent.name: analyse(read_study(path.parent.parent, "records"), resamples=0) for path in paths
    }
    order = list(dict.fromkeys(name for claim in claims.read_claims(studies) for name in claim.studies))
    order += [name for name in studies if name not in order]
    return {name: studies[name] for name in order if name in studies}


def write_site(folder: Path, gallery: Path, repository: str = "") -> list[Path]:
    """Writes all pages into `folder` and returns their paths. repository: address of the source files, for links."""
    folder.mkdir(parents=True, exist_ok=True)
    studies = published(gallery)
    written = [folder / "index.html", folder / "playground.html"]
    written[0].write_text(story_page(studies, gallery, repository), encoding="utf-8")
    written[1].write_text(playground_page(), encoding="utf-8")
    pages = [(analysis.study.record.title, gallery / name / "report.md") for name, analysis in studies.items()]
    pages.append(("All claims, slide by slide", gallery / "claims" / "claims.md"))
    pages = [(title, path) for title, path in pages if path.is_file()]
    for index, (_, report) in enumerate(pages):
        before = pages[index - 1] if index else None
        after = pages[index + 1] if index + 1 < len(pages) else None
        written.append(write_page(report, folder / report.parent.name, navigation(before, after)))
    return written


def navigation(before: tuple[str, Path] | None, after: tuple[str, Path] | None) -> Markup:
    """Links from a report to the story, and to the reports before and after it. before, after: title and report.md."""
    links = [Markup('<a href="../index.html">Mask R-CNN, taken apart</a><a href="../playground.html">Playground</a>')]
    for other, kind, text in ((before, "prev", "← {}"), (after, "next", "{} →")):
        if other is not None:
            title, path = other
            target = f"../{path.parent.name}/{path.stem}.html"
            links.append(Markup('<a rel="{}" href="{}">{}</a>').format(kind, target, text.format(title)))
    return Markup('<nav class="site" aria-label="site">{}</nav>').format(Markup("").join(links))
