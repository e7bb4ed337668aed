"""The noise of the validation images: a paired bootstrap over stored detections, with AP accumulated per resample.

Detections are matched to objects once a run (pycocotools). A resample draws as many images as there are, with
replacement, the same for all arms and seeds; an image drawn twice counts twice. Only the accumulation depends on the
draw, and precision need only be known where a true positive stands, so a resample takes milliseconds.

Letters: I images, K classes, T IoU thresholds, N detections of a class, R resamples.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from ablations.evaluation import overlap
from ablations.evaluation.cocoapi import index, quietly, with_results
from ablations.records.schema import DIFFERENCE
from reports.load import StudyResults
from reports.stats.paired import LEVEL

RESAMPLES = 1000
CHUNK = 250  # resamples at a time: bounds the memory
THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
RECALLS = np.linspace(0, 1, 101)
MEANS = ("overlap.leakage", "overlap.seams")  # over objects


@dataclass(frozen=True)
class ClassMatches:
    """One class of one run. Detections by falling score: image [N]; hit, ignored: [T, N]; objects: [I]."""

    image: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class ImageNoise:
    """The bootstrap of a contrast averaged over its seeds: the middle `LEVEL` of the resampled values, in points."""

    mean: float
    low: float
    high: float
    num_images: int
    num_seeds: int


def match(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> list[ClassMatches]:
    """Matches a run's detections to the ground truth, class by class, as COCO's evaluation does for all sizes.

    kind: "segm", "bbox", or one of overlap.BINS for masks of those objects alone. Results without the kind's geometry,
    or none at all, match nothing.
    """
    evaluation = overlap.evaluate(truth, results, [kind]) if kind in overlap.BINS else _evaluate(truth, results, kind)
    num_images, num_thresholds = len(evaluation.params.imgIds), len(evaluation.params.iouThrs)
    rows = [
        evaluation.evalImgs[start : start + num_images]
        for start in range(0, len(evaluation.evalImgs), max(1, num_images))
    ]
    return [_class_matches(row, num_images, num_thresholds) for row in rows]


def _evaluate(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> COCOeval:
    key = "segmentation" if kind == "segm" else "bbox"
    coco = index(truth)
    found = with_results(coco, [result for result in results if key in result])
    with quietly():
        evaluation = COCOeval(coco, found, kind)
        evaluation.params.imgIds = sorted(coco.getImgIds())
        evaluation.params.catIds = sorted(coco.getCatIds())
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
    return evaluation


def _class_matches(row: list[dict[str, Any] | None], num_images: int, num_thresholds: int) -> ClassMatches:
    objects = np.zeros(num_images, dtype=np.int64)
    image, scores, hit, ignored = [], [], [], []
    for number, entry in enumerate(row):
        if entry is None:
            continue
        objects[number] = int(np.sum(np.asarray(entry["gtIgnore"]) == 0))
        count = len(entry["dtScores"])
        image.append(np.full(count, number))
        scores.append(np.asarray(entry["dtScores"], dtype=float))
        hit.append(np.asarray(entry["dtMatches"]).reshape(num_thresholds, count) > 0)
        ignored.append(np.asarray(entry["dtIgnore"]).reshape(num_thresholds, count).astype(bool))
    if not image:
        none = np.zeros((num_thresholds, 0), dtype=bool)
        return ClassMatches(np.zeros(0, dtype=np.int64), none, none, objects)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    return ClassMatches(
        image=np.concatenate(image)[order],
        hit=np.concatenate(hit, axis=1)[:, order],
        ignored=np.concatenate(ignored, axis=1)[:, order],
        objects=objects,
    )


def average_precision(classes: Iterable[ClassMatches], draws: np.ndarray, key: str = "AP") -> np.ndarray:
    """AP in points of every resample. draws: [R, I], how often each image was drawn -> [R], NaN without objects."""
    total, defined = np.zeros(len(draws)), np.zeros(len(draws))
    for matches in classes:
        objects = draws @ matches.objects
        weights = draws[:, matches.image]
        seen = np.cumsum(weights, axis=1)
        hits, ignored = matches.hit[THRESHOLDS[key]], matches.ignored[THRESHOLDS[key]]
        precision = [_precision(weights, seen, hit, ignore, objects) for hit, ignore in zip(hits, ignored, strict=True)]
        there = objects > 0
        total += np.where(there, np.mean(precision, axis=0), 0.0)
        defined += there
    with np.errstate(invalid="ignore"):
        return 100 * total / defined


def _precision(
    weights: np.ndarray, seen: np.ndarray, hit: np.ndarray, ignored: np.ndarray, objects: np.ndarray
) -> np.ndarray:
    """Precision averaged over COCO's 101 recalls, [R], of one class at one threshold.

    A recall between two true positives has the best precision from the next one on. So each true positive stands for
    the recalls up to its own, and nothing need be looked at in between. An image that was not drawn adds nothing:
    its detections' recall is that of the one before, and they stand for no recall.
    """
    places = np.flatnonzero(hit & ~ignored)
    if not len(places):
        return np.zeros(len(weights))
    if ignored.any():
        seen = np.cumsum(weights * ~ignored, axis=1)
    found = np.cumsum(weights[:, places], axis=1)
    precision = found / np.maximum(seen[:, places], 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = found / np.maximum(objects, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall.ravel(), side="right").reshape(recall.shape)
    return (np.diff(reached, axis=1, prepend=0) * best).sum(axis=1) / len(RECALLS)


def draw_images(num_images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """[R, I]: how often each image is drawn in each resample of as many images as there are."""
    return np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), size=resamples)


class ImageBootstrap:
    """Image noise of a study's contrasts. Runs are matched and resampled once, whatever contrasts are asked for."""

    def __init__(self, study: StudyResults, resamples: int = RESAMPLES) -> None:
        self.study, self.truth = study, study.ground_truth
        self.image_ids = sorted(image["id"] for image in self.truth["images"]) if self.truth else []
        self.num_images = len(self.image_ids)
        # The first row draws every image once: the value on the images as they are.
        self.draws = (
            np.vstack([np.ones((1, self.num_images), dtype=np.int64), draw_images(self.num_images, resamples)])
            if self.num_images
            else None
        )
        self.matches: dict[tuple[str, int, str], list[ClassMatches] | None] = {}
        self.found: dict[tuple[str, int], list[overlap.Found] | None] = {}
        self.values: dict[tuple[str, int, str], np.ndarray | None] = {}

    def noise(self, weights: Mapping[str, float], metric: str) -> ImageNoise | None:
        """None where the metric cannot be taken again of other images, or nothing is stored to compute it.

        It can be for AP, AP50 and AP75 of boxes and masks, and for the project's own measures of overlap.
        """
        by_seed = [self._contrast(weights, seed, metric) for seed in self.study.seeds(list(weights))]
        usable = [values for values in by_seed if values is not None]
        if not usable:
            return None
        values = np.mean(usable, axis=0)
        low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return ImageNoise(float(values[0]), float(low), float(high), self.num_images, len(usable))

    def _contrast(self, weights: Mapping[str, float], seed: int, metric: str) -> np.ndarray | None:
        parts = [self._value(arm, seed, metric) for arm in weights]
        if any(part is None for part in parts):
            return None
        return np.sum(
            [weight * part for weight, part in zip(weights.values(), parts, strict=True) if part is not None], 0
        )

    def _value(self, arm: str, seed: int, metric: str) -> np.ndarray | None:
        if DIFFERENCE in metric:
            one, other = (self._value(arm, seed, part) for part in metric.rsplit(DIFFERENCE, 1))
            return None if one is None or other is None else one - other
        if (arm, seed, metric) not in self.values:
            self.values[arm, seed, metric] = self._resample(arm, seed, metric)
        return self.values[arm, seed, metric]

    def _resample(self, arm: str, seed: int, metric: str) -> np.ndarray | None:
        if self.draws is None or self.study.value(arm, seed, metric) is None:
            return None  # a model without masks has no mask AP, not one of 0
        kind, _, key = metric.partition(".")
        if metric in MEANS:
            return self._mean(arm, seed, key)
        if kind == "overlap":
            key, _, kind = key.partition("_")
        matches = self._matches(arm, seed, kind) if key in THRESHOLDS else None
        if matches is None:
            return None
        return np.concatenate(
            [
                average_precision(matches, self.draws[start : start + CHUNK], key)
                for start in range(0, len(self.draws), CHUNK)
            ]
        )

    def _matches(self, arm: str, seed: int, kind: str) -> list[ClassMatches] | None:
        if kind not in ("segm", "bbox", *overlap.BINS):
            return None
        if (arm, seed, kind) not in self.matches:
            results = self.study.detections(arm, seed)
            self.matches[arm, seed, kind] = None if results is None else match(self.truth or {}, results, kind)
        return self.matches[arm, seed, kind]

    def _mean(self, arm: str, seed: int, name: str) -> np.ndarray | None:
        """Of "leakage" or "seams": of all objects in the images drawn, an image's as often as it was drawn."""
        if (arm, seed) not in self.found:
            results = self.study.detections(arm, seed)
            self.found[arm, seed] = None if results is None else list(overlap.found_objects(self.truth or {}, results))
        found = self.found[arm, seed]
        if found is None or self.draws is None:
            return None
        place = {image_id: index for index, image_id in enumerate(self.image_ids)}
        sums, counts = np.zeros(self.num_images), np.zeros(self.num_images)
        for item in found:
            value = overlap.value_of(item, name)
            if value is not None:
                sums[place[item.image_id]] += value
                counts[place[item.image_id]] += 1
        with np.errstate(invalid="ignore"):
            return 100 * (self.draws @ sums) / (self.draws @ counts)
