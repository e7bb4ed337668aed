"""How overlap hurts instance masks: measures of this project's own, from COCO ground truth and stored detections.

The paper shows in pictures (figure 6) that FCIS has trouble where objects overlap, and gives no number for it. Neither
the paper nor COCO has these measures:

- **AP by overlap.** An object's *overlap degree* is the share of its bounding box that lies on other objects' visible
  masks: how much of its RoI belongs to other objects. Boxes that cross do no harm as long as no pixel of a neighbour is
  inside, so boxes do not count. Mask AP is computed for the objects of each bin, with all others ignored, exactly as
  COCO does for sizes: a detection that matches no object counts in the bin of the object that its box has the
  greatest IoU with, or with the objects without overlap if it touches none.
- **Leakage.** The share of a predicted mask that lies on objects other than its own, over objects that overlap.
- **Seams.** How much of a predicted mask's edge lies along the borders of 7 x 7 parts of its box, where the object has
  no edge: see `excess`.

Leakage and seams are measured on the detection that `matches` assigns to each object by box and class, whatever its
mask, so that no mask is excluded for being bad. Numpy and pycocotools only: reports compute the same from the records.

Letters: G objects and D detections of an image, H and W its sides. Boxes are xyxy in image pixels.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ablations.evaluation.cocoapi import index, quietly, with_results
from ablations.evaluation.masks import Mask, Window, count_masks, dilate, edge_pixels, share, window

MUCH = 0.15
"""Degree above which an object overlaps much. Fixed before any detector was trained: it is the median of the drawn
validation objects that overlap at all, and the boxes of both halves have the same median side."""

BINS = {"apart": (0, 0), "none": (0, 1), "some": (2, 2), "much": (3, 3)}
"""First and last level (see `Scene.levels`) of each bin. "apart" is the part of "none" in images without overlap."""

PARTS = 7
"""Parts of a box along each side, as in FCIS's score maps."""

LEAST_PART = 4
"""Least side of a part, in pixels, for seams: in smaller ones an edge on a border and one beside it look the same."""

MATCH = 0.5
"""Least box IoU at which a detection is matched to an object."""


@dataclass(frozen=True)
class Scene:
    """The objects of one image [H, W] = size: ids [G] of their annotations, boxes [G, 4], labels [G], masks [G]."""

    image_id: int
    size: tuple[int, int]
    ids: list[int]
    boxes: np.ndarray
    labels: np.ndarray
    masks: list[Mask]

    @cached_property
    def shares(self) -> np.ndarray:
        """[G, G]: the share of object g's box that lies on object h's visible mask; 0 for itself."""
        shares = np.zeros((len(self.ids), len(self.ids)))
        for row, box in zip(shares, self.boxes, strict=True):
            touched = window(box, self.size)
            row[:] = [mask.coverage(touched) for mask in self.masks]
        np.fill_diagonal(shares, 0)
        return shares

    @cached_property
    def degrees(self) -> np.ndarray:
        """[G]: the overlap degree, 0 to 1, of each object."""
        return np.array([share(self.others(g, window(box, self.size))) for g, box in enumerate(self.boxes)])

    @cached_property
    def levels(self) -> np.ndarray:
        """[G]: 0 and 1 without overlap (0 if that holds for the whole image), 2 for some overlap, 3 for much."""
        degrees = self.degrees
        none = 0 if not degrees.any() else 1
        return np.where(degrees == 0, none, np.where(degrees <= MUCH, 2, 3))

    def others(self, index: int, part: Window) -> np.ndarray:
        """bool: the pixels of all objects but this one in a window of the image."""
        return self._counts[part] > self.masks[index].within(part)

    @cached_property
    def _counts(self) -> np.ndarray:
        """[H, W]: how many objects cover each pixel; more than one only where annotated masks overlap."""
        return count_masks(self.masks, self.size)


@dataclass(frozen=True)
class MatchedObject:
    """An object of an image and the detection that is matched to it.

    degree:      the object's overlap degree
    iou:         of the two masks
    leakage:     share of the predicted mask on other objects; None where that mask is empty
    false_edges: see `false_edges`
    """

    image_id: int
    object_id: int
    degree: float
    result: dict[str, Any]
    iou: float
    leakage: float | None
    false_edges: tuple[np.ndarray, int] | None

    @property
    def seams(self) -> float | None:
        """See `excess`; None where there are no `false_edges`."""
        return None if self.false_edges is None else excess(*self.false_edges)


