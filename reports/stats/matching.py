"""Detections matched to objects as COCO's evaluation does it, once a run, for all thresholds of the IoU together.

pycocotools matches in Python, a threshold at a time and for every class of every image. Here images and thresholds are
axes of an array, and the loop is over the ranks of an image's detections. The rule is the same (tests compare the two):
by descending score, a detection takes the free object of its class with the greatest IoU that reaches the threshold,
and objects that are ignored (crowds, and where asked those of other bins) only where no other one is left.

Letters: I images, T IoU thresholds, D detections and G objects of an image, N detections of a run or of one class.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle

from ablations.evaluation import overlap
from ablations.evaluation.cocoapi import compressed

IOUS = np.linspace(0.5, 0.95, 10)
MOST_DETECTIONS = 100  # of a class in an image, the best
CHUNK = 256  # images at a time: bounds the memory


@dataclass(frozen=True)
class ClassMatches:
    """One class of one run. Detections by descending score: image [N]; hit, ignored: [T, N]; objects: [I]."""

    image: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class Objects:
    """The objects of one image, those that are ignored last. category, ignore, crowd: [G]."""

    items: list[dict[str, Any]]
    category: np.ndarray
    ignore: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Ranked:
    """The detections of one image by descending score. category, score: [D]; outside [D]: ignored unless they match."""

    results: list[dict[str, Any]]
    category: np.ndarray
    score: np.ndarray
    outside: np.ndarray


class Truth:
    """Ground truth (COCO JSON) made ready for matching: masks encoded, levels of overlap computed when asked for.

    All runs of a study are matched to the same one.
    """

    def __init__(self, truth: Mapping[str, Any]) -> None:
        self.image_ids = sorted(image["id"] for image in truth["images"])
        self.categories = sorted(category["id"] for category in truth["categories"])
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        self._items: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for item in truth["annotations"]:
            encoded = compressed(item["segmentation"], sizes[item["image_id"]])
            self._items[item["image_id"]].append({**item, "segmentation": encoded})
        self._sizes = sizes
        self._content = dict(truth)
        self._scenes: dict[int, overlap.Scene] | None = None
        self._objects: dict[str, dict[int, Objects]] = {}

    def match(self, results: list[dict[str, Any]], kind: str) -> list[ClassMatches]:
        """Matches a run's detections, objects of all sizes; one ClassMatches for each category.

        kind: "segm", "bbox", or one of overlap.BINS for masks of those objects alone. Results without the kind's
        geometry, or none at all, match nothing.
        """
        needed = ("bbox",) if kind == "bbox" else ("segmentation",) if kind == "segm" else ("segmentation", "bbox")
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for result in results:
            if all(key in result for key in needed):
                by_image[result["image_id"]].append(result)
        ranked = [self._rank(image_id, by_image[image_id], kind) for image_id in self.image_ids]
        objects = [self.objects(kind)[image_id] for image_id in self.image_ids]
        hits, ignored = [], []
        for start in range(0, len(ranked), CHUNK):
            chunk = slice(start, start + CHUNK)
            triples = zip(self.image_ids[chunk], ranked[chunk], objects[chunk], strict=True)
            ious = [self._ious(image_id, detections, truth, needed[0]) for image_id, detections, truth in triples]
            matched = _assign(ious, objects[chunk])
            for image_matches, detections, truth in zip(matched, ranked[chunk], objects[chunk], strict=True):
                image_matches = image_matches[:, : len(detections.results)]
                hit = image_matches >= 0
                hits.append(hit)
                ignored.append(np.where(hit, np.append(truth.ignore, False)[image_matches], detections.outside))
        return self._by_class(ranked, objects, hits, ignored)

    def objects(self, kind: str) -> dict[int, Objects]:
        """The objects of every image; what is ignored depends on `kind`."""
        if kind not in self._objects:
            self._objects[kind] = {image_id: self._objects_of(image_id, kind) for image_id in self.image_ids}
        return self._objects[kind]

    def scenes(self) -> dict[int, overlap.Scene]:
        """The images with their objects' masks, decoded once."""
        if self._scenes is None:
            self._scenes = {scene.image_id: scene for scene in overlap.scenes(self._content)}
        return self._scenes

    def _objects_of(self, image_id: int, kind: str) -> Objects:
        items = self._items[image_id]
        crowd = np.array([bool(item.get("iscrowd")) for item in items], dtype=bool)
        ignore = crowd.copy()
        if kind in overlap.BINS:
            scene = self.scenes()[image_id]
            levels = dict(zip(scene.ids, scene.levels.tolist(), strict=True))
            ignore |= _outside([levels.get(item["id"], -1) for item in items], kind)
        order = np.argsort(ignore, kind="stable")
        category = np.array([item["category_id"] for item in items], dtype=np.int64)
        return Objects([items[index] for index in order], category[order], ignore[order], crowd[order])

    def _rank(self, image_id: int, results: list[dict[str, Any]], kind: str) -> Ranked:
        results = sorted(results, key=lambda result: -result["score"])
        if len(results) > MOST_DETECTIONS:
            counts: dict[int, int] = defaultdict(int)
            kept = []
            for result in results:
                counts[result["category_id"]] += 1
                if counts[result["category_id"]] <= MOST_DETECTIONS:
                    kept.append(result)
            results = kept
        outside = np.zeros(len(results), dtype=bool)
        if kind in overlap.BINS:
            outside = _outside(overlap.levels_of(results, self.scenes()[image_id]), kind)
        category = np.array([result["category_id"] for result in results], dtype=np.int64)
        return Ranked(results, category, np.array([result["score"] for result in results], dtype=float), outside)

    def _ious(self, image_id: int, ranked: Ranked, objects: Objects, geometry: str) -> np.ndarray:
        """[D, G]: of masks or boxes, -1 between classes; for a crowd the share of the detection that lies in it."""
        shape = len(ranked.results), len(objects.items)
        if not all(shape):
            return np.zeros(shape)
        detected = [result[geometry] for result in ranked.results]
        if geometry == "segmentation":
            detected = [compressed(segmentation, self._sizes[image_id]) for segmentation in detected]
        ious = rle.iou(detected, [item[geometry] for item in objects.items], objects.crowd.astype(np.uint8).tolist())
        return np.where(ranked.category[:, None] == objects.category, np.asarray(ious).reshape(shape), -1.0)

    def _by_class(
        self, ranked: list[Ranked], objects: list[Objects], hits: list[np.ndarray], ignored: list[np.ndarray]
    ) -> list[ClassMatches]:
        """The matches of each image, as arrays over all images, class by class."""
        if not ranked:
            none = np.zeros((len(IOUS), 0), dtype=bool)
            return [ClassMatches(np.zeros(0, dtype=int), none, none, np.zeros(0, dtype=int)) for _ in self.categories]
        image = np.repeat(np.arange(len(ranked)), [len(detections.results) for detections in ranked])
        order = np.argsort(-np.concatenate([detections.score for detections in ranked]), kind="stable")
        category = np.concatenate([detections.category for detections in ranked])[order]
        image, hit, skipped = image[order], np.hstack(hits)[:, order], np.hstack(ignored)[:, order]
        belongs = np.repeat(np.arange(len(objects)), [int((~truth.ignore).sum()) for truth in objects])
        classes = np.concatenate([truth.category[~truth.ignore] for truth in objects])
        matches = []
        for number in self.categories:
            own = category == number
            count = np.bincount(belongs[classes == number], minlength=len(objects))
            matches.append(ClassMatches(image[own], hit[:, own], skipped[:, own], count))
        return matches


