"""The exhibit of neighbours, from detections to the section and to the metrics that hypotheses name."""

import dataclasses
from types import SimpleNamespace

import pytest

from ablations.exhibits import neighbours as exhibit
from ablations.records.schema import Hypothesis
from ablations.records.storage import load_study, save
from data.neighbours import NeighbourScenes
from data.specs import ShapesSpec
from reports.analysis import analyse
from reports.claims import render_claims
from reports.exhibits.neighbours import section
from reports.figures.style import Figures
from reports.load import read_study
from tests.ablations.evaluation.test_neighbours import results_of
from tests.reports.conftest import save_exhibit, write_study

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("neighbours")]  # one process makes what the tests share

ARMS = ("align16", "pool16")
CONTRAST = {"pool16": 1.0, "align16": -1.0}
METRIC = "neighbours.leakage_same - neighbours.leakage_other"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A study of two arms, whose second takes neighbours of the same class along, with its exhibit."""
    root = tmp_path_factory.mktemp("neighbours")
    folder = write_study(root, seeds=2).rename(root / "fcis")
    record = load_study(folder / "study.json")
    record = dataclasses.replace(
        record,
        name="fcis",
        arms={arm: record.arms[arm] for arm in ARMS},
        hypotheses=[Hypothesis("class-leakage", "The class of the neighbour matters more.", METRIC, CONTRAST)],
        exhibits=["neighbours"],
    )
    save(record, folder / "study.json")
    scenes = NeighbourScenes(ShapesSpec(), 2)
    runs = [Run(arm, seed) for arm in ARMS for seed in (0, 1)]
    images = folder / "exhibits/neighbours"
    images.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exhibit, "NUM_SCENES", 2)
        patch.setattr(exhibit, "detect_on", lambda dataset, run: results_of(scenes, run.mask))
        measured = [exhibit.measure_run(record, run) for run in runs]
        content = exhibit.make(record, runs, images, measured)
    save_exhibit(folder, "neighbours", content, [(run.arm, run.config.seed) for run in runs])
    return root


class Run:
    """As much of a run as the exhibit looks at."""

    def __init__(self, arm, seed):
        self.arm, self.config = (
            arm,
            type("Config", (), {"seed": seed, "data": ShapesSpec(num_val=2), "budget": SimpleNamespace(first_seed=0)}),
        )

    def mask(self, condition, masks):
        return masks.any(0) if self.arm == "pool16" and condition.neighbour == "same" else masks[0]


def test_hypotheses_can_name_what_the_exhibit_measured(outputs):
    study = read_study(outputs, "fcis")
    assert study.value("align16", 0, METRIC) == 0 and study.value("pool16", 1, METRIC) > 20
    (verdict,) = analyse(study).verdicts
    assert verdict.estimate.n == 2 and verdict.estimate.mean > 20


def test_measurements_of_other_runs_are_not_used(outputs, tmp_path):
    study = read_study(outputs, "fcis")
    other = dataclasses.replace(study.exhibit("neighbours"), runs={})
    folder = outputs / "fcis/exhibits/neighbours.json"
    kept = folder.read_bytes()
    try:
        save(other, folder)
        assert read_study(outputs, "fcis").value("align16", 0, METRIC) is None
    finally:
        folder.write_bytes(kept)


def test_the_section_shows_a_scene_and_the_effects(outputs, tmp_path):
    study = read_study(outputs, "fcis")
    text = section(analyse(study), study.exhibit("neighbours"), Figures(tmp_path))
    for name in ("neighbours.png", "neighbours_effects.svg"):
        assert f"](figures/{name})" in text and (tmp_path / name).is_file()
    row = next(line for line in text.splitlines() if line.startswith(f"| {study.label('align16')} "))
    assert "100.0 ± 0.0" in row and "0.0 ± 0.0" in row


def test_slide_11_is_decided_by_what_neighbours_of_one_class_take(outputs, tmp_path):
    text = render_claims(outputs, tmp_path, page=False).read_text(encoding="utf-8")
    slide = text.partition("## Slide 11")[2]
    assert "The class of the neighbour matters more" in slide and "-neighbours.png" in slide
