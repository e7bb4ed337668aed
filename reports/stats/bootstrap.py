"""The noise of the evaluated images: a paired bootstrap over stored detections, with AP accumulated per resample.

Detections are matched to objects once a run (see matching.py). A resample draws as many images as there are, with
replacement, the same for all arms and seeds; an image drawn twice counts twice. Only the accumulation depends on the
draw, and precision need only be known where a true positive stands, so a resample takes less than a millisecond.

Letters: I images, T IoU thresholds, N detections of a class, P true positives among them, R resamples.
"""

import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablations.evaluation import overlap
from ablations.records.schema import DIFFERENCE
from reports.load import StudyResults
from reports.stats import floors
from reports.stats.matching import IOUS, ClassMatches, Truth
from reports.stats.paired import LEVEL

Run = tuple[str, int]
"""An arm and a seed."""
Resampled = tuple[dict[str, np.ndarray], tuple[list[dict[str, Any]] | None, dict[str, str]]]
"""A run's values, see `ImageBootstrap.resample`, and what is left of reading it, see `StudyResults.reading`."""

RESAMPLES = 500  # from one set of them to another, an end of the interval varies by 3 % of its width
MOST_WORKERS = 4
WORTH_PROCESSES = 2000  # runs x images from which processes of their own pay
CHUNK = 250  # resamples at a time: bounds the memory
THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
RECALLS = np.linspace(0, 1, 101)
MEANS = ("overlap.leakage", "overlap.seams")  # over objects


@dataclass(frozen=True)
class ImageNoise:
    """The bootstrap of a contrast averaged over its seeds: the middle `LEVEL` of the resampled values, in points.

    error:       the bootstrap's standard error, the resampled values' standard deviation.
    num_objects: how many objects have a value, on with_objects of the images. These three are None in older files, and
                 the last two where objects are not counted.
    """

    mean: float
    low: float
    high: float
    num_images: int
    num_seeds: int
    error: float | None = None
    num_objects: int | None = None
    with_objects: int | None = None

    @property
    def detectable(self) -> float | None:
        """The smallest true difference whose interval over images excludes 0 in 80 % of the cases, if its error is as
        measured: 1.96 + 0.84 standard errors."""
        return None if self.error is None else 2.8 * self.error

    def covers(self, value: float = 0.0) -> bool:
        return self.low <= value <= self.high


def average_precisions(
    classes: Iterable[ClassMatches], draws: np.ndarray, keys: Sequence[str] = tuple(THRESHOLDS)
) -> dict[str, np.ndarray]:
    """AP in points of every resample, for each of `keys` (see THRESHOLDS).

    draws: [R, I], how often each image was drawn -> [R] for each key, NaN without objects.
    """
    wanted = sorted({index for key in keys for index in range(len(IOUS))[THRESHOLDS[key]]})
    total = np.zeros((len(IOUS), len(draws)))
    defined = np.zeros(len(draws))
    for matches in classes:
        objects = draws @ matches.objects
        weights = draws[:, matches.image].astype(np.int32)
        seen = np.cumsum(weights, axis=1, dtype=np.int32)
        recalls = _recalls_reached(objects)
        there = objects > 0
        for index in wanted:
            precision = _precision(weights, seen, matches.hit[index], matches.ignored[index], recalls)
            total[index] += np.where(there, precision, 0.0)
        defined += there
    with np.errstate(invalid="ignore"):
        return {key: 100 * total[THRESHOLDS[key]].mean(axis=0) / defined for key in keys}


def _recalls_reached(objects: np.ndarray) -> np.ndarray:
    """[R, most objects + 1]: of COCO's 101 recalls, how many are reached with this many true positives."""
    distinct, row = np.unique(objects, return_inverse=True)
    recall = np.arange(distinct.max(initial=0) + 1) / np.maximum(distinct, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall.ravel(), side="right").reshape(recall.shape)
    return reached.astype(np.int16)[row]


