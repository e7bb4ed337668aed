"""python -m reports.claims: the video's slides, claim by claim, against whatever studies have records.

The claims, and where to find their evidence, are in claims.toml; numbers and verdicts come from the records.
"""

import argparse
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.errors import RecordError
from data.terminal import run_command
from reports import exhibits
from reports.analysis import Analysis, analyse
from reports.exhibits import competition, inference_cost
from reports.figures import claim_pictures, overview
from reports.figures.style import Figures
from reports.load import StudyResults, find_studies, read_study
from reports.page import write_page
from reports.render import template
from reports.stats.paired import Verdict
from reports.text import answers, scope, tables, wording
from reports.text.commands import start_of
from reports.text.labels import NOTHING, metric_label, signed
from reports.text.markup import Marked, code, escape, table
from reports.text.source import Line, find_line

CLAIMS = Path(__file__).parent / "claims.toml"
FLIPPED = {"reproduced": "contradicted", "contradicted": "reproduced"}
NOT_RUN, PARTLY_RUN = "not run yet", "partly run"
DESCRIBES = "describes a step"
BEYOND = "beyond our margin"


@dataclass(frozen=True)
class Finding:
    """A verdict as it bears on a claim.

    label:   of its contrast.
    kind:    the verdict, turned round where the hypothesis speaks against the claim.
    family:  how many hypotheses its study tests.
    against: whether the hypothesis speaks against the claim; aside: whether it does not decide the claim.
    """

    study: StudyResults
    label: str
    verdict: Verdict
    kind: str
    family: int
    against: bool = False
    aside: bool = False

    @property
    def measures(self) -> str:
        """What was measured: "mask AP: RoIAlign − RoIPool, stride 16"."""
        return f"{metric_label(self.verdict.hypothesis.metric)}: {self.label}"


@dataclass(frozen=True)
class Claim:
    """One claim of a slide with what the records say about it.

    answer: a sentence with what was measured; "" where nothing was
    studies: that are to answer it, in the order of their importance
    num_deciding: how many hypotheses are to decide it
    config: the file whose change is the experiment; code: the line that decides it
    """

    slide: int
    says: str
    answer: Marked
    paper: str
    note: str
    studies: list[str]
    exhibit: str
    picture: dict[str, Any]
    config: str
    code: Line
    num_deciding: int
    findings: list[Finding]

    @property
    def status(self) -> str:
        """A word or two for the claim; "mixed" when the findings that decide it do not agree."""
        if not self.num_deciding:
            return DESCRIBES
        if len(self.deciding) < self.num_deciding:
            return PARTLY_RUN if self.deciding else NOT_RUN
        kinds = {finding.kind for finding in self.deciding}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def deciding(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.aside]


def read_claims(studies: dict[str, Analysis]) -> list[Claim]:
    """The claims of claims.toml with their findings from `studies`."""
    return [_claim(entry, studies) for entry in tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]]


def _claim(entry: dict[str, Any], studies: dict[str, Analysis]) -> Claim:
    names = {role: entry.get(role, []) for role in ("decides", "against", "beside")}
    return Claim(
        slide=entry["slide"],
        says=entry["says"],
        answer=answers.fill(entry.get("answer", ""), studies),
        paper=entry.get("paper", ""),
        note=entry.get("note", ""),
        studies=list(dict.fromkeys(name.partition("/")[0] for role_names in names.values() for name in role_names)),
        exhibit=entry.get("exhibit", ""),
        picture=entry.get("picture", {}),
        config=entry["config"],
        code=find_line(*entry["code"]),
        num_deciding=len(names["decides"] + names["against"]),
        findings=[
            finding
            for role, role_names in names.items()
            for name in role_names
            if (finding := _finding(name, role, studies)) is not None
        ],
    )


