"""The records that runs leave behind. Reports read these and the files beside them, never weights.

A study folder looks like this (JSON and YAML are written atomically, `run.json` last):

    outputs/<study>/study.json                   StudyRecord: what was asked, fixed before the first run
    outputs/<study>/ground_truth.json            COCO JSON of the evaluated images
    outputs/<study>/samples/<image_id>.png       the evaluated images that reports draw, chosen beforehand
    outputs/<study>/exhibits/<name>.json         ExhibitRecord: made once all runs are done, for studies that ask for it
    outputs/<study>/exhibits/<name>/*.jpg        its pictures
    outputs/<study>/<arm>/seed<k>/config.yaml    the run's composed configuration
    outputs/<study>/<arm>/seed<k>/metrics.jsonl  one line of losses and learning rate per logged step
    outputs/<study>/<arm>/seed<k>/detections.json  COCO results: RLE masks, xywh boxes, scores
    outputs/<study>/<arm>/seed<k>/true_boxes.json  the mask IoU on every object's true box, for models with masks
    outputs/<study>/<arm>/seed<k>/model.safetensors
    outputs/<study>/<arm>/seed<k>/log.txt        what was logged, including tracebacks
    outputs/<study>/<arm>/seed<k>/status.json    Status: how far the run is, or why it failed
    outputs/<study>/<arm>/seed<k>/run.json       RunRecord: its presence means that the run is done

Every record has a `digest`, of all its other fields, written and checked by `ablations.records.storage`; records of
older versions have "".

This module imports neither torch nor Hydra, so that a report needs neither.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

SCHEMA = 1

DIFFERENCE = " - "
"""In the name of a metric: "segm.AP75 - segm.AP50", how much more one metric changes than another."""

WEIGHTS = "model.safetensors"
SNAPSHOTS = "snapshot-*.safetensors"
TRUE_BOXES = "true_boxes.json"
RESULT_FILES = ("config.yaml", "metrics.jsonl", "detections.json", TRUE_BOXES, "proposals.safetensors", WEIGHTS)
"""The files of a run whose digests are in its record."""

Metrics = dict[str, dict[str, float | None]]
"""kind -> name -> value in points; None where it is not defined."""

EXACT = {"extra": "forbid"}
"""How pydantic reads what a study's file holds: a misspelt name must not count as left out."""

State = Literal["running", "done", "failed", "stopped"]
Direction = Literal["greater", "less", "equal"]


@dataclass(frozen=True)
class Arm:
    """One setting that a study compares.

    overrides: Hydra overrides that make this arm out of the study's base configuration.
    factors:   the declared factors' values in this arm, for tables (`{"roi": "pool", "stride": 16}`).
    paper:     the paper's values for this arm by metric name (`{"segm.AP": 26.9}`), in points.
    """

    label: str
    overrides: list[str]
    factors: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, str]] = EXACT


@dataclass(frozen=True)
class Hypothesis:
    """A statement about a contrast, sum over arms of weight x metric, fixed before running.

    A difference of two arms has weights +1 and -1; an interaction has four arms.
    direction "equal" is an equivalence within +-margin points. threshold: what the contrast is counted from; of a
    single arm's value (weight 1) a level fixed beforehand.
    """

    name: str
    claim: str
    metric: str
    contrast: dict[str, float]
    direction: Direction = "greater"
    paper: float | None = None
    source: str = ""
    margin: float | None = None
    threshold: float = 0.0

    __pydantic_config__: ClassVar[dict[str, str]] = EXACT


@dataclass(frozen=True)
class Floor:
    """When a study's verdicts count: its reference arm's masks must show more than the boxes tell.

    arm: whose mask IoU on true boxes is compared with what filling the box and an ellipse in it reach.
    margin: points by which it has to be above the better of the two.
    figure: of all objects, "IoU", or of those of a size, such as "IoU_96_px_and_more".
    """

    arm: str
    margin: Annotated[float, Field(gt=0, lt=100)]
    figure: Literal["IoU", "IoU_96_px_and_more"] = "IoU"

    __pydantic_config__: ClassVar[dict[str, str]] = EXACT


