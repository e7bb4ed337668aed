"""Small hand-made records of a study: four arms, images of discs and boxes, shifted ground truths as detections."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from ablations.records.schema import Arm, ExhibitRecord, Hypothesis, RunRecord, StudyRecord
from ablations.records.storage import load_run, save

SIDE = 256


def save_nothing(figures, drawn, name, vector=True, photographs=False):
    """In place of Figures.save where a test is about the text: an empty file, so that the figure counts as drawn."""
    figures.attach(f"{name}.{'svg' if vector else 'jpg' if photographs else 'png'}", b"")
    plt.close(drawn)


CATEGORIES = ["disc", "box"]
ARMS = {
    "pool16": ("RoIPool, stride 16", "pool", 16, 36.0, 4),
    "align16": ("RoIAlign, stride 16", "align", 16, 50.0, 1),
    "pool32": ("RoIPool, stride 32", "pool", 32, 22.0, 9),
    "align32": ("RoIAlign, stride 32", "align", 32, 37.0, 3),
}
PAPER = {
    "pool16": {"segm.AP": 26.9, "segm.AP50": 48.8, "segm.AP75": 26.4},
    "align16": {"segm.AP": 30.3, "segm.AP50": 51.2, "segm.AP75": 31.5},
    "pool32": {"segm.AP": 23.6, "segm.AP50": 46.5, "segm.AP75": 21.6, "bbox.AP": 28.2, "bbox.AP75": 26.9},
    "align32": {"segm.AP": 30.9, "segm.AP50": 51.8, "segm.AP75": 32.1, "bbox.AP": 34.0, "bbox.AP75": 36.4},
}
AT_16, AT_32 = {"align16": 1.0, "pool16": -1.0}, {"align32": 1.0, "pool32": -1.0}
MORE_AT_32 = {"align32": 1.0, "pool32": -1.0, "align16": -1.0, "pool16": 1.0}


def study_record(seeds: int = 5) -> StudyRecord:
    arms = {
        name: Arm(label, [f"roi={op}", f"stride={stride}"], {"roi": op, "stride": stride}, PAPER[name])
        for name, (label, op, stride, *_) in ARMS.items()
    }
    hypotheses = [
        Hypothesis(
            "mask-ap-16",
            "RoIAlign beats RoIPool in mask AP at stride 16",
            "segm.AP",
            AT_16,
            paper=3.4,
            source="table 2c",
        ),
        Hypothesis(
            "mask-ap-32",
            "RoIAlign beats RoIPool in mask AP at stride 32",
            "segm.AP",
            AT_32,
            paper=7.3,
            source="table 2d",
        ),
        Hypothesis(
            "interaction",
            "The gain in mask AP is larger at stride 32 than at stride 16",
            "segm.AP",
            MORE_AT_32,
            paper=3.9,
            source="tables 2c and 2d",
        ),
        Hypothesis(
            "strict",
            "AP75 gains more than AP50 at stride 16",
            "segm.AP75 - segm.AP50",
            AT_16,
            paper=2.7,
            source="table 2c",
        ),
        Hypothesis(
            "box-ap-32", "RoIAlign beats RoIPool in box AP at stride 32", "bbox.AP", AT_32, paper=5.8, source="table 2d"
        ),
    ]
    return StudyRecord(
        name="roialign",
        title="RoIPool against RoIAlign",
        question="What does it cost a mask to round its region to the feature grid, and does it cost more on a "
        "coarser grid?",
        factors=["roi", "stride"],
        arms=arms,
        seeds=list(range(seeds)),
        hypotheses=hypotheses,
        sample_image_ids=[1, 5],
        config=config("align", 16, 0),
        data={"name": "shapes", "digest": "0123456789abcdef", "num_train": 2000, "num_val": 300},
    )


def config(op: str, stride: int, seed: int) -> dict:
    return {
        "model": {"pooled": 7, "channels": [12, 24, 48, 96]},
        "roi": {
            "op": op,
            "reduce": "max" if op == "pool" else "ave",
            "sampling_ratio": 0 if op == "pool" else 2,
            "aligned": False,
        },
        "mask_loss": {"name": "sigmoid"},
        "stride": stride,
        "seed": seed,
    }


def figures(rng: np.random.Generator, level: float) -> dict[str, dict[str, float | None]]:
    """Plausible AP tables around a mask AP of `level`."""
    base = level + rng.normal(0, 0.8)

    def table(ap: float) -> dict[str, float | None]:
        return {
            "AP": ap,
            "AP50": ap + 27 - 0.2 * ap,
            "AP75": 1.3 * ap - 9,
            "APs": None,
            "APm": ap - 6 + rng.normal(0, 1),
            "APl": ap + 5 + rng.normal(0, 1),
            "AR100": ap + 8 + rng.normal(0, 0.4),
        }

    return {"segm": table(base), "bbox": table(base * 0.8 + 16 + rng.normal(0, 0.4))}


def run_record(arm: str, seed: int) -> RunRecord:
    _, op, stride, level, _ = ARMS[arm]
    rng = np.random.default_rng([seed, *arm.encode()])
    effect = np.random.default_rng(seed).normal(0, 0.6)  # what arms of a seed share
    return RunRecord(
        study="roialign",
        arm=arm,
        seed=seed,
        config=config(op, stride, seed),
        config_hash=f"{arm}{seed}",
        data={"name": "shapes", "digest": "0123456789abcdef"},
        stages={"backbone": f"backbone-{stride}", "rpn": f"rpn-{stride}"},
        steps=400,
        num_parameters=812_345 if stride == 16 else 1_412_345,
        losses={"loss_mask": 0.31 + 0.01 * stride / 16, "loss_box": 0.12, "loss_class": 0.4},
        metrics=figures(rng, level + effect),
        cost={
            "train_seconds": 40.0 + stride / 8 + seed,
            "eval_seconds": 5.0,
            "seconds_per_step": 0.09 + stride / 900,
            "peak_memory_bytes": 8.1e8,
            "threads": 1,
        },
        provenance={
            "git": {"commit": "abc1234", "dirty": False},
            "versions": {"python": "3.11.2", "torch": "2.15"},
            "machine": {"cpu": "a processor", "cores": 2},
            "started": "2026-01-01T00:00:00Z",
            "finished": f"2026-01-01T00:0{seed % 10}:00Z",
        },
    )


def draw_object(rng: np.random.Generator, shape: str) -> np.ndarray:
    """A [SIDE, SIDE] mask of a disc or a box somewhere in the image."""
    radius, (x, y) = rng.uniform(14, 48), rng.uniform(50, SIDE - 50, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    if shape == "disc":
        return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return (abs(columns - x) <= radius) & (abs(rows - y) <= 0.7 * radius)


def encode(mask: np.ndarray) -> dict:
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def ground_truth(folder: Path, images: int = 6) -> tuple[dict, dict[int, np.ndarray]]:
    """COCO JSON and annotation id -> mask; writes the sample images."""
    rng = np.random.default_rng(0)
    annotations, masks = [], {}
    for image in range(1, images + 1):
        canvas = np.clip(rng.normal(150, 12, (SIDE, SIDE, 3)) + np.linspace(-40, 40, SIDE)[:, None], 0, 255)
        for _ in range(4):
            category = int(rng.integers(1, 3))
            mask = draw_object(rng, CATEGORIES[category - 1])
            canvas[mask] = rng.uniform(20, 235, 3) + rng.normal(0, 8, (int(mask.sum()), 3))
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            masks[len(annotations) + 1] = mask
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": encode(mask),
                    "area": int(mask.sum()),
                    "bbox": [float(side) for side in box],
                }
            )
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).save(folder / "samples" / f"{image}.png")
    truth = {
        "info": {},
        "images": [{"id": image, "width": SIDE, "height": SIDE} for image in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(CATEGORIES)],
    }
    return truth, masks


def detections(truth: dict, masks: dict[int, np.ndarray], arm: str, seed: int) -> list[dict]:
    """The ground truths shifted by about the arm's error, with scores, some false positives and some misses."""
    error = ARMS[arm][4]
    rng = np.random.default_rng([seed, *arm.encode(), 1])
    results = []
    for annotation in truth["annotations"]:
        if rng.random() < 0.08:
            continue
        right, down = rng.integers(-error, error + 1, 2)
        mask = np.roll(masks[annotation["id"]], (down, right), (0, 1))
        wrong = rng.random() < 0.05
        x, y, width, height = annotation["bbox"]
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": 3 - annotation["category_id"] if wrong else annotation["category_id"],
                "score": round(float(rng.uniform(0.4, 1)), 6),
                "bbox": [x + float(right), y + float(down), width, height],
                "segmentation": encode(mask),
            }
        )
    return results


