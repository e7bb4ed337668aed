"""The exhibit of sliding scenes, from masks to the section and to the metrics that hypotheses name."""

import dataclasses

import pytest
import torch

from ablations.exhibits import phase as exhibit
from ablations.records.schema import Hypothesis
from ablations.records.storage import load_study, save
from data.specs import ShapesSpec
from reports.analysis import analyse
from reports.exhibits.phase import section
from reports.figures.style import Figures
from reports.load import read_study
from tests.ablations.exhibits.test_phase import Filled, Rounded
from tests.reports.conftest import save_exhibit, write_study

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("phase")]  # one process makes what the tests share

ARMS = {"pool16": 16, "align16": 16, "pool32": 32, "align32": 32}
AT_16, AT_32 = {"align16": 1.0, "pool16": -1.0}, {"align32": 1.0, "pool32": -1.0}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A study of four arms, of which RoIPool's masks follow the grid, with its exhibit of three scenes."""
    root = tmp_path_factory.mktemp("phase")
    folder = write_study(root, seeds=2).rename(root / "roialign")
    claims = [Hypothesis(f"phase-{n}", "It varies less.", "phase.variation", arms, "less") for n, arms in
              ((16, AT_16), (32, AT_32))]  # fmt: skip
    record = load_study(folder / "study.json")
    record = dataclasses.replace(record, name="roialign", hypotheses=claims, exhibits=["phase"])
    save(record, folder / "study.json")
    runs = [Run(arm, seed) for arm in ARMS for seed in (0, 1)]
    images = folder / "exhibits/phase"
    images.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exhibit, "NUM_SCENES", 3)
        patch.setattr(exhibit, "trained_model", lambda run: run.model)
        patch.setattr(exhibit, "stages_of", lambda config: config)
        measured = [exhibit.measure_run(record, run) for run in runs]
        content = exhibit.make(record, runs, images, measured)
    save_exhibit(folder, "phase", content, [(run.arm, run.config.seed) for run in runs])
    return root


class Run:
    """As much of a run as the exhibit looks at."""

    def __init__(self, arm, seed):
        self.arm = arm
        fields = {"seed": seed, "data": ShapesSpec(), "stride": ARMS[arm], "device": torch.device("cpu")}
        self.config = type("Config", (), fields)
        self.model = Rounded(ARMS[arm]) if arm.startswith("pool") else Filled()


def test_hypotheses_can_name_what_the_exhibit_measured(outputs):
    study = read_study(outputs, "roialign")
    for seed in (0, 1):
        assert study.value("align16", seed, "phase.variation") == pytest.approx(0, abs=1e-3)
        assert study.value("pool32", seed, "phase.variation") > study.value("pool16", seed, "phase.variation") > 1
    assert all(verdict.estimate.mean < -1 for verdict in analyse(study).verdicts)


def test_the_section_shows_the_curves_a_scene_and_the_variation_of_every_arm(outputs, tmp_path):
    study = read_study(outputs, "roialign")
    text = section(analyse(study, resamples=0), study.exhibit("phase"), Figures(tmp_path))
    for name in ("phase.svg", "phase_strip.png"):
        assert f"](figures/{name})" in text and (tmp_path / name).is_file()
    rows = [line for line in text.splitlines() if line.startswith("| RoI")]
    assert len(rows) == 6
    align, difference = (
        row for row in rows if row.startswith(("| RoIAlign, stride 16 ", "| RoIAlign − RoIPool, stride 16"))
    )
    assert align.rstrip(" |").endswith("0.0 (0.0 to 0.0)")
    variation = study.value("pool16", 0, "phase.variation")
    assert f"−{variation:.1f} (−" in difference
    assert f"**{variation:.1f} points** under RoIPool, stride 16" in text


def test_without_its_picture_the_section_has_no_strip(outputs, tmp_path):
    study = read_study(outputs, "roialign")
    picture = study.exhibit_picture("phase", "scene")
    kept = picture.read_bytes()
    try:
        picture.write_bytes(kept[: len(kept) // 2])
        text = section(analyse(study, resamples=0), study.exhibit("phase"), Figures(tmp_path))
    finally:
        picture.write_bytes(kept)
    assert "figures/phase.svg" in text and "phase_strip" not in text