@dataclass(frozen=True)
class StudyRecord:
    """What a study asks, written before its first run starts."""

    name: str
    title: str
    question: str
    factors: list[str]
    arms: dict[str, Arm]
    seeds: list[int]
    hypotheses: list[Hypothesis]
    sample_image_ids: list[int]
    config: dict[str, Any]
    data: dict[str, Any]
    exhibits: list[str] = field(default_factory=list)
    floor: Floor | None = None
    digest: str = field(default="", compare=False)
    schema: int = SCHEMA


@dataclass(frozen=True)
class RunRecord:
    """One finished run. Everything but `cost` and `provenance` is the same when the run is repeated.

    metrics: {"segm": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"},
             "bbox": {...}} in points (0 to 100); of recalls, older records have AR100 alone. A value that is not
             defined (no such objects) is None. Models with masks add "overlap", this project's own measures (see
             ablations.evaluation.overlap), and "true_boxes", their masks with the objects' own boxes as RoIs, beside
             "floor_box" and "floor_ellipse", masks that need no features (see ablations.evaluation.true_boxes). Studies
             may add kinds of their own, in points.
    losses:  the mean of each loss over the last tenth of training.
    stages:  key of each shared stage that the run depends on.
    cost:    train_seconds (of all attempts), eval_seconds, seconds_per_step (of the last), threads, and
             peak_memory_bytes: of this run where the system can tell, else of its process so far.
    parameters: how many of num_parameters each part of the model has ({"backbone": ..., "mask_head": ...}).
    provenance: git, code (the version of the deciding modules), versions, machine, resumed (the steps at which
             the run was resumed after an interruption), compile (as set), operators (which backend serves each RoI
             operator), started and finished (ISO 8601, UTC, of the last attempt).
    status: always "done"; older reports read it.
    taken_from: "study/arm" for which this run was executed, if it is reused from another study; its files are the same.
    files: SHA-256 of each of RESULT_FILES that the run has, and of its snapshots, in hexadecimal; {} in older records.
    """

    study: str
    arm: str
    seed: int
    config: dict[str, Any]
    config_hash: str
    data: dict[str, Any]
    stages: dict[str, str]
    steps: int
    num_parameters: int
    losses: dict[str, float]
    metrics: Metrics
    cost: dict[str, float]
    provenance: dict[str, Any]
    status: str = "done"
    taken_from: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    digest: str = field(default="", compare=False)
    schema: int = SCHEMA

    @property
    def identity(self) -> dict[str, str]:
        """What tells this run from one with other settings or of another time."""
        return {"config_hash": self.config_hash, "finished": self.provenance.get("finished", "")}

    def metric(self, name: str) -> float | None:
        """The metric called `name`, such as "segm.AP75", or a difference such as "segm.AP75 - segm.AP50".

        None when the run does not have it or when it is not a finite number.
        """
        if DIFFERENCE in name:
            minuend, subtrahend = (self.metric(term) for term in name.rsplit(DIFFERENCE, 1))
            return None if minuend is None or subtrahend is None else minuend - subtrahend
        kind, _, key = name.partition(".")
        value = self.metrics.get(kind, {}).get(key)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class ExhibitRecord:
    """What was made once of all runs of a study: see ablations/exhibits.

    runs:    "<arm>/seed<k>" -> the identity of the run that it was made from.
    content: the exhibit's own data. Times in it are of one machine and one moment.
    code:    the version of the exhibit's own module.
    """

    name: str
    study: str
    runs: dict[str, dict[str, str]]
    content: dict[str, Any]
    provenance: dict[str, Any]
    code: str = ""
    digest: str = field(default="", compare=False)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Status:
    """How far a run or a stage is; the process that works on it keeps it up to date while it holds .lock beside it.

    name:    for people, "roialign: pool-16 seed 0"
    state:   "running" beside a free lock means that the process was killed
    message: what it is doing, or in one line why it failed or stopped
    step, steps: the last logged step, and how many there are (0 where nothing is trained)
    resumed: the step from which this attempt went on
    pid, host, started, updated: of this attempt (ISO 8601, UTC)
    """

    name: str
    state: State
    message: str
    step: int
    steps: int
    resumed: int
    pid: int
    host: str
    started: str
    updated: str
    digest: str = field(default="", compare=False)
    schema: int = SCHEMA


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name: {"roi": {"op": "pool"}} becomes {"roi.op": "pool"}."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
