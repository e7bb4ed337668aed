"""Finds the records of studies under an output folder. Nothing else in `reports/` opens a run's files."""

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

from ablations.errors import RecordError
from ablations.records import packed
from ablations.records.schema import TRUE_BOXES, ExhibitRecord, RunRecord, StudyRecord
from ablations.records.storage import load_exhibit, load_run, load_status, load_study
from data import digests
from reports.contents import (
    Unusable,
    log_line,
    log_row,
    objects_problem,
    picture_problem,
    read_json,
    results_problem,
    truth_problem,
)

READ = ("detections.json", "metrics.jsonl", TRUE_BOXES)
"""The files of a run that are read besides its record; they are used only if they are what the run wrote."""

Trouble = Literal["missing", "failed", "unreadable", "unplanned"]


@dataclass(frozen=True)
class RunProblem:
    """A run that the study planned and the report cannot use, or one it did not plan."""

    arm: str
    seed: int
    kind: Trouble
    detail: str


@dataclass(frozen=True)
class StudyResults:
    """A study with those of its planned runs that are done.

    runs:      (arm, seed) -> RunRecord, with the metrics that exhibits measured of it afterwards.
    recorded:  (arm, seed) -> RunRecord as the run wrote it.
    problems:  the planned runs that are not done, and finished ones that were not planned.
    published: (arm, seed) -> record and curves of a published study, see records/packed.py; else None.
    refused:   file -> why it cannot be used, of those that were read so far and are no records.
    """

    folder: Path
    record: StudyRecord
    runs: dict[tuple[str, int], RunRecord]
    problems: list[RunProblem] = field(default_factory=list)
    recorded: dict[tuple[str, int], RunRecord] = field(default_factory=dict, repr=False, compare=False)
    published: dict[tuple[str, int], packed.PackedRun] | None = field(default=None, repr=False, compare=False)
    refused: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _of_samples: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.record.name

    def label(self, arm: str) -> str:
        return self.record.arms[arm].label

    def seeds(self, arms: list[str] | None = None) -> list[int]:
        """The planned seeds for which every one of `arms` (default: all) is done."""
        arms = list(self.record.arms) if arms is None else arms
        return [seed for seed in self.record.seeds if all((arm, seed) in self.runs for arm in arms)]

    def shown_seed(self) -> int | None:
        """The seed whose pictures are shown: the first of those in which the most arms are done; None without runs."""
        done = {seed: sum((arm, seed) in self.runs for arm in self.record.arms) for seed in self.record.seeds}
        most = max(done.values(), default=0)
        return next((seed for seed, count in done.items() if count == most), None) if most else None

    def value(self, arm: str, seed: int, metric: str) -> float | None:
        """A run's value of a metric such as "segm.AP75" or "segm.AP75 - segm.AP50"; None where it is not defined."""
        run = self.runs.get((arm, seed))
        return None if run is None else run.metric(metric)

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """Seed -> value of a metric, over the arm's finished runs in which it is defined."""
        by_seed = {seed: self.value(arm, seed, metric) for seed in self.record.seeds}
        return {seed: value for seed, value in by_seed.items() if value is not None}

    def mean(self, arm: str, metric: str) -> float | None:
        """The mean of a metric over the arm's finished runs; None where it is not defined in any."""
        values = self.values(arm, metric)
        return statistics.fmean(values.values()) if values else None

    @property
    def data(self) -> dict[str, Any]:
        """What is known of the data: from the study's record, and from a run's where there is one."""
        return self.record.data | next((run.data for run in self.runs.values()), {})

    def metrics(self) -> list[str]:
        """Every metric that some finished run holds, in the order in which they first appear."""
        names = [f"{kind}.{key}" for run in self.runs.values() for kind, table in run.metrics.items() for key in table]
        return list(dict.fromkeys(names))

    def run_folder(self, arm: str, seed: int) -> Path:
        return self.folder / arm / f"seed{seed}"

    @property
    def has_detections(self) -> bool:
        """Whether any run's detections are there; of a published study they are not."""
        return any((self.run_folder(*key) / "detections.json").is_file() for key in self.runs)

    def detections(self, arm: str, seed: int) -> list[dict[str, Any]] | None:
        """COCO results of a run; None when the file is missing or refused."""
        content = self._content(f"{arm}/seed{seed}/detections.json", lambda it: results_problem(it, self.ground_truth))
        if content is None:
            return None
        samples = set(self.record.sample_image_ids)
        self._of_samples[arm, seed] = [result for result in content if result["image_id"] in samples]
        return content

    def true_boxes(self, arm: str, seed: int) -> dict[str, list[Any]] | None:
        """A run's masks on true boxes, object by object; None when the file is missing or refused.

        "image_ids", and by name the figures that means over objects are of, in points; None of objects not in a mean.
        """
        return self._content(f"{arm}/seed{seed}/{TRUE_BOXES}", lambda it: objects_problem(it, self.ground_truth))

    def reading(self, arm: str, seed: int) -> tuple[list[dict[str, Any]] | None, dict[str, str]]:
        """What reading a run's files left here: the detections of the sample images, and why files were refused."""
        refused = {name: why for name, why in self.refused.items() if name.startswith(f"{arm}/seed{seed}/")}
        return self._of_samples.get((arm, seed)), refused

    def adopt(self, arm: str, seed: int, samples: list[dict[str, Any]] | None, refused: dict[str, str]) -> None:
        """Takes over what another process has read, see `reading`: the files need not be read and checked again."""
        if samples is not None:
            self._of_samples[arm, seed] = samples
        self.refused.update(refused)

    def _content(self, name: str, problem: Callable[[Any], str]) -> Any:
        """What a JSON file in the study's folder holds; None, and an entry in `refused`, if there is a problem."""
        try:
            content = read_json(self.folder / name)
            if text := problem(content):
                raise Unusable(text)
        except FileNotFoundError:
            return None
        except Unusable as error:
            self.refused[name] = str(error)
            return None
        return content

    def sample_detections(self, arm: str, seed: int) -> list[dict[str, Any]] | None:
        """Those of the sample images alone, kept from the first time that the file was read."""
        if (arm, seed) not in self._of_samples and self.detections(arm, seed) is None:
            return None
        return self._of_samples[arm, seed]

    def curves(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that can be read, by step: of each the numbers that are finite.

        A run that was resumed may repeat a step: the last line of a step counts.
        """
        if self.published is not None:
            _, rows = self.published.get((arm, seed), (None, []))
            return [row for row in map(log_row, rows) if row is not None]
        path = self.run_folder(arm, seed) / "metrics.jsonl"
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        lines = {line["step"]: line for line in map(log_line, texts) if line is not None}
        return [lines[step] for step in sorted(lines)]

    def exhibit(self, name: str) -> ExhibitRecord | None:
        """An exhibit's record; None when it is not made or cannot be read."""
        try:
            return load_exhibit(self.folder / "exhibits" / f"{name}.json")
        except (OSError, RecordError):
            return None

    def exhibit_picture(self, name: str, picture: object) -> Path | None:
        """The file of one of an exhibit's pictures; None where it is missing or no picture. Older records have PNG."""
        files = (self.folder / "exhibits" / name / f"{picture}{suffix}" for suffix in (".jpg", ".png"))
        return next((file for file in files if file.is_file() and not picture_problem(file)), None)

    @property
    def boxes_are_given(self) -> bool:
        """Whether proposals are true boxes moved at random, in every arm: nothing is to be found, and no background to
        be told from objects. Box AP then means nothing, and mask AP is not that of a detector."""
        configs = [self.record.config, *(run.config for run in self.runs.values())]
        return all(config.get("rpn") == "jitter" for config in configs)

    @property
    def on_photographs(self) -> bool:
        """Whether its images are not synthetic."""
        return self.data.get("name") != "shapes"

    @property
    def evaluated(self) -> str:
        """What the images that its runs are evaluated on are called; a COCO-format folder has no test images."""
        return "test images" if self.data.get("split") == "test" else "validation images"

    @cached_property
    def ground_truth(self) -> dict[str, Any] | None:
        """COCO JSON of the images that runs are evaluated on; None when the file is missing or refused."""
        return self._content("ground_truth.json", truth_problem)

    def sample_images(self) -> list[tuple[int, Path]]:
        """(image id, file) of the evaluated images that were chosen before training, where the file can be read."""
        return self._samples

    @cached_property
    def _samples(self) -> list[tuple[int, Path]]:
        images = (self.ground_truth or {}).get("images", [])
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        usable = []
        for image in self.record.sample_image_ids:
            path = self.folder / "samples" / f"{image}.png"
            if problem := picture_problem(path, sizes.get(image)):
                self.refused[f"samples/{path.name}"] = problem
            elif path.is_file():
                usable.append((image, path))
        return usable


def find_studies(outputs: Path) -> list[str]:
    """Names of the folders under `outputs` that hold a study record."""
    return sorted(path.parent.name for path in outputs.glob("*/study.json"))


def read_study(outputs: Path, name: str) -> StudyResults:
    """Reads a study and its runs.

    Raises RecordError when there is no readable study record, and where a published study's runs are damaged; of other
    studies an unreadable run is a RunProblem.
    """
    folder = outputs / name
    if not (folder / "study.json").is_file():
        there = ", ".join(find_studies(outputs)) or "none"
        raise RecordError(
            f"expected the record of study '{name}' at {folder / 'study.json'}, found no such file (studies with "
            f"records under {outputs}: {there}); run `python run.py study={name}` first"
        )
    record = load_study(folder / "study.json")
    strange = [arm for arm in record.arms if not re.fullmatch(r"\w[\w.-]*", arm)]
    if strange:
        raise RecordError(
            f"{folder / 'study.json'}: expected names of arms of letters, digits, '-', '_' and '.', "
            f"got {strange[0]!r}; do not use this record"
        )
    published = packed.unpack(folder)
    runs: dict[tuple[str, int], RunRecord] = {}
    problems: list[RunProblem] = []
    for arm in record.arms:
        for seed in record.seeds:
            outcome = _read_run(folder, arm, seed) if published is None else _unpacked(published, arm, seed)
            if isinstance(outcome, RunProblem):
                problems.append(outcome)
            else:
                runs[arm, seed] = outcome
    problems += _unplanned(folder, record, published or {})
    study = StudyResults(folder, record, runs, problems, recorded=dict(runs), published=published)
    for name in record.exhibits:
        _add_metrics(study, name)
    return study


def _add_metrics(study: StudyResults, name: str) -> None:
    """Gives each run the metrics that an exhibit measured of it afterwards, as a kind of their own: its name.

    Nothing is added where the exhibit belongs to other runs than these.
    """
    exhibit = study.exhibit(name)
    measured = exhibit.content.get("metrics") if exhibit is not None else None
    if exhibit is None or not isinstance(measured, dict):
        return
    for (arm, seed), run in study.runs.items():
        by_seed = measured.get(arm)
        metrics = by_seed.get(str(seed)) if isinstance(by_seed, dict) else None
        if exhibit.runs.get(f"{arm}/seed{seed}") == run.identity and _is_table(metrics):
            study.runs[arm, seed] = dataclasses.replace(run, metrics=run.metrics | {name: metrics})


def _is_table(content: Any) -> TypeGuard[dict[str, float | None]]:
    """Whether this maps names to numbers or None."""
    return isinstance(content, dict) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
        for value in content.values()
    )