def overlap_metrics(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float | None]:
    """All measures in points: mask AP and AP50 of each of BINS, "leakage", "seams"; None where nothing defines them.

    truth is a COCO JSON dictionary, results are COCO results; results without masks are ignored.
    """
    coco, coco_results = _indexed(truth, results)
    by_image = _by_image(results)
    matched: list[MatchedObject] = []
    for scene in scenes(truth):
        _set_levels(coco, coco_results, scene)
        matched += _matched_in(scene, by_image[scene.image_id])
    with quietly():
        evaluation = COCOeval(coco, coco_results, "segm")
        evaluation.params.imgIds, evaluation.params.catIds = sorted(coco.getImgIds()), sorted(coco.getCatIds())
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(levels) for levels in BINS.values()], list(BINS)
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, :, 0]  # [thresholds, recalls, classes, bins]
    metrics: dict[str, float | None] = {}
    for column, name in enumerate(BINS):
        for key, values in (("AP", precision[..., column]), ("AP50", precision[:1, ..., column])):
            defined = values[values > -1]
            metrics[f"{key}_{name}"] = 100 * float(defined.mean()) if len(defined) else None
    return metrics | {name: mean_of(matched, name) for name in ("leakage", "seams")}


def mean_of(matched: list[MatchedObject], name: str) -> float | None:
    """The mean of "leakage" or "seams" over the objects that define it, in points."""
    values = [value for item in matched if (value := value_of(item, name)) is not None]
    return 100 * float(np.mean(values)) if values else None


def value_of(item: MatchedObject, name: str) -> float | None:
    """An object's "leakage" or "seams"; None where the mean leaves it out: leakage is of objects that overlap."""
    if name == "leakage":
        return item.leakage if item.degree > 0 else None
    return item.seams


