"""python -m reports.claims: the video's slides, claim by claim, against whatever studies have records.

The claims, and where to find their evidence, are in claims.toml; numbers and verdicts come from the records.
"""

import argparse
import shutil
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.errors import RecordError
from ablations.records.schema import Hypothesis
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
from reports.text import tables, wording
from reports.text.labels import NOTHING, interval, metric_label, number, signed
from reports.text.markup import Marked, table

CLAIMS = Path(__file__).parent / "claims.toml"
FLIPPED = {"reproduced": "contradicted", "contradicted": "reproduced"}
NOT_RUN = "not run yet"
DESCRIBES = "nothing to measure"
MEASURED = "measured, no claim to test"


@dataclass(frozen=True)
class Evidence:
    """Which hypotheses of a study speak to a claim.

    metric, direction: "" for any.
    where:   factor values that all arms share.
    against: whether the hypothesis holding would speak against the claim.
    aside:   whether it is only shown beside the claim and does not decide it.
    """

    study: str
    metric: str = ""
    where: dict[str, Any] = field(default_factory=dict)
    direction: str = ""
    interaction: bool = False
    against: bool = False
    aside: bool = False

    def speaks(self, study: StudyResults, hypothesis: Hypothesis) -> bool:
        if self.metric and hypothesis.metric != self.metric:
            return False
        if self.metric and self.interaction != (len(hypothesis.contrast) > 2):
            return False
        if self.direction and hypothesis.direction != self.direction:
            return False
        arms = [study.record.arms[name] for name in hypothesis.contrast]
        return all(arm.factors.get(name) == value for arm in arms for name, value in self.where.items())


@dataclass(frozen=True)
class Finding:
    """A verdict as it bears on a claim: `kind` is turned round where the hypothesis speaks against the claim.

    label: of its contrast; family: how many hypotheses its study tests; aside: whether it does not decide the claim.
    """

    study: StudyResults
    label: str
    verdict: Verdict
    kind: str
    family: int
    aside: bool = False

    @property
    def against(self) -> bool:
        return self.kind != self.verdict.kind


@dataclass(frozen=True)
class Claim:
    """One claim of a slide with what the records say about it. values: sentences with a measured number in each."""

    slide: int
    says: str
    paper: str
    note: str
    studies: list[str]
    exhibit: dict[str, str]
    picture: dict[str, Any]
    values: list[Marked]
    findings: list[Finding]
    measurable: bool

    @property
    def status(self) -> str:
        """A word or two for the claim; "mixed" when the findings that decide it do not agree."""
        if not self.measurable:
            return DESCRIBES
        if not self.findings:
            return NOT_RUN
        kinds = {finding.kind for finding in self.findings if not finding.aside}
        if not kinds:
            return MEASURED
        return kinds.pop() if len(kinds) == 1 else "mixed"


def read_claims(studies: dict[str, Analysis]) -> list[Claim]:
    """The claims of claims.toml with their findings from `studies`."""
    claims = []
    for entry in tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]:
        sources = [Evidence(**source) for source in entry.get("evidence", [])]
        claims.append(
            Claim(
                slide=entry["slide"],
                says=entry["says"],
                paper=entry.get("paper", ""),
                note=entry.get("note", ""),
                studies=list(dict.fromkeys(source.study for source in sources)),
                exhibit=entry.get("exhibit", {}),
                picture=entry.get("picture", {}),
                values=[text for value in entry.get("values", []) if (text := _value(studies, **value))],
                findings=[
                    finding
                    for source in sources
                    if source.study in studies
                    for finding in _findings(source, studies[source.study])
                ],
                measurable=bool(sources),
            )
        )
    return claims


def _value(studies: dict[str, Analysis], study: str, arm: str, metric: str, text: str) -> Marked | None:
    """`text` with the mean over an arm's seeds put in; None where it is not measured."""
    values = studies[study].study.values(arm, metric) if study in studies else {}
    return Marked(text.format(number(sum(values.values()) / len(values)))) if values else None


def _findings(source: Evidence, analysis: Analysis) -> list[Finding]:
    study, verdicts = analysis.study, analysis.verdicts
    return [
        Finding(
            study=study,
            label=analysis.label(item.hypothesis.contrast),
            verdict=item,
            kind=FLIPPED.get(item.kind, item.kind) if source.against else item.kind,
            family=len(verdicts),
            aside=source.aside,
        )
        for item in verdicts
        if source.speaks(study, item.hypothesis)
    ]


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
        picture = draw_picture(claim, studies, figures, index, reports)
        slides.setdefault(claim.slide, []).append(_entry(claim, studies, picture))
    text = template("claims.md.j2").render(
        slides=slides,
        table=overview_table(claims),
        overview=Marked("figures/overview.png" if overview.overview(overview_rows(claims), figures) else ""),
        counts=_counts(claims),
        missing=sorted({name for claim in claims for name in claim.studies} - set(studies)),
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
            label=f"{metric_label(finding.verdict.hypothesis.metric)}: {finding.label}",
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
        "mark": _mark(claim.status),
        "status": claim.status,
        "deciding": [_sentence(finding) for finding in claim.findings if not finding.aside],
        "beside": [_sentence(finding) for finding in claim.findings if finding.aside],
        "picture": Marked(picture),
        "caption": claim_pictures.caption(studies[claim.picture["study"]], claim.picture) if picture else "",
        "extra": _exhibit(studies, **claim.exhibit) if claim.exhibit else Marked(""),
        "links": sorted(shown),
        "absent": [name for name in claim.studies if name not in studies],
        "silent": sorted(shown - {finding.study.name for finding in claim.findings}),
    }


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
        deciding = [finding for finding in claim.findings if not finding.aside]
        if not deciding:
            rows.append([*head, f"{_mark(claim.status)} {claim.status}", NOTHING, NOTHING, NOTHING, NOTHING])
        for finding in deciding:
            estimate, decides = finding.verdict.estimate, finding.verdict.interval or (None, None)
            paper, mean = signed(finding.verdict.paper), signed(estimate.mean)
            verdict = f"{_mark(finding.kind)} {finding.kind}"
            rows.append([*head, verdict, paper, mean, interval(*decides), str(estimate.n)])
            head = ["", ""]
    return table(["slide", "claim", "verdict", "paper", "ours", "interval", "n"], rows, left=3)


def _mark(status: str) -> str:
    return wording.MARKS.get(status, "◐" if status == "mixed" else NOTHING)


def _counts(claims: list[Claim]) -> str:
    order = ["reproduced", "mixed", *(kind for kind in wording.MARKS if kind != "reproduced"), MEASURED]
    order += [NOT_RUN, DESCRIBES]
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
    return f"figures/{name}.png" if claim_pictures.draw(analysis, claim.picture, figures, name) else ""


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
