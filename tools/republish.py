"""python -m tools.republish [STUDY ...]: renders published reports again from the published records.

After a change of their text or charts, without running the studies again. Synthetic images are drawn again and must be
the same; what needs a run's detections, or photographs, stays as it was published: sample images, close-ups, and the
noise of the images.
"""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ablations.records.storage import load_study
from data.build import build
from data.specs import ShapesSpec
from data.terminal import run_command
from reports import gallery
from reports.published import PICTURES


def unpack(published: Path, folder: Path) -> None:
    """A published study as a study's folder: its records, images, ground truth, and the figures that it had."""
    shutil.copytree(published / "records", folder)
    shutil.copytree(published / "figures", folder / PICTURES)
    study = load_study(folder / "study.json")
    settings = dict(study.config["data"])
    if settings.pop("kind") != "shapes":
        return
    images = build(ShapesSpec(**settings), study.data["split"])
    if images.digest != study.data["digest"]:
        raise SystemExit(f"{published}: the images that this code draws are not those that the study was evaluated on")
    (folder / "ground_truth.json").write_text(json.dumps(images.coco), encoding="utf-8")
    (folder / "samples").mkdir()
    for index in range(len(images)):
        if (sample := images[index]).image_id in study.sample_image_ids:
            sample.picture().save(folder / "samples" / f"{sample.image_id}.png")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.republish", description=__doc__)
    parser.add_argument("study", nargs="*", help="names of published studies; by default all of them")
    parser.add_argument("--gallery", type=Path, default=gallery.GALLERY, help="folder in which they are published")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as outputs:
        for path in sorted(options.gallery.glob("*/records/study.json")):
            unpack(path.parent.parent, Path(outputs) / path.parent.parent.name)
        return gallery.main([*options.study, "--outputs", outputs, "--gallery", str(options.gallery)])


if __name__ == "__main__":
    run_command(main)