def _indexed(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[COCO, COCO]:
    """Copies, whose areas may be changed, of the ground truth and of the results that have masks."""
    coco = index({**truth, "annotations": [dict(item) for item in truth["annotations"]]})
    return coco, with_results(coco, [result for result in results if "segmentation" in result])


def _set_levels(coco: COCO, coco_results: COCO, scene: Scene) -> None:
    """Puts the level in place of the area, by which COCO ignores what is outside the area range at hand."""
    for annotation_id, level in zip(scene.ids, scene.levels.tolist(), strict=True):
        coco.anns[annotation_id]["area"] = level
    detections = coco_results.imgToAnns[scene.image_id]
    for detection, level in zip(detections, levels_of(detections, scene), strict=True):
        detection["area"] = level


def levels_of(detections: list[dict[str, Any]], scene: Scene) -> list[int]:
    """For each detection the level of the object of the greatest box IoU, or without any the level of no overlap."""
    levels = scene.levels
    none = 1 if levels.any() else 0
    ious = box_iou(boxes_of(detections), scene.boxes)
    if not ious.size:
        return [none] * len(detections)
    return np.where(ious.max(axis=1) > 0, levels[ious.argmax(axis=1)], none).tolist()


def scenes(truth: dict[str, Any]) -> Iterator[Scene]:
    """The images of a COCO JSON dictionary, one at a time, with their objects; crowd regions are left out."""
    coco = index(truth)
    for image_id in sorted(coco.imgs):
        yield scene_of(coco, image_id)


def scene_of(coco: COCO, image_id: int) -> Scene:
    """One image with its objects."""
    items = [item for item in coco.imgToAnns[image_id] if not item.get("iscrowd")]
    return Scene(
        image_id=image_id,
        size=(coco.imgs[image_id]["height"], coco.imgs[image_id]["width"]),
        ids=[item["id"] for item in items],
        boxes=boxes_of(items),
        labels=np.array([item["category_id"] for item in items], dtype=np.int64),
        masks=[Mask.decoded(coco.annToRLE(item)) for item in items],
    )


def matched_objects(
    truth: dict[str, Any], results: list[dict[str, Any]], known: Mapping[int, Scene] | None = None
) -> Iterator[MatchedObject]:
    """Every object that a detection with a mask is matched to, image by image.

    known: the scenes of `truth` by image, for a caller that has them already.
    """
    by_image = _by_image(results)
    for scene in scenes(truth) if known is None else known.values():
        yield from _matched_in(scene, by_image[scene.image_id])


def _by_image(results: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The results with masks."""
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        if "segmentation" in result:
            by_image[result["image_id"]].append(result)
    return by_image


def _matched_in(scene: Scene, results: list[dict[str, Any]]) -> Iterator[MatchedObject]:
    """`matched_objects` of one image. results: its results with masks."""
    degrees = scene.degrees.tolist()
    for g, result in matches(scene, results).items():
        mask, object_mask = Mask.decoded(result["segmentation"]), scene.masks[g]
        around = mask.rows, mask.columns
        pixels, on_own, on_others = mask.pixels, object_mask.within(around), scene.others(g, around)
        shared = int(np.count_nonzero(pixels & on_own))
        yield MatchedObject(
            image_id=scene.image_id,
            object_id=scene.ids[g],
            degree=degrees[g],
            result=result,
            iou=shared / max(1, mask.area + object_mask.area - shared),
            leakage=int(np.count_nonzero(pixels & on_others & ~on_own)) / mask.area if mask.area else None,
            false_edges=false_edges(mask, object_mask, boxes_of([result])[0]),
        )


def matches(scene: Scene, results: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Index of an object -> its detection: by descending score, each detection takes the object of its class that is
    not taken yet and has the greatest box IoU with it.

    The rule is COCO's for boxes at IoU 0.5, so that an object keeps its detection however bad the mask is.
    """
    ranked = sorted(results, key=lambda result: -result["score"])
    ious = box_iou(boxes_of(ranked), scene.boxes)
    taken: dict[int, dict[str, Any]] = {}
    for result, row in zip(ranked, ious, strict=True):
        candidates = scene.labels == result["category_id"]
        candidates[list(taken)] = False
        row = np.where(candidates, row, 0)
        if row.size and row.max() >= MATCH:
            taken[int(row.argmax())] = result
    return dict(sorted(taken.items()))


def excess(positions: np.ndarray, length: int) -> float:
    """How much of a mask's edge of `length` pixels is due to the borders between the 7 x 7 parts of its box: a share.

    positions: of its `false_edges`, which occur anywhere. One at distance u from the nearest part border, in parts,
    counts cos(2 pi u): +1 on a border, -1 midway. Evenly spread edges add up to 0, and so do edges on the cell borders
    of an output grid of 14, 21, 28, ... cells, because the borders of its 2, 3, 4, ... cells per part are evenly
    spaced. Only edges on the borders of the parts themselves remain. So a smooth predictor scores about 0 whatever its
    grid, and one whose every edge is a seam scores 1.
    """
    return float(np.cos(2 * np.pi * positions).sum()) / length if length else 0.0


def false_edges(predicted: Mask, true: Mask, box: np.ndarray) -> tuple[np.ndarray, int] | None:
    """The pieces of a mask's edge, each a pixel long, that are false: the object has no edge within half a part.

    -> their positions [E], in parts from the box's left or upper border, and the length of all of the mask's edges;
    both without the outermost half part, where the box cuts masks off: positions are 0.5 to 6.5. None for an empty mask
    or parts under LEAST_PART pixels.
    """
    half = (box[2:] - box[:2]) / PARTS / 2  # a part, across and down
    if not predicted.area or half.min() < LEAST_PART / 2:
        return None
    reach = np.ceil(np.minimum(half, predicted.size[::-1])).astype(int)  # a box may be of any size
    corner = (np.floor(box[:2]).astype(int) - reach - 1).clip(min=0)  # nothing further out matters
    around = window(np.concatenate([corner, box[2:] + reach + 1]), predicted.size)
    mask, (x1, y1, x2, y2) = predicted.within(around), (box - np.tile(corner, 2)).tolist()
    near = dilate(dilate(edge_pixels(true.within(around)), reach[1] - 1, axis=0), reach[0] - 1, axis=1)
    positions, length = [], 0
    vertical, horizontal = (1, (x1, x2), (y1, y2)), (0, (y1, y2), (x1, x2))
    for axis, (left, right), (top, bottom) in (vertical, horizontal):
        edges = np.diff(mask, axis=axis)
        rows, columns = np.unravel_index(np.flatnonzero(edges), edges.shape)
        if axis == 0:  # column by column, as if the image was transposed
            order = np.lexsort((rows, columns))
            rows, columns = rows[order], columns[order]
        lines, steps = (rows, columns) if axis == 1 else (columns, rows)
        position = (steps + 1 - left) / (right - left) * PARTS  # of the line between two pixels
        inside = (lines + 0.5 >= top) & (lines + 0.5 < bottom) & (position >= 0.5) & (position < PARTS - 0.5)
        close = near[rows, columns] | (near[rows, columns + 1] if axis == 1 else near[rows + 1, columns])
        positions.append(position[inside & ~close])
        length += int(inside.sum())
    return np.concatenate(positions), length


def boxes_of(items: list[dict[str, Any]]) -> np.ndarray:
    """[N, 4] xyxy of COCO annotations or results."""
    boxes = np.array([item["bbox"] for item in items], dtype=float).reshape(-1, 4)
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def box_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes [D, 4] with boxes [G, 4] -> [D, G]."""
    sides = np.minimum(one[:, None, 2:], other[None, :, 2:]) - np.maximum(one[:, None, :2], other[None, :, :2])
    shared = sides.clip(min=0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
