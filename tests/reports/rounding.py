"""Records of a study that varies the rounding step, beside the study of conftest.py: on its backbones and images."""

import copy
import dataclasses
import shutil
from pathlib import Path

from ablations.records.schema import Arm, Hypothesis
from ablations.records.storage import load_study, save
from tests.reports.conftest import run_record, write_study

LOST = {0: 0.0, 8: 3.0, 16: 9.0, 32: 20.0}
"""Step in pixels -> points of mask AP that an arm of stride 16 loses; one of stride 32 loses half of it."""
CELLS = ("under_1_cell", "1_to_2_cells", "2_to_4_cells", "4_to_8_cells", "8_cells_and_more")
GAINS = {16: (0.0, 3.0, 8.0, 6.0, 2.0), 32: (-1.0, 2.0, 7.0, 7.0, 3.0)}
"""Stride -> points of IoU on true boxes that RoIAlign is ahead, by the object's side in cells."""


def write_rounding(outputs: Path, seeds: int = 3) -> Path:
    """The studies `roialign` and `misalignment` under `outputs`; returns the folder of the second."""
    beside = write_study(outputs, seeds)
    folder = outputs / "misalignment"
    arms = {
        f"step{step}-{stride}": Arm(
            f"to {step} px, stride {stride}", [], {"roi": f"align_{step}" if step else "align", "stride": stride}
        )
        for stride in (16, 32)
        for step in LOST
    }
    hypotheses = [
        Hypothesis(f"coarser-{stride}", f"32 px cost more than 16 at stride {stride}", "segm.AP", contrast)
        for stride in (16, 32)
        for contrast in [{f"step16-{stride}": 1.0, f"step32-{stride}": -1.0}]
    ]
    record = load_study(beside / "study.json")
    save(dataclasses.replace(record, name="misalignment", arms=arms, hypotheses=hypotheses), folder / "study.json")
    shutil.copytree(beside / "samples", folder / "samples")
    shutil.copyfile(beside / "ground_truth.json", folder / "ground_truth.json")
    for arm, description in arms.items():
        stride, step = description.factors["stride"], int(arm.partition("-")[0].removeprefix("step"))
        for seed in range(seeds):
            save(_run(arm, seed, stride, step), folder / arm / f"seed{seed}" / "run.json")
    return folder


def _run(arm, seed, stride, step):
    run = run_record(f"align{stride}", seed)
    config, metrics = copy.deepcopy(run.config), copy.deepcopy(run.metrics)
    config["roi"]["step"] = step
    metrics["segm"]["AP"] -= LOST[step] / (stride // 16) + 0.1 * seed * (step > 0)
    return dataclasses.replace(run, study="misalignment", arm=arm, config=config, metrics=metrics)


def add_true_boxes(outputs: Path, seeds: int = 3) -> None:
    """Gives the study `roialign` masks on true boxes."""
    for stride, gains in GAINS.items():
        for seed in range(seeds):
            for name, share in (("align", 1.0), ("pool", 0.0)):
                run = run_record(f"{name}{stride}", seed)
                values = {
                    f"IoU_{cells}": 60 + share * (gain + 0.2 * seed) for cells, gain in zip(CELLS, gains, strict=True)
                }
                metrics = run.metrics | {"true_boxes": {"IoU": 65.0, **values, "IoU_96_px_and_more": 70.0}}
                path = outputs / "roialign" / f"{name}{stride}" / f"seed{seed}" / "run.json"
                save(dataclasses.replace(run, metrics=metrics), path)
