"""pycocotools on dictionaries in memory, without the lines that it prints."""

import io
from contextlib import AbstractContextManager, redirect_stdout
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO


def quietly() -> AbstractContextManager[io.StringIO]:
    """A context in which nothing that is printed reaches the terminal."""
    return redirect_stdout(io.StringIO())


def index(truth: dict[str, Any]) -> COCO:
    """A COCO JSON dictionary as pycocotools has it.

    Annotations are numbered anew unless their ids are different whole numbers from 1 on: COCOeval takes an object's
    id 0 for "no match".
    """
    entries = truth["annotations"]
    ids = {entry["id"] for entry in entries if isinstance(entry["id"], int) and entry["id"] > 0}
    if len(ids) < len(entries):
        entries = [{**entry, "id": number} for number, entry in enumerate(entries, start=1)]
    coco = COCO()
    coco.dataset = {"info": {}, **truth, "annotations": entries}
    with quietly():
        coco.createIndex()
    return coco


def with_results(coco: COCO, results: list[dict[str, Any]]) -> COCO:
    """COCO results for the images of `coco`. The results stay as they are; there may be none."""
    if not results:  # COCO.loadRes refuses an empty list
        return index({**coco.dataset, "annotations": []})
    with quietly():
        return coco.loadRes([dict(result) for result in results])


def decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A COCO segmentation (RLE, compressed or not, or polygons) as a [H, W] bool mask. size: H and W.

    Raises ValueError for an RLE of another size, which could be one of any number of gigabytes.
    """
    if isinstance(segmentation, dict) and list(segmentation["size"]) != list(size):
        raise ValueError(
            f"expected a mask of {size[0]} x {size[1]} pixels, got one of size {segmentation['size']!r:.80}"
        )
    return np.asarray(rle.decode([compressed(segmentation, size)]))[:, :, 0].astype(bool)


def compressed(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """A COCO segmentation in any of its three forms as the compressed RLE that pycocotools wants. size: H and W."""
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, *segmentation["size"])
    return segmentation
