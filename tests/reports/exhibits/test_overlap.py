"""The exhibit of overlap, from runs to its section: what is counted, which pairs are shown, what the page says."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ablations.evaluation.overlap import overlap_metrics, scenes
from ablations.exhibits import overlap as exhibit
from ablations.records.schema import ExhibitRecord, Hypothesis
from ablations.records.storage import load_run, load_study, save
from reports.analysis import analyse
from reports.exhibits.overlap import section
from reports.figures.style import Figures
from reports.load import read_study
from tests.reports.conftest import SIDE, detections, ground_truth, write_study

pytestmark = pytest.mark.xdist_group("overlap")  # one process makes what the tests share

ARMS = {"align16": "Mask R-CNN", "pool16": "FCIS"}


class Images:
    """The fixture's validation images as a data set."""

    def __init__(self, truth: dict) -> None:
        self.coco = truth

    def __getitem__(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(picture=lambda: Image.new("RGB", (SIDE, SIDE), (40 * index, 120, 120)))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A study "fcis" of two arms and two seeds with the measures of overlap and its exhibit."""
    root = tmp_path_factory.mktemp("overlap")
    folder = write_study(root, seeds=2).rename(root / "fcis")
    record = load_study(folder / "study.json")
    weights = {"align16": 1.0, "pool16": -1.0}
    metrics = {"overlap.AP_much": "greater", "overlap.AP_much - overlap.AP_some": "greater", "overlap.leakage": "less"}
    record = dataclasses.replace(
        record,
        name="fcis",
        factors=["roi"],
        arms={arm: dataclasses.replace(record.arms[arm], label=label, paper={}) for arm, label in ARMS.items()},
        hypotheses=[Hypothesis(name, f"About {name}", name, weights, way) for name, way in metrics.items()],
        exhibits=["overlap"],
    )
    save(record, folder / "study.json")
    truth, masks = ground_truth(folder)
    runs = []
    for arm in ARMS:
        for seed in (0, 1):
            home = folder / arm / f"seed{seed}"
            run = load_run(home / "run.json")
            results = json.loads((home / "detections.json").read_text())
            save(
                dataclasses.replace(run, metrics=run.metrics | {"overlap": overlap_metrics(truth, results)}),
                home / "run.json",
            )
            system = SimpleNamespace(kind="fcis" if ARMS[arm] == "FCIS" else "mask_rcnn")
            runs.append(
                SimpleNamespace(
                    arm=arm,
                    folder=home,
                    config=SimpleNamespace(seed=seed, system=system, budget=SimpleNamespace(first_seed=0)),
                )
            )
    images = folder / "exhibits" / "overlap"
    images.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exhibit, "stages_of", lambda _: SimpleNamespace(evaluated=Images(truth)))
        patched.setattr(exhibit, "without_voting", lambda run: detections(truth, masks, "pool32", run.config.seed))
        measured = [exhibit.measure_run(record, run) for run in runs]
        content = exhibit.make(record, runs, images, measured)
    stands_on = {f"{run.arm}/seed{run.config.seed}": load_run(run.folder / "run.json").identity for run in runs}
    save(ExhibitRecord("overlap", "fcis", stands_on, content, {}), images.with_suffix(".json"))
    return root


@pytest.fixture(scope="module")
def page(outputs, tmp_path_factory):
    """The section's text and the folder of its figures."""
    figures, study = tmp_path_factory.mktemp("figures"), read_study(outputs, "fcis")
    return section(analyse(study, resamples=0), study.exhibit("overlap"), Figures(figures)), figures


def test_every_object_is_in_one_bin_and_counts_fit(outputs):
    content = read_study(outputs, "fcis").exhibit("overlap").content
    bins = {name: one["objects"] for name, one in content["bins"].items()}
    assert bins["none"] + bins["some"] + bins["much"] == 24 and bins["apart"] <= bins["none"]
    assert min(bins["some"], bins["much"]) > 0
    for runs in content["runs"].values():
        for run in runs.values():
            assert sum(run["places"]) <= run["edges"]
            assert all(run["found"][name]["objects"] <= bins[name] for name in bins)
    (unvoted,) = content["unvoted"].values()  # of FCIS alone
    assert set(unvoted) == {"0", "1"} and unvoted["0"]["places"] != content["runs"]["pool16"]["0"]["places"]
    exact, rough = (content["runs"][arm]["0"]["found"]["much"]["iou"] for arm in ARMS)
    assert exact > rough  # the fixture shifts masks by up to 1 pixel, and by up to 4


def test_pairs_overlap_much_and_have_their_picture(outputs):
    study = read_study(outputs, "fcis")
    content = study.exhibit("overlap").content
    assert {(pair["arm"], pair["rank"]) for pair in content["pairs"]} == {
        (arm, rank) for arm in ARMS for rank in ("worst", "median")
    }
    much = {
        number
        for scene in scenes(study.ground_truth)
        for number, level in zip(scene.ids, scene.levels.tolist(), strict=True)
        if level == 3
    }
    for pair in content["pairs"]:
        assert pair["objects"][0] in much and len(set(pair["objects"])) == 2
        assert study.exhibit_picture("overlap", pair["image_id"]) is not None


def test_a_pair_needs_both_objects_in_every_arm_and_the_worst_comes_first():
    layouts = [
        exhibit.Layout(image, [3 * image, 3 * image + 1, 3 * image + 2], *np.array([[40] * 3, [3, 1, 1]]), shares)
        for image, shares in enumerate(np.array([[[0, 0.2, 0.5], [0] * 3, [0] * 3]] * 3))
    ]
    matched = {
        number: SimpleNamespace(iou=iou) for number, iou in zip(range(9), (4, 0, 5, 1, 0, 3, 2, 0, 1), strict=True)
    }
    candidates = exhibit.pairs(layouts, {"one": matched, "other": matched})
    assert [pair.objects for pair in candidates] == [(0, 2), (3, 5), (6, 8)]  # with what fills most of the box
    assert (candidates[0].share, candidates[0].ious["other"]) == (0.5, (4, 5))
    chosen = exhibit.choose_pairs(candidates, "one")
    assert (chosen["worst"].image_id, chosen["median"].image_id) == (2, 1)
    missed = {number: item for number, item in matched.items() if number != 8}
    assert [pair.image_id for pair in exhibit.pairs(layouts, {"one": matched, "other": missed})] == [0, 1]


def test_the_section_shows_them_and_says_whose_measures_they_are(page):
    text, figures = page
    assert text.startswith("## What overlap does to masks")
    assert "The measures here are this project's own" in text and "Mask R-CNN − FCIS" in text
    assert "| FCIS, without voting |" in text and "| Mask R-CNN, without voting |" not in text
    for name in ("overlap.svg", "leakage.svg", "seams.svg", "places.svg", "pairs.png"):
        assert f"](figures/{name})" in text and (figures / name).is_file()


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(outputs, page, tmp_path):
    text, figures = page
    study = read_study(outputs, "fcis")
    assert section(analyse(study, resamples=0), study.exhibit("overlap"), Figures(tmp_path)) == text
    files = [path.name for path in figures.iterdir()]
    assert all((tmp_path / name).read_bytes() == (figures / name).read_bytes() for name in files)