def save_exhibit(folder: Path, name: str, content: dict[str, Any], runs: Sequence[tuple[str, int]]) -> None:
    """Files a study's exhibit, made from these runs (arm, seed), under the folder's name, which its runs get too."""
    identities = {}
    for arm, seed in runs:
        path = folder / arm / f"seed{seed}" / "run.json"
        save(dataclasses.replace(load_run(path), study=folder.name), path)
        identities[f"{arm}/seed{seed}"] = load_run(path).identity
    save(ExhibitRecord(name, folder.name, identities, content, {}, "code"), folder / f"exhibits/{name}.json")


def write_study(outputs: Path, seeds: int = 5, skip: tuple[tuple[str, int], ...] = ()) -> Path:
    """A whole study folder under `outputs`; `skip` names (arm, seed) without a result."""
    folder = outputs / "roialign"
    save(study_record(seeds), folder / "study.json")
    truth, masks = ground_truth(folder)
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    for arm in ARMS:
        for seed in range(seeds):
            if (arm, seed) in skip:
                continue
            run = folder / arm / f"seed{seed}"
            save(run_record(arm, seed), run / "run.json")
            (run / "detections.json").write_text(json.dumps(detections(truth, masks, arm, seed)))
            lines = [
                {
                    "step": step,
                    "lr": 2e-3 * (1 - step / 400),
                    "loss_mask": 0.7 * 0.99 ** (step / 4) + 0.2,
                    "loss_box": 0.3 * 0.99 ** (step / 3),
                    "loss_class": 1.5 * 0.99 ** (step / (3 + seed / 9)) + 0.1,
                }
                for step in range(0, 400, 10)
            ]
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one complete study. Read only: tests that damage records write their own."""
    root = tmp_path_factory.mktemp("outputs")
    write_study(root)
    return root


@pytest.fixture(scope="session")
def browser():
    """The machine's Chromium; skips what needs it where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser):
    """Opens a file as a page; `page.troubles` lists its messages, its errors, and its requests for other files."""
    contexts = []

    def opened(path, width=1280, scheme="light", fragment="", **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        contexts.append(context)
        page, address = context.new_page(), path.as_uri()
        page.troubles = []
        page.on("console", lambda message: page.troubles.append(message.text))
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        is_own = lambda url: url.startswith(("data:", address))  # noqa: E731
        page.on("request", lambda request: is_own(request.url) or page.troubles.append(request.url))
        page.goto(address + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def accessible():
    """Fails where axe-core finds a page to violate WCAG 2.1, levels A and AA: contrast, names, roles, order."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}

    def check(page):
        violations = axe.Axe().run(page, options=rules).response["violations"]
        assert violations == [], [(item["id"], [node["html"][:200] for node in item["nodes"]]) for item in violations]

    return check