def _precision(
    weights: np.ndarray, seen: np.ndarray, hit: np.ndarray, ignored: np.ndarray, recalls: np.ndarray
) -> np.ndarray:
    """Precision averaged over COCO's 101 recalls, [R], of one class at one threshold.

    weights, seen: [R, N], how often each detection was drawn, and its sum; recalls: see `_recalls_reached`.

    A recall between two true positives has the best precision from the next one on. So each true positive stands for
    the recalls up to its own, and nothing need be looked at in between. An image that was not drawn adds nothing:
    its detections' recall is that of the one before, and they stand for no recall.
    """
    positives = np.flatnonzero(hit & ~ignored)
    if not len(positives):
        return np.zeros(len(weights))
    if ignored.any():
        counted = np.flatnonzero(~ignored)
        seen = np.cumsum(weights[:, counted], axis=1, dtype=np.int32)[:, np.searchsorted(counted, positives)]
    else:
        seen = seen[:, positives]
    true = np.cumsum(weights[:, positives], axis=1, dtype=np.int32)
    precision = true / np.maximum(seen, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.take_along_axis(recalls, true, axis=1)
    steps = np.diff(reached, axis=1, prepend=np.int16(0))
    return np.einsum("rp,rp->r", steps, best) / len(RECALLS)


def draw_images(num_images: int, resamples: int = RESAMPLES) -> np.ndarray:
    """[R, I]: how often each image is drawn in each resample of as many images as there are."""
    return np.random.default_rng(0).multinomial(num_images, np.full(num_images, 1 / num_images), size=resamples)


class ImageBootstrap:
    """Image noise of a study's contrasts.

    metrics: what will be asked for. A run is read, matched and resampled once, for all of them together.
    """

    def __init__(self, study: StudyResults, metrics: Iterable[str], resamples: int = RESAMPLES) -> None:
        self.study = study
        self.metrics = list(dict.fromkeys(part for metric in metrics for part in metric.split(DIFFERENCE)))
        self.truth = None if study.ground_truth is None else Truth(study.ground_truth)
        self.num_images = len(self.truth.image_ids) if self.truth else 0
        # The first row draws every image once: the value on the images as they are.
        self.draws = np.ones((1, self.num_images), dtype=np.int64)
        if self.num_images:
            self.draws = np.vstack([self.draws, draw_images(self.num_images, resamples)])
        self._settings = study, self.metrics, resamples
        self._values: dict[Run, dict[str, np.ndarray]] = {}
        self._running: dict[Run, Future[Resampled]] = {}
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Begins to resample every run, in processes of their own, where the study is large enough to pay for them.

        The caller goes on meanwhile; `noise` waits for what it needs.
        """
        keys, workers = list(self.study.runs), min(os.cpu_count() or 1, MOST_WORKERS)
        if workers > 1 and len(keys) * self.num_images >= WORTH_PROCESSES:
            self._pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (self._settings,))
            self._running = {key: self._pool.submit(_resample, key) for key in keys}

    def wait(self) -> None:
        """Until every run is resampled. The study then has what the processes read of it."""
        for key in list(self._running):
            self._take(key)

    def _take(self, key: Run) -> None:
        self._values[key], reading = self._running.pop(key).result()
        self.study.adopt(*key, *reading)

    def close(self) -> None:
        """Ends the processes; what was not asked for is not computed."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def noise(self, weights: Mapping[str, float], metric: str) -> ImageNoise | None:
        """None where the metric cannot be taken again of other images, or nothing is stored to compute it.

        It can be for AP, AP50 and AP75 of boxes and masks, for masks on true boxes, and for this project's own measures
        of overlap.
        """
        by_seed = [self._contrast(weights, seed, metric) for seed in self.study.seeds(list(weights))]
        usable = [values for values in by_seed if values is not None]
        if not usable:
            return None
        return self._noise(np.mean(usable, axis=0), len(usable), self._counts(next(iter(weights)), metric))

    def above_floor(self, arm: str, figure: str) -> ImageNoise | None:
        """Image noise of the points by which an arm's masks on true boxes are above the better floor.

        None where nothing is stored to compute it, or where the floors of the ground truth are not those recorded.
        """
        by_seed = [self.value(arm, seed, f"true_boxes.{figure}") for seed in self.study.seeds([arm])]
        usable = [values for values in by_seed if values is not None]
        if not usable or self.study.ground_truth is None:
            return None
        ious = floors.floor_ious(self.study.ground_truth, self.study.record.config.get("data", {}), figure)
        drawn = {kind: self._mean(values) for kind, values in ious.items()}
        recorded = {kind: self.study.mean(arm, f"{kind}.{figure}") for kind in drawn}
        if any(mean is None or abs(drawn[kind][0] - mean) > 0.05 for kind, mean in recorded.items()):
            return None
        distance = np.mean(usable, axis=0) - np.maximum(*drawn.values())
        return self._noise(distance, len(usable), self._counts(arm, f"true_boxes.{figure}"))

    def _noise(self, values: np.ndarray, num_seeds: int, counts: tuple[int, int] | None) -> ImageNoise:
        """values: [1 + R], a contrast's mean over seeds. counts: see `_counts`."""
        low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        mean, error = float(values[0]), float(np.nanstd(values[1:]))
        return ImageNoise(mean, float(low), float(high), self.num_images, num_seeds, error, *(counts or (None, None)))

    def _counts(self, arm: str, metric: str) -> tuple[int, int] | None:
        """How many objects a metric is about, and how many images show one; None for parts of them by overlap."""
        kind, _, name = metric.split(DIFFERENCE)[0].partition(".")
        ids: list[int] = []
        if kind == "true_boxes":
            tables = (self.study.true_boxes(arm, seed) for seed in self.study.seeds([arm]))
            objects = next((table for table in tables if table is not None and name in table), None)
            if objects is not None:
                pairs = zip(objects["image_ids"], objects[name], strict=True)
                ids = [image_id for image_id, value in pairs if value is not None]
        elif kind in ("segm", "bbox"):
            annotations = (self.study.ground_truth or {}).get("annotations", [])
            ids = [item["image_id"] for item in annotations if not item.get("iscrowd")]
        return (len(ids), len(set(ids))) if ids else None

    def _contrast(self, weights: Mapping[str, float], seed: int, metric: str) -> np.ndarray | None:
        terms = [(weight, self.value(arm, seed, metric)) for arm, weight in weights.items()]
        if any(value is None for _, value in terms):
            return None
        return np.sum([weight * value for weight, value in terms if value is not None], axis=0)

    def value(self, arm: str, seed: int, metric: str) -> np.ndarray | None:
        """[1 + R]: a run's value on the images as they are and on each resample; None as in `noise`."""
        if DIFFERENCE in metric:
            minuend, subtrahend = (self.value(arm, seed, part) for part in metric.rsplit(DIFFERENCE, 1))
            return None if minuend is None or subtrahend is None else minuend - subtrahend
        key = arm, seed
        if key in self._running:
            self._take(key)
        if key not in self._values:
            self._values[key] = self.resample(*key)
        return self._values[key].get(metric)

    def resample(self, arm: str, seed: int) -> dict[str, np.ndarray]:
        """[1 + R] for every metric of a run that its detections, or its masks on true boxes, allow."""
        values = self._true_boxes(arm, seed)
        # A model without masks has no mask AP, not one of 0.
        metrics = [metric for metric in self.metrics if self.study.value(arm, seed, metric) is not None]
        results = self.study.detections(arm, seed) if self.num_images and metrics else None
        if results is None or self.truth is None:
            return values
        keys: dict[str, dict[str, str]] = {}  # kind -> key -> metric
        for metric in metrics:
            kind, key = _kind_and_key(metric)
            if kind in ("segm", "bbox", *overlap.BINS) and key in THRESHOLDS:
                keys.setdefault(kind, {})[key] = metric
        for kind, named in keys.items():
            precisions = self._precisions(self.truth.match(results, kind), list(named))
            values |= {metric: precisions[key] for key, metric in named.items()}
        means = [metric for metric in metrics if metric in MEANS]
        if means:
            objects = list(overlap.matched_objects(self.study.ground_truth or {}, results, self.truth.scenes()))
            for metric in means:
                name = metric.partition(".")[2]
                values[metric] = 100 * self._mean((item.image_id, overlap.value_of(item, name)) for item in objects)
        return values

    def _precisions(self, matches: list[ClassMatches], keys: list[str]) -> dict[str, np.ndarray]:
        chunks = [
            average_precisions(matches, self.draws[start : start + CHUNK], keys)
            for start in range(0, len(self.draws), CHUNK)
        ]
        return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in keys}

    def _true_boxes(self, arm: str, seed: int) -> dict[str, np.ndarray]:
        """Those of the metrics asked for that are means over objects of the run's masks on true boxes."""
        names = [metric.partition(".")[2] for metric in self.metrics if metric.startswith("true_boxes.")]
        objects = self.study.true_boxes(arm, seed) if self.num_images and names else None
        if objects is None:
            return {}
        ids = objects["image_ids"]
        return {
            f"true_boxes.{name}": self._mean(zip(ids, objects[name], strict=True)) for name in names if name in objects
        }

    def _mean(self, values: Iterable[tuple[int, float | None]]) -> np.ndarray:
        """The mean over all objects in the images drawn, an image's as often as it was drawn.

        values: of each object the id of its image and its value, None where it has none.
        """
        number = {image_id: index for index, image_id in enumerate(self.truth.image_ids if self.truth else [])}
        sums, counts = np.zeros(self.num_images), np.zeros(self.num_images)
        for image_id, value in values:
            if value is not None:
                sums[number[image_id]] += value
                counts[number[image_id]] += 1
        with np.errstate(invalid="ignore"):
            return (self.draws @ sums) / (self.draws @ counts)


def _kind_and_key(metric: str) -> tuple[str, str]:
    """ "segm.AP75" -> ("segm", "AP75"); "overlap.AP_much" -> ("much", "AP")."""
    kind, _, key = metric.partition(".")
    if kind == "overlap":
        key, _, kind = key.partition("_")
    return kind, key


_bootstrap: ImageBootstrap | None = None  # of a worker process


def _start(settings: tuple[StudyResults, list[str], int]) -> None:
    global _bootstrap
    _bootstrap = ImageBootstrap(*settings)


def _resample(key: Run) -> Resampled:
    assert _bootstrap is not None
    return _bootstrap.resample(*key), _bootstrap.study.reading(*key)