def _read_run(folder: Path, arm: str, seed: int) -> RunRecord | RunProblem:
    path = folder / arm / f"seed{seed}" / "run.json"
    if not path.is_file():
        return _unfinished(path.parent, arm, seed)
    try:
        run = load_run(path)
    except (RecordError, OSError) as error:
        return RunProblem(arm, seed, "unreadable", str(error).replace(f"{folder}/", ""))
    if (run.arm, run.seed) != (arm, seed):
        return RunProblem(arm, seed, "unreadable", f"the record says arm '{run.arm}', seed {run.seed}")
    read = {name: digest for name, digest in run.files.items() if name in READ and (path.parent / name).exists()}
    problem = digests.damage(path.parent, read)
    return RunProblem(arm, seed, "unreadable", problem) if problem else run


def _unpacked(published: dict[tuple[str, int], packed.PackedRun], arm: str, seed: int) -> RunRecord | RunProblem:
    if (arm, seed) not in published:
        return RunProblem(arm, seed, "missing", f"not in {packed.FILE}")
    return published[arm, seed][0]


def _unfinished(folder: Path, arm: str, seed: int) -> RunProblem:
    """What its status says of a run without a record; its log where an older version left no status."""
    status = load_status(folder / "status.json")
    failure = _failure(folder / "log.txt") if status is None else None
    if failure is not None:
        return RunProblem(arm, seed, "failed", failure)
    if status is None:
        started = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
        return RunProblem(arm, seed, "missing", "started, no result yet" if started else "not started")
    if status.state == "failed":
        return RunProblem(arm, seed, "failed", status.message)
    where = f" at step {status.step} of {status.steps}" if status.steps else ""
    return RunProblem(arm, seed, "missing", f"stopped{where}" if status.state == "stopped" else f"not finished{where}")


def _failure(log: Path) -> str | None:
    """The last line of the traceback in a run's log, if its last start ended in one."""
    if not log.is_file():
        return None
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    starts = [index for index, line in enumerate(lines) if line.startswith("started ")]
    last = [line.strip() for line in lines[starts[-1] if starts else 0 :] if line.strip()]
    return last[-1] if any(line.startswith("Traceback") for line in last) else None


def _unplanned(folder: Path, record: StudyRecord, published: Iterable[tuple[str, int]]) -> Iterator[RunProblem]:
    """Finished runs that the study record does not name: leftovers of an earlier plan, never used."""
    found = [
        (path.parent.parent.name, path.parent.name.removeprefix("seed")) for path in folder.glob("*/seed*/run.json")
    ]
    done = [(arm, int(number)) for arm, number in found if number.isdecimal()]
    for arm, seed in sorted([*done, *published]):
        if arm not in record.arms or seed not in record.seeds:
            yield RunProblem(arm, seed, "unplanned", "not part of the study's plan; left out")
