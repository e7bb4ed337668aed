"""python tools/playground_pictures.py: writes reports/web/pictures.json, the pictures and maps of the playground.

The maps are those of strides 8, 16 and 32 in the pretrained backbone of stride 32 that comes with the project. Of each
map those channels are shown that tell objects from background best, quantised to 8 bits.

A picture's entry holds `image` (a JPEG as data URI), `objects` (class, box as xyxy pixel edges, mask as runs of equal
pixels along the box's rows, the first of background) and `channels` (stride -> one string of base64 for each channel:
side x side bytes, row by row). `channel_numbers` (stride -> list) says which channels of the backbone they are.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.dataset import normalise
from data.scene import CLASSES, Drawing, draw_image
from data.specs import ShapesSpec
from data.terminal import run_command
from models.backbone import Backbone, fold_batch_norm, toy_backbone
from models.weights import shipped_state

TARGET = Path("reports/web/pictures.json")
IMAGES = (23, 8, 36)  # of the validation split: objects of all sizes, some of which overlap, none cut off
STRIDES = (8, 16, 32)
CHANNELS = 3  # shown of each map
JPEG_QUALITY = 82


def backbone_of(state: dict[str, torch.Tensor]) -> Backbone:
    """A toy backbone of stride 32 with the given weights, which say how large it is."""
    names = [name.split(".") for name in state]
    if {parts[1] for parts in names} != set("01234"):
        raise ValueError("expected a toy backbone of stride 32, which has five stages, got other weights")
    blocks = [len({parts[2] for parts in names if parts[1] == stage}) for stage in "123"]
    channels = [len(state["stages.0.0.weight"])] + [len(state[f"stages.{stage}.0.conv1.weight"]) for stage in "123"]
    backbone = fold_batch_norm(toy_backbone(channels, blocks, len(state["stages.4.weight"]), 32).eval())
    backbone.load_state_dict(state)
    return backbone


def feature_maps(backbone: Backbone, drawings: list[Drawing]) -> dict[int, np.ndarray]:
    """Stride -> what the backbone gives for the pictures at this stride, [B, C, h, w]."""
    pixels = torch.stack([torch.from_numpy(drawing.pixels) for drawing in drawings])  # [B, H, W, 3]
    images = torch.empty(pixels.shape, dtype=torch.float32)
    for image, out in zip(pixels, images, strict=True):
        normalise(image, out)
    with torch.no_grad():
        maps = backbone.maps(images.permute(0, 3, 1, 2))[:-1]  # the last stage is a projection of the one before
    by_stride = {pixels.shape[2] // features.shape[3]: features.numpy() for features in maps}
    return {stride: by_stride[stride] for stride in STRIDES}


def choose_channels(features: np.ndarray, drawings: list[Drawing], count: int) -> list[int]:
    """The channels of [B, C, h, w] whose values on an object differ most from those on the background: by how many
    standard deviations of the picture, averaged over all objects that a cell stands on."""
    stride = drawings[0].pixels.shape[0] // features.shape[-1]
    contrasts = []
    for planes, drawing in zip(features, drawings, strict=True):
        masks = [mask[::stride, ::stride] for mask in _masks(drawing)]
        background = ~np.any(masks, axis=0)
        spread = planes.std((1, 2)) + 1e-6
        outside = planes[:, background].mean(1)
        contrasts += [abs(planes[:, mask].mean(1) - outside) / spread for mask in masks if mask.any()]
    return np.argsort(-np.mean(contrasts, axis=0), kind="stable")[:count].tolist()


def _masks(drawing: Drawing) -> list[np.ndarray]:
    """The mask of each object, as large as the picture."""
    masks = []
    for (x1, y1, x2, y2), crop in zip(drawing.boxes, drawing.crops, strict=True):
        mask = np.zeros(drawing.pixels.shape[:2], bool)
        mask[y1:y2, x1:x2] = crop
        masks.append(mask)
    return masks


def quantise(plane: np.ndarray) -> str:
    """[h, w] numbers as bytes from the smallest, 0, to the greatest, 255, in base64."""
    low, high = float(plane.min()), float(plane.max())
    levels = np.round((plane - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode("ascii")


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of equal pixels, row by row, the first one of False: 0 where the mask opens with True."""
    flat = np.concatenate([[False], mask.ravel()])
    changes = np.flatnonzero(np.diff(flat)).tolist()
    return np.diff([0, *changes, mask.size]).tolist()


def entry(drawing: Drawing) -> dict[str, Any]:
    """A picture and its objects."""
    buffer = io.BytesIO()
    Image.fromarray(drawing.pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    objects = [
        {"name": CLASSES[label - 1], "box": list(box), "runs": runs(crop)}
        for label, box, crop in zip(drawing.labels, drawing.boxes, drawing.crops, strict=True)
    ]
    return {
        "image": f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}",
        "objects": objects,
    }


def content(backbone: Backbone) -> dict[str, Any]:
    """All that the playground needs to know of pictures and features."""
    drawings = [draw_image(ShapesSpec(), "val", index) for index in IMAGES]
    maps = feature_maps(backbone, drawings)
    numbers = {stride: choose_channels(features, drawings, CHANNELS) for stride, features in maps.items()}
    pictures = [entry(drawing) for drawing in drawings]
    for index, picture in enumerate(pictures):
        picture["channels"] = {
            stride: [quantise(maps[stride][index, number]) for number in numbers[stride]] for stride in STRIDES
        }
    return {"side": drawings[0].pixels.shape[0], "pictures": pictures, "channel_numbers": numbers}


def main() -> None:
    text = json.dumps(content(backbone_of(shipped_state(32))), separators=(",", ":"))
    TARGET.write_text(text + "\n", encoding="utf-8")
    print(f"written: {TARGET}, {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    run_command(main)
