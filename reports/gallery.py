"""python -m reports.gallery [STUDY ...]: publishes full runs, reports and records, in reports/gallery.

Only what a reader may trust is published: studies that are complete, at full size, made from committed code.
"""

import argparse
import shutil
import sys
from pathlib import Path

from ablations.errors import RecordError
from ablations.records import packed
from ablations.records.storage import save
from data.terminal import run_command
from reports.analysis import analyse
from reports.claims import render_claims
from reports.load import StudyResults, find_studies, read_study
from reports.render import render, template
from reports.text import identify, scope, wording
from reports.text.provenance import warnings

GALLERY = Path("reports/gallery")
RECORDS = (
    "exhibits/*.json",
    "exhibits/*/*.jpg",
    "exhibits/*/*.png",
)
"""What is copied of a study's folder. Of its runs, records and curves are published, see records/packed.py: everything
that numbers come from, without weights, images and masks."""


def objections(study: StudyResults, folder: Path) -> list[str]:
    """Why a study should not be published in `folder`; empty when it may be."""
    obstacles = [f"{item.arm} seed {item.seed}: {item.kind}, {item.detail}" for item in study.problems]
    if folder.exists() and not (folder / "records/study.json").exists():
        obstacles.append(
            f"{folder}: expected a published study or nothing, got other files; move or remove that folder."
        )
    return obstacles + warnings(study)


def publish(study: StudyResults, folder: Path) -> Path:
    """Writes the report and copies the records into `folder`, in place of what was there; the path of report.md.

    Pages are left out: they hold every picture again, and anybody can make them from what is there.
    """
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "records").mkdir(parents=True)
    path = render(study, folder, page=False, keep=folder / "records")
    records = [source for pattern in RECORDS for source in sorted(study.folder.glob(pattern))]
    for source in records:
        target = folder / "records" / source.relative_to(study.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    save(identify.without_places(study.record), folder / "records" / "study.json")
    runs = [(identify.without_places(run), study.curves(*key)) for key, run in study.recorded.items()]
    packed.pack(runs, folder / "records")
    return path


def index(gallery: Path) -> str:
    """The gallery's front page: the verdicts of every study that is published, in Markdown."""
    shown = []
    for path in sorted(gallery.glob("*/records/study.json")):
        study = read_study(path.parent.parent, path.parent.name)
        analysis = analyse(study, resamples=0)
        verdicts, noise = analysis.verdicts, analysis.noise
        shown.append(
            {
                "name": study.name,
                "title": study.record.title,
                "question": study.record.question,
                "setting": scope.setting(study),
                "summary": wording.summary(verdicts),
                "sentences": [
                    wording.sentence(item, len(verdicts), noise=noise.get(item.hypothesis.name)) for item in verdicts
                ],
            }
        )
    return template("gallery.md.j2").render(studies=shown)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.gallery", description=__doc__)
    parser.add_argument("study", nargs="*", help="names of studies; by default all that have records")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder with the records of the studies")
    parser.add_argument("--gallery", type=Path, default=GALLERY, help="folder to publish them in")
    options = parser.parse_args(arguments)
    refused = 0
    try:
        for name in options.study or find_studies(options.outputs):
            study = read_study(options.outputs, name)
            reasons = objections(study, options.gallery / name)
            if reasons:
                print(f"{name}: not published. {' '.join(reasons)}", file=sys.stderr)
                refused = 1
                continue
            print(f"{name}: {publish(study, options.gallery / name)}")
        print(f"claims: {render_claims(options.outputs, options.gallery / 'claims', options.gallery, page=False)}")
        (options.gallery / "README.md").write_text(index(options.gallery), encoding="utf-8")
    except (RecordError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return refused


if __name__ == "__main__":
    run_command(main)