def _finding(name: str, role: str, studies: dict[str, Analysis]) -> Finding | None:
    """What came out for a hypothesis, "study/name"; None where there are no records of it."""
    analysis = studies.get(name.partition("/")[0])
    verdict = answers.find_verdict(name, studies)
    if analysis is None or verdict is None:
        return None
    kind: str = verdict.kind
    if kind == "contradicted" and verdict.hypothesis.direction == "equal":
        kind = BEYOND  # which speaks against the margin, and neither slide nor paper names one
    return Finding(
        study=analysis.study,
        label=analysis.label(verdict.hypothesis.contrast),
        verdict=verdict,
        kind=FLIPPED.get(kind, kind) if role == "against" else kind,
        family=len(analysis.verdicts),
        against=role == "against",
        aside=role == "beside",
    )


def render_claims(outputs: Path, folder: Path, reports: Path | None = None, page: bool = True) -> Path:
    """Writes claims.md, its page claims.html and their pictures into `folder`; returns the path of claims.md.

    reports: where the studies' reports are, beside `folder`: their pictures are used instead of drawing them again.
    page: False for Markdown alone.
    """
    studies, unreadable = _read_studies(outputs)
    claims = read_claims(studies)
    if (folder / "figures").is_dir():
        shutil.rmtree(folder / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figures = Figures(folder / "figures")
    slides: dict[int, list[dict[str, Any]]] = {}
    for index, claim in enumerate(claims):
        entries = slides.setdefault(claim.slide, [])
        # A picture that serves two claims stands with the first.
        is_new = all(claim.picture != entry["claim"].picture for entry in entries)
        picture = draw_picture(claim, studies, figures, index, reports) if is_new else Marked("")
        entries.append(_entry(claim, studies, picture))
    overview.overview(overview_rows(claims), figures)
    named = {name for claim in claims for name in claim.studies}
    text = template("claims.md.j2").render(
        slides=slides,
        table=overview_table(claims),
        overview=Marked(figures.reference("overview")),
        counts=_counts(claims),
        missing=[_missing(name) for name in sorted(named - set(studies))],
        origin=scope.origin([studies[name].study for name in sorted(named & set(studies))]),
        unreadable=unreadable,
    )
    (folder / "claims.md").write_text(text, encoding="utf-8")
    if page:
        write_page(folder / "claims.md")
    return folder / "claims.md"


def _read_studies(outputs: Path) -> tuple[dict[str, Analysis], list[str]]:
    """The readable studies, and what is wrong with the others."""
    studies, problems = {}, []
    for name in find_studies(outputs):
        try:
            studies[name] = analyse(read_study(outputs, name), resamples=0)
        except RecordError as error:
            problems.append(f"{name}: {str(error).replace(f'{outputs}/', '')}")
    return studies, problems


def overview_rows(claims: list[Claim]) -> list[overview.Row]:
    """What the overview draws: every finding, claim by claim."""
    return [
        overview.Row(
            slide=claim.slide,
            claim=claim.says,
            label=finding.measures,
            verdict=finding.verdict,
            kind=finding.kind,
            against=finding.against,
            aside=finding.aside,
        )
        for claim in claims
        for finding in claim.findings
    ]


def _entry(claim: Claim, studies: dict[str, Analysis], picture: str) -> dict[str, Any]:
    """What the template shows of a claim."""
    shown = {name for name in claim.studies if name in studies}
    return {
        "claim": claim,
        "mark": mark(claim.status),
        "status": claim.status,
        "deciding": [_sentence(finding) for finding in claim.deciding],
        "beside": [_sentence(finding) for finding in claim.findings if finding.aside],
        "picture": Marked(picture),
        "caption": claim_pictures.caption(studies[claim.picture["study"]], claim.picture) if picture else "",
        "extra": _exhibit(studies, *claim.exhibit.split("/")) if claim.exhibit else Marked(""),
        "where": _where(claim),
        "links": [name for name in claim.studies if name in shown],
        "absent": [name for name in claim.studies if name not in studies],
        "silent": sorted(shown - {finding.study.name for finding in claim.findings}),
    }


def _where(claim: Claim) -> Marked:
    """The command, the configuration and the line of code."""
    study = next(iter(claim.studies), "")
    command = f"Run it: {code(start_of(study)[0])}. " if study else ""
    return Marked(
        f"{command}Configuration: {code(claim.config)}. The line that decides it, {code(claim.code.where)}: "
        f"{code(claim.code.text)}"
    )


def _missing(study: str) -> Marked:
    """A study's name, with its command where that takes more than the name."""
    command, _ = start_of(study)
    return Marked(f"{escape(study)} ({code(command)})" if " data=" in command else escape(study))


def _sentence(finding: Finding) -> Marked:
    return wording.sentence(finding.verdict, finding.family, about_slide=finding.against)


def _exhibit(studies: dict[str, Analysis], study: str, name: str) -> Marked:
    """What an exhibit adds to a claim, or where that is not there, what the runs cost."""
    if study not in studies:
        return Marked("")
    results = studies[study].study
    exhibit = results.exhibit(name)
    if exhibit is None:
        return tables.cost(results) if name == "inference_cost" else Marked("")
    if name == "competition":
        return exhibits.guarded(exhibit, lambda: competition.mildest_rule(studies[study]))
    return exhibits.guarded(exhibit, lambda: inference_cost.summary(results, exhibit))


def overview_table(claims: list[Claim]) -> Marked:
    """A line for each claim, and for each finding that decides it."""
    rows: list[list[object]] = []
    for claim in claims:
        head: list[object] = [str(claim.slide), claim.says]
        if not claim.deciding:
            status = f"{mark(claim.status)} {claim.status}"
            rows.append([*head, NOTHING, status, NOTHING, NOTHING, NOTHING, NOTHING])
        for finding in claim.deciding:
            measured, level = finding.verdict.measured, finding.verdict.level
            reason = wording.reason(finding.verdict)
            verdict = f"{mark(finding.kind)} {finding.kind}" + (f" ({reason})" if reason else "")
            paper = signed(finding.verdict.hypothesis.paper)
            decides = measured.interval(level) or (None, None)
            shown = wording.beside_paper(finding.verdict, *decides)
            ours = wording.signed_mean(finding.verdict)
            rows.append([*head, finding.measures, verdict, paper, ours, shown, str(measured.n)])
            head = ["", ""]
    return table(["slide", "claim", "measured", "verdict", "paper", "ours", "interval", "n"], rows, left=4)


def mark(status: str) -> str:
    return wording.MARKS.get(status, {"mixed": "◐", BEYOND: "○"}.get(status, NOTHING))


def _counts(claims: list[Claim]) -> str:
    order = ["reproduced", "mixed", *(kind for kind in wording.MARKS if kind != "reproduced"), BEYOND]
    order += [PARTLY_RUN, NOT_RUN, DESCRIBES]
    statuses = [claim.status for claim in claims]
    counts = [f"{statuses.count(status)} {status}" for status in order if status in statuses]
    return f"{len(claims)} claims on eleven slides: {'; '.join(counts)}."


def draw_picture(
    claim: Claim, studies: dict[str, Analysis], figures: Figures, index: int, reports: Path | None = None
) -> str:
    """The path of the claim's picture, drawn where no report has it; "" where its study has nothing to show yet."""
    analysis = studies.get(claim.picture.get("study", ""))
    if analysis is None:
        return ""
    shared = claim_pictures.of_report(analysis, claim.picture, reports) if reports else ""
    if shared:
        return f"../{shared}"
    name = f"slide{claim.slide:02d}-{index:02d}-{claim.picture['kind']}"
    claim_pictures.draw(analysis, claim.picture, figures, name)
    return figures.reference(name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.claims", description=__doc__)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder with the records of the studies")
    parser.add_argument("--out", type=Path, default=Path("reports/out/claims"), help="folder to write the ledger to")
    options = parser.parse_args(arguments)
    try:
        path = render_claims(options.outputs, options.out)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"claims: {path} and {path.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    run_command(main)
