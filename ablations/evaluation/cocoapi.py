"""pycocotools from dictionaries in memory, and without what it prints."""

import io
from contextlib import AbstractContextManager, redirect_stdout
from typing import Any

from pycocotools.coco import COCO


def quietly() -> AbstractContextManager[io.StringIO]:
    """A context in which nothing that is printed reaches the terminal."""
    return redirect_stdout(io.StringIO())


def index(truth: dict[str, Any]) -> COCO:
    """A COCO JSON dictionary as pycocotools has it."""
    coco = COCO()
    coco.dataset = {"info": {}, **truth}
    with quietly():
        coco.createIndex()
    return coco


def with_results(coco: COCO, results: list[dict[str, Any]]) -> COCO:
    """COCO results for the images of `coco`. The results stay as they are; there may be none."""
    if not results:  # COCO.loadRes refuses an empty list
        return index({**coco.dataset, "annotations": []})
    with quietly():
        return coco.loadRes([dict(result) for result in results])
