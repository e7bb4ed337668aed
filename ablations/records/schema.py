"""The records that runs leave behind, and the only thing that reports read.

A study folder looks like this (JSON and YAML are written atomically, `run.json` last):

    outputs/<study>/study.json                   StudyRecord: what was asked, fixed before the first run
    outputs/<study>/ground_truth.json            COCO JSON of the validation images
    outputs/<study>/samples/<image_id>.png       the validation images that reports draw, chosen beforehand
    outputs/<study>/exhibits/<name>.json         ExhibitRecord: made once all runs are done, for studies that ask for it
    outputs/<study>/exhibits/<name>/*.png        its pictures
    outputs/<study>/<arm>/seed<k>/config.yaml    the run's composed configuration
    outputs/<study>/<arm>/seed<k>/metrics.jsonl  one line of losses and learning rate per logged step
    outputs/<study>/<arm>/seed<k>/detections.json  COCO results: RLE masks, xywh boxes, scores
    outputs/<study>/<arm>/seed<k>/model.safetensors
    outputs/<study>/<arm>/seed<k>/log.txt        what was said on the way, tracebacks included
    outputs/<study>/<arm>/seed<k>/status.json    Status: how far the run is, or why it failed
    outputs/<study>/<arm>/seed<k>/run.json       RunRecord: its presence means that the run is done

This module imports neither torch nor Hydra, so that a report needs neither.
"""

import dataclasses
import functools
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

SCHEMA = 1

State = Literal["running", "done", "failed", "stopped"]
Direction = Literal["greater", "less", "equal"]


class RecordError(ValueError):
    """A record that cannot be read: the message names the file, what was expected and what to do."""


@dataclass(frozen=True)
class Arm:
    """One setting that a study compares.

    overrides: Hydra overrides that make this arm out of the study's base configuration.
    factors:   the declared factors' values in this arm, for tables (`{"roi": "pool", "stride": 16}`).
    paper:     the paper's figures for this arm by metric name (`{"segm.AP": 26.9}`), in points.
    """

    label: str
    overrides: list[str]
    factors: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Hypothesis:
    """A statement about a contrast, sum over arms of weight x metric, fixed before running.

    A difference of two arms has weights +1 and -1; an interaction has four arms.
    direction "equal" is an equivalence within +-margin points. threshold: what the contrast is counted from; of a
    single arm's figure (weight 1) a level fixed beforehand.
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
    schema: int = SCHEMA


@dataclass(frozen=True)
class RunRecord:
    """One finished run. Everything but `cost` and `provenance` is the same when the run is repeated.

    metrics: {"segm": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"},
             "bbox": {...}} in points (0 to 100); of recalls, older records have AR100 alone. A value that is not
             defined (no such objects) is None. Models with masks add "overlap", this project's own measures (see
             ablations.evaluation.overlap). Studies may add kinds of their own, in points.
    losses:  the mean of each loss over the last tenth of training.
    stages:  key of each shared stage that the run stands on.
    cost:    train_seconds (of all attempts), eval_seconds, seconds_per_step (of the last), threads, and
             peak_memory_bytes: of this run where the system can tell, else of its process so far.
    parameters: how many of num_parameters each part of the model has ({"backbone": ..., "mask_head": ...}).
    provenance: git, code (the version of the deciding modules), versions, machine, resumed (the steps from which the
             run went on after an interruption), compile (as set), started and finished (ISO 8601, UTC, of the last
             attempt).
    taken_from: "study/arm" that this run was made for, when another study had it already; its files are the same.
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
    metrics: dict[str, dict[str, float | None]]
    cost: dict[str, float]
    provenance: dict[str, Any]
    status: str = "done"
    taken_from: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def identity(self) -> dict[str, str]:
        """What tells this run from one with other settings or of another time."""
        return {"config_hash": self.config_hash, "finished": self.provenance.get("finished", "")}

    def metric(self, name: str) -> float | None:
        """The figure called `name`, such as "segm.AP75", or a difference such as "segm.AP75 - segm.AP50"."""
        terms = [term.partition(".") for term in name.split(" - ")]
        first, *others = [self.metrics[kind][key] for kind, _, key in terms]
        for other in others:
            first = None if first is None or other is None else first - other
        return first


@dataclass(frozen=True)
class ExhibitRecord:
    """What was made once of all runs of a study: see ablations/exhibits.

    runs:    "<arm>/seed<k>" -> the identity of the run that it stands on.
    content: the exhibit's own data. Times in it are of one machine and one moment.
    code:    the version of the exhibit's own module.
    """

    name: str
    study: str
    runs: dict[str, dict[str, str]]
    content: dict[str, Any]
    provenance: dict[str, Any]
    code: str = ""
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
    schema: int = SCHEMA


LOCK = ".lock"
"""Beside a status: the process that keeps it holds this file. A status "running" beside a free one is of a process that
was killed."""

TEMPORARY = ".tmp"
"""How the names of files end that are still being written: one that is older than its process can be removed."""


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Writes so that `path` holds either its old content or all of the new one, whatever happens.

    durable: even when the power fails; without, only whatever happens to the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def clear_temporaries(folder: Path) -> None:
    """Removes what a killed process was writing in `folder`; nobody may be writing there."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def save(record: StudyRecord | RunRecord | ExhibitRecord | Status, path: Path, durable: bool = True) -> None:
    write_atomically(path, json.dumps(dataclasses.asdict(record), indent=1) + "\n", durable)


def load_run(path: Path) -> RunRecord:
    return _build(RunRecord, _read(path, RunRecord), path)


def load_exhibit(path: Path) -> ExhibitRecord:
    return _build(ExhibitRecord, _read(path, ExhibitRecord), path)


def load_status(path: Path) -> Status | None:
    """None where there is none that can be read: it only tells how things stand and decides nothing."""
    try:
        return _build(Status, _read(path, Status), path)
    except (OSError, RecordError):
        return None


def load_study(path: Path) -> StudyRecord:
    content = _read(path, StudyRecord)
    try:
        content["arms"] = {name: Arm(**arm) for name, arm in content["arms"].items()}
        content["hypotheses"] = [Hypothesis(**hypothesis) for hypothesis in content["hypotheses"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: not a study record ({error}); delete it and run the study again") from error
    study: StudyRecord = _build(StudyRecord, content, path)
    unknown = {arm for hypothesis in study.hypotheses for arm in hypothesis.contrast} - set(study.arms)
    if unknown:
        raise RecordError(
            f"{path}: hypotheses name arms that are not there: {sorted(unknown)}; delete it and run again"
        )
    return study


def _read(path: Path, kind: type) -> dict[str, Any]:
    """The JSON of a record whose fields have the types of `kind`."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not JSON ({error}); delete it and run again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise RecordError(f"{path}: expected a record of schema {SCHEMA}, got {got}; delete it and run again")
    try:
        _checker(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: {place}: {first['msg']} ({kind.__name__}); delete it and run again") from error
    return content


@functools.cache
def _checker(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _build(kind: type, content: dict[str, Any], path: Path) -> Any:
    try:
        return kind(**content)
    except TypeError as error:
        raise RecordError(f"{path}: not a {kind.__name__} ({error}); delete it and run again") from error
