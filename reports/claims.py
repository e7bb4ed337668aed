"""python -m reports.claims: the video's slides, claim by claim, against whatever studies have records.

The claims and where their evidence is to be found stand in claims.toml; figures and verdicts come from the records.
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
from reports.analysis import Analysis, analyse
from reports.exhibits import inference_cost
from reports.figures import forest, misalignment, overview, paired, pairs, recall, samples
from reports.figures.style import Figures
from reports.load import StudyResults, find_studies, read_study
from reports.page import to_html
from reports.render import template
from reports.scenes import read_scenes
from reports.stats.misalignment import measure
from reports.stats.paired import Verdict
from reports.text import tables, wording
from reports.text.labels import NOTHING, interval, metric_label, signed

CLAIMS = Path(__file__).parent / "claims.toml"
FLIPPED = {"reproduced": "contradicted", "contradicted": "reproduced"}
NOT_RUN = "not run yet"
DESCRIBES = "nothing to measure"


@dataclass(frozen=True)
class Evidence:
    """Which hypotheses of a study speak to a claim. metric "" is any; where: factor values that all arms share."""

    study: str
    metric: str = ""
    where: dict[str, Any] = field(default_factory=dict)
    interaction: bool = False
    against: bool = False

    def speaks(self, study: StudyResults, hypothesis: Hypothesis) -> bool:
        if self.metric and hypothesis.metric != self.metric:
            return False
        if self.metric and self.interaction != (len(hypothesis.contrast) > 2):
            return False
        arms = [study.record.arms[name] for name in hypothesis.contrast]
        return all(arm.factors.get(name) == value for arm in arms for name, value in self.where.items())


@dataclass(frozen=True)
class Finding:
    """A verdict as it bears on a claim: `kind` is turned round where the hypothesis speaks against the claim.

    label: of its contrast; family: how many hypotheses its study tests.
    """

    study: StudyResults
    label: str
    verdict: Verdict
    kind: str
    family: int


@dataclass(frozen=True)
class Claim:
    """One claim of a slide with what the records say about it."""

    slide: int
    says: str
    paper: str
    note: str
    studies: list[str]
    costs: str
    picture: dict[str, str]
    findings: list[Finding]
    measurable: bool

    @property
    def status(self) -> str:
        """One word for the claim; "mixed" when its findings do not agree."""
        if not self.measurable:
            return DESCRIBES
        kinds = {finding.kind for finding in self.findings}
        if not kinds:
            return NOT_RUN
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
                costs=entry.get("costs", ""),
                picture=entry.get("picture", {}),
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


def _findings(source: Evidence, analysis: Analysis) -> list[Finding]:
    study, verdicts = analysis.study, analysis.verdicts
    return [
        Finding(
            study=study,
            label=analysis.label(item.hypothesis.contrast),
            verdict=item,
            kind=FLIPPED.get(item.kind, item.kind) if source.against else item.kind,
            family=len(verdicts),
        )
        for item in verdicts
        if source.speaks(study, item.hypothesis)
    ]


def render_claims(outputs: Path, folder: Path) -> Path:
    """Writes claims.md, claims.html and their pictures into `folder`; returns the path of claims.md."""
    studies, unreadable = _read_studies(outputs)
    claims = read_claims(studies)
    if (folder / "figures").is_dir():
        shutil.rmtree(folder / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figures = Figures(folder / "figures")
    drawn = {index: draw_picture(claim, studies, figures, index) for index, claim in enumerate(claims)}
    has_overview = overview.overview(overview_rows(claims), figures)
    slides: dict[int, list[dict[str, Any]]] = {}
    for index, claim in enumerate(claims):
        slides.setdefault(claim.slide, []).append(_entry(claim, studies, drawn[index]))
    text = template("claims.md.j2").render(
        slides=slides,
        table=overview_table(claims),
        overview="figures/overview.png" if has_overview else "",
        counts=_counts(claims),
        missing=sorted({name for claim in claims for name in claim.studies} - set(studies)),
        unreadable=unreadable,
    )
    (folder / "claims.md").write_text(text, encoding="utf-8")
    (folder / "claims.html").write_text(to_html(text, folder), encoding="utf-8")
    return folder / "claims.md"


def overview_rows(claims: list[Claim]) -> list[overview.Row]:
    return [
        overview.Row(
            slide=claim.slide,
            claim=claim.says,
            label=f"{metric_label(finding.verdict.hypothesis.metric)}: {finding.label}",
            verdict=finding.verdict,
            kind=finding.kind,
            against=finding.kind != finding.verdict.kind,
        )
        for claim in claims
        for finding in claim.findings
    ]


def _read_studies(outputs: Path) -> tuple[dict[str, Analysis], list[str]]:
    """The readable studies, and what is wrong with the others."""
    studies, problems = {}, []
    for name in find_studies(outputs):
        try:
            studies[name] = analyse(read_study(outputs, name), resamples=0)
        except RecordError as error:
            problems.append(f"{name}: {str(error).replace(f'{outputs}/', '')}")
    return studies, problems


def _entry(claim: Claim, studies: dict[str, Analysis], picture: str) -> dict[str, Any]:
    """What the template shows of a claim."""
    turned = [finding for finding in claim.findings if finding.kind != finding.verdict.kind]
    return {
        "claim": claim,
        "mark": _mark(claim.status),
        "status": claim.status,
        "sentences": [wording.sentence(finding.verdict, finding.family) for finding in claim.findings],
        "turned": bool(turned),
        "picture": picture,
        "costs": _costs(studies[claim.costs].study) if claim.costs in studies else "",
        "links": [name for name in claim.studies if name in studies],
        "absent": [name for name in claim.studies if name not in studies],
        "silent": [
            name
            for name in claim.studies
            if name in studies and name not in {finding.study.name for finding in claim.findings}
        ],
    }


def _costs(study: StudyResults) -> str:
    """What was measured at test time, or where that is not there, what the runs cost."""
    exhibit = study.exhibit("inference_cost")
    return inference_cost.summary(study, exhibit) if exhibit else tables.cost(study)


def overview_table(claims: list[Claim]) -> str:
    """A line for each finding, and for each claim that has none."""
    rows = []
    for claim in claims:
        head = [str(claim.slide), claim.says]
        if not claim.findings:
            rows.append([*head, NOTHING, NOTHING, NOTHING, NOTHING, f"{_mark(claim.status)} {claim.status}"])
        for finding in claim.findings:
            found, hypothesis = finding.verdict.estimate, finding.verdict.hypothesis
            rows.append(
                [
                    *head,
                    signed(hypothesis.paper),
                    signed(found.mean),
                    interval(found.low, found.high),
                    str(found.n),
                    f"{_mark(finding.kind)} {finding.kind}",
                ]
            )
            head = ["", ""]
    return tables.markdown(["slide", "claim", "paper", "ours", "95 % interval", "n", "verdict"], rows, left=2)


def _mark(status: str) -> str:
    return wording.MARKS.get(status, "◐" if status == "mixed" else NOTHING)


def _counts(claims: list[Claim]) -> str:
    order = ["reproduced", "mixed", "contradicted", "not resolvable", "no verdict", NOT_RUN, DESCRIBES]
    statuses = [claim.status for claim in claims]
    parts = [f"{statuses.count(status)} {status}" for status in order if status in statuses]
    return f"{len(claims)} claims on eleven slides: {', '.join(parts)}."


def draw_picture(claim: Claim, studies: dict[str, Analysis], figures: Figures, index: int) -> str:
    """Draws the claim's picture; "" where its study has nothing to show yet."""
    analysis, kind = studies.get(claim.picture.get("study", "")), claim.picture.get("kind")
    if analysis is None:
        return ""
    study = analysis.study
    name = f"slide{claim.slide:02d}-{index:02d}-{kind}"
    found: object = None
    if kind == "paired":
        found = paired.paired(analysis, claim.picture["metric"], figures, name)
    elif kind == "forest":
        found = forest.forest(analysis, figures, name)
    elif kind == "interaction" and analysis.interactions:
        found = paired.interaction(analysis, analysis.interactions[0], figures, name)
    elif kind == "why":
        found = facts = measure(study)
        if facts:
            misalignment.why(study, facts, figures, name)
    elif kind == "samples":
        found = samples.samples(study, read_scenes(study), figures, name) is not None
    elif kind == "recall":
        found = recall.curves(study, figures, name)
    elif kind == "pairs":
        exhibit = study.exhibit("overlap")
        found = exhibit is not None and pairs.draw(study, exhibit.content, figures, name)
    return f"figures/{name}.png" if found else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.claims", description=__doc__)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where the records are")
    parser.add_argument("--out", type=Path, default=Path("reports/out/claims"), help="where the ledger goes")
    options = parser.parse_args(arguments)
    try:
        path = render_claims(options.outputs, options.out)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"claims: {path} and {path.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
