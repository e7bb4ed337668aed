"""Misalignment as a dose: how far an arm's rounding moves its bins, and what that costs its masks.

An arm is compared with the one that rounds nothing on the same backbone, so neither how strong a backbone is, nor how
little a weak one has to lose, comes in. Frame and letters: as in misalignment.py.
"""

from dataclasses import dataclass

import numpy as np

from ablations.errors import RecordError
from ablations.records.schema import RunRecord
from reports.load import StudyResults, read_study
from reports.stats.contrasts import contrast_of, primary_metric
from reports.stats.misalignment import LARGE, arrays, bins_of, displacements, resized, sides_of
from reports.stats.paired import Estimate
from reports.text.labels import is_of_large

BESIDE = ("roialign", "roiops")
"""Studies whose RoIPool and RoIWarp are shown too, where their records are beside and made on the same backbone."""


@dataclass(frozen=True)
class Dose:
    """An arm whose rounding moves bins.

    op, step: its operator, and the image pixels that boxes are rounded to before RoIAlign reads them. RoIWarp is
              RoIAlign of boxes rounded to the stride; RoIPool, which rounds its bins too, has 0.
    pixels:   the displacement of an object's bins, averaged over the ground-truth objects that the metric is about.
    share:    the displacement in per cent of the object's side, averaged likewise.
    lost:     the metric of the arm without rounding minus the arm's own, over seeds.
    study:    the name of the arm's study where it is not the one that is reported, else "".
    same_net: whether the network is, except for the operator, that of the study that is reported.
    metric:   of the masks.
    """

    op: str
    step: int
    stride: int
    pixels: float
    share: float
    lost: Estimate
    study: str
    same_net: bool = True
    metric: str = "segm.AP"

    @property
    def on_curve(self) -> bool:
        """Whether it is one of the reported study's rounding steps, by whatever name."""
        return self.step > 0 and not self.study


def doses(study: StudyResults) -> list[Dose]:
    """The arms of a study that varies the rounding step, with those of studies beside it: by stride and displacement.

    What they lose is the study's primary metric. Empty for other studies, and without ground truth.
    """
    own, metric = _first_runs(study), primary_metric(study)
    if not any(run.config["roi"].get("step") for run in own.values()):
        return []
    doses = _doses_of(study, own, metric)
    for name in BESIDE:
        try:
            other = read_study(study.folder.parent, name)
        except (RecordError, OSError):
            continue
        doses += _doses_of(other, own, metric, other.name)
    return sorted(doses, key=lambda dose: (dose.stride, dose.pixels))


def _doses_of(study: StudyResults, reported: dict[str, RunRecord], metric: str, name: str = "") -> list[Dose]:
    """A study's arms that round, on backbones of the `reported` runs. name: of a study beside the reported one."""
    if study.ground_truth is None:
        return []
    sizes, items = resized(study.ground_truth, study.record.config.get("data", {}))
    boxes, extents = arrays(items, sizes)
    if is_of_large(metric):
        large = sides_of(boxes) >= LARGE
        boxes, extents = boxes[large], extents[large]
    if not len(boxes):
        return []
    runs, nets = _first_runs(study), {_backbone(run): run.config["model"] for run in reported.values()}
    unrounded = {_backbone(run): arm for arm, run in runs.items() if _rounds(run) is False}
    doses = []
    for arm, run in runs.items():
        backbone, roi = _backbone(run), run.config["roi"]
        if not _rounds(run) or backbone not in nets or backbone not in unrounded:
            continue
        op, stride = roi["op"], run.config["stride"]
        step = stride if op == "warp" else roi.get("step", 0)
        moved = displacements(boxes, extents, bins_of(study), stride, op, step)
        doses.append(
            Dose(
                op,
                step,
                stride,
                pixels=float(np.nanmean(moved)),
                share=float(100 * np.nanmean(moved / sides_of(boxes))),
                lost=contrast_of(study, {unrounded[backbone]: 1, arm: -1}, metric),
                study=name,
                same_net=run.config["model"] == nets[backbone],
                metric=metric,
            )
        )
    return [dose for dose in doses if dose.lost.mean is not None]


def _first_runs(study: StudyResults) -> dict[str, RunRecord]:
    """Arm -> one of its runs, of those arms that pool RoIs from one map of a backbone."""
    first = {arm: run for (arm, _), run in reversed(study.runs.items())}
    return {
        arm: first[arm]
        for arm in study.record.arms
        if arm in first and {"roi", "model", "stride"} <= first[arm].config.keys() and "backbone" in first[arm].stages
    }


def _backbone(run: RunRecord) -> tuple[int, str]:
    return run.config["stride"], run.stages["backbone"]


def _rounds(run: RunRecord) -> bool | None:
    """Whether an arm's operator rounds; None where it also takes maxima of samples, which is another difference."""
    roi = run.config["roi"]
    if roi["op"] == "pool":
        return True
    return None if roi.get("reduce") == "max" else roi["op"] == "warp" or roi.get("step", 0) > 0