def _assign(ious: list[np.ndarray], objects: list[Objects]) -> np.ndarray:
    """[I, T, D]: the object that each detection takes at each threshold, -1 for none.

    ious: [D, G] of each image, detections by descending score, objects with those that are ignored last.
    """
    num_images = len(ious)
    most, num_objects = (max((image_ious.shape[axis] for image_ious in ious), default=0) for axis in (0, 1))
    padded = np.full((num_images, most, num_objects), -1.0)
    ignore, crowd = (np.zeros((num_images, 1, num_objects), dtype=bool) for _ in range(2))
    for index, (image_ious, truth) in enumerate(zip(ious, objects, strict=True)):
        padded[index, : image_ious.shape[0], : image_ious.shape[1]] = image_ious
        ignore[index, 0, : image_ious.shape[1]], crowd[index, 0, : image_ious.shape[1]] = truth.ignore, truth.crowd
    matched = np.full((num_images, len(IOUS), most), -1)
    if not num_objects:
        return matched
    thresholds = np.minimum(IOUS, 1 - 1e-10)[:, None]
    taken = np.zeros((num_images, len(IOUS), num_objects), dtype=bool)
    for rank in range(most):
        row = padded[:, rank, None, :]
        free = (row >= thresholds) & (~taken | crowd)
        counted = free & ~ignore
        candidates = np.where(counted.any(axis=2, keepdims=True), counted, free)
        # Of equal IoUs the last one wins, as in pycocotools.
        best = num_objects - 1 - np.where(candidates, row, -1.0)[..., ::-1].argmax(axis=2)
        best[~candidates.any(axis=2)] = -1
        matched[:, :, rank] = best
        taken |= best[..., None] == np.arange(num_objects)
    return matched


def _outside(levels: list[int], kind: str) -> np.ndarray:
    """Which of these levels of overlap do not belong to the bin `kind`."""
    low, high = overlap.BINS[kind]
    return (np.array(levels, dtype=int) < low) | (np.array(levels, dtype=int) > high)
