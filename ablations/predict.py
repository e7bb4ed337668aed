"""Detects objects in images with a trained model: draws masks, boxes, labels and scores, and writes COCO results.

python -m ablations.predict MODEL IMAGE... [--out FOLDER] [--threshold SCORE]

MODEL is the folder of a run (outputs/<study>/<arm>/seed<k>), or a file with the weights of torchvision's
maskrcnn_resnet50_fpn or fasterrcnn_resnet50_fpn (.pth or .safetensors; nothing in it is executed).
FOLDER gets a drawing for each image, results.json (COCO results) and images.json (the id of each image).
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from pycocotools import mask as rle
from safetensors import SafetensorError
from safetensors.torch import load_file
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.functional import to_tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from ablations.config.loading import from_settings
from ablations.config.schema import Config
from ablations.errors import ConfigError, RecordError, TrainingError
from ablations.evaluation.coco import coco_results, encode
from ablations.records.schema import WEIGHTS
from ablations.records.storage import load_run, result_file, write_atomically
from ablations.stages.features import frozen_backbone, inputs_with
from ablations.stages.proposals import ProposalNetwork, propose_batch, trained_proposal_network
from ablations.stages.store import Stages
from ablations.training.device import choose_device
from data.dataset import IMAGE_MEAN, IMAGE_STD, Batch, Sample, collate
from data.images import fitted_size, open_image
from data.specs import ShapesSpec
from data.terminal import run_command
from models.build import build_detector
from models.torchvision_weights import COCO_V1_EPSILON, detect_as_torchvision, from_torchvision, is_torchvision
from models.weights import read_state

TORCHVISION_SIZES = (800, 1333)
"""Pixels of the shorter side, and at most of the longer one, to which torchvision's detectors resize images."""

COCO_CLASSES: list[str] = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
"""The classes of torchvision's weights, without the background: 90 names, some of which COCO does not use."""

MAX_ASPECT = 2
"""Models of synthetic images, which are square, get an image with its shorter side as long as theirs and its longer
side at most this many times as long."""

COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"]
"""Safe for the colour-blind."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """detect(image, image_id): COCO results in pixels of the image; categories: names by id."""

    detect: Callable[[Image.Image, int], list[dict[str, Any]]]
    categories: dict[int, str]


def load_predictor(model: Path, device: torch.device, epsilon: float | None = None) -> Predictor:
    """The model in a run's folder or a file of weights. Raises ConfigError if there is none."""
    if model.is_dir():
        return run_predictor(model, device)
    try:
        state = read_state(model)
        if not is_torchvision(state):
            raise ValueError(
                f"{model}: expected the folder of a run, or weights of torchvision's maskrcnn_resnet50_fpn or "
                "fasterrcnn_resnet50_fpn, got other weights; for a run, give its folder, not the file in it"
            )
        return torchvision_predictor(state, device, 1e-5 if epsilon is None else epsilon)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def torchvision_predictor(state: dict[str, torch.Tensor], device: torch.device, epsilon: float) -> Predictor:
    """Resizes images, detects and pastes masks as torchvision does."""
    network = from_torchvision(state, epsilon).to(device)
    num_classes = len(state["roi_heads.box_predictor.cls_score.bias"]) - 1
    shorter, longest = TORCHVISION_SIZES
    # In training mode it would leave boxes and masks as they are in the resized image.
    transform = GeneralizedRCNNTransform(shorter, longest, list(IMAGE_MEAN), list(IMAGE_STD)).eval()

    def detect(image: Image.Image, image_id: int) -> list[dict[str, Any]]:
        detections = detect_as_torchvision(network, [to_tensor(image).to(device)], transform)[0]
        corners = detections["boxes"]
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
        labels, scores = detections["labels"].tolist(), detections["scores"].tolist()
        results: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for box, label, score in zip(boxes, labels, scores, strict=True)
        ]
        if "masks" in detections:
            for result, mask in zip(results, encode(detections["masks"][:, 0] >= 0.5), strict=True):
                result["segmentation"] = mask
        return results

    names = COCO_CLASSES if num_classes == len(COCO_CLASSES) else _numbered(num_classes)
    return Predictor(detect, dict(enumerate(names, start=1)))


def run_predictor(folder: Path, device: torch.device) -> Predictor:
    """Prepares images like those of the run; proposals come from the proposal network that the run used."""
    for name in ("config.yaml", WEIGHTS):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: expected the folder of a trained run, found no {name} in it")
    config = dataclasses.replace(read_config(folder / "config.yaml"), compile=False)  # not worth it for a few images
    if config.task != "detection":
        raise ConfigError(f"{folder}: expected a run that detects, got one with task={config.task}")
    if config.rpn == "jitter":
        raise ConfigError(f"{folder}: expected a run whose proposals need no objects to be known, got rpn=jitter")
    classes = class_names(folder)
    model = build_detector(config.detector, len(classes))
    finished = (folder / "run.json").is_file()
    load_weights(model, result_file(folder, WEIGHTS) if finished else folder / WEIGHTS)
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    try:
        network = None if model.rpn is not None else load_proposal_network(folder, config, device)
        inputs = network_inputs_of(folder, config, device)
    except TrainingError as error:
        raise ConfigError(str(error)) from error

    def detect(image: Image.Image, image_id: int) -> list[dict[str, Any]]:
        batch = inputs(batch_of(image, image_id, config))
        proposals = None if network is None else propose_batch(network, batch, config.model)
        return list(coco_results(model(batch.images, batch.sizes, proposals=proposals), batch))

    return Predictor(detect, dict(enumerate(classes, start=1)))


def read_config(path: Path) -> Config:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a run's settings, got: {error}") from error
    try:
        return from_settings(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def class_names(folder: Path) -> list[str]:
    """The names of the classes in the run's record; without a record, numbers for as many as the weights have."""
    record = folder / "run.json"
    if record.is_file():
        classes = load_run(record).data.get("classes")
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise ConfigError(f"{record}: expected the names of the classes, got {classes!r:.80}; finish the run again")
        return classes
    try:
        scores = read_state(folder / WEIGHTS).get("box_head.scores.bias")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if scores is None or scores.dim() != 1 or len(scores) < 2:
        raise ConfigError(f"{folder}: expected run.json, which names the classes, found none; finish the run")
    return _numbered(len(scores) - 1)


def load_proposal_network(folder: Path, config: Config, device: torch.device) -> ProposalNetwork:
    """The proposal network in the shared stages, beside the studies: the run has none of its own."""
    root = stages_beside(folder)
    record = folder / "run.json"
    known = record.is_file() and load_run(record).stages.get("rpn")
    stage = root / f"rpn-{known}" if known else Stages(root, config).rpn_folder
    if not (stage / WEIGHTS).is_file():
        raise ConfigError(
            f"{folder}: expected the proposal network of the run in {stage}, found none; "
            "leave the run in its outputs folder, or train with rpn=joint, which needs no other files"
        )
    return trained_proposal_network(stage, config, device)


def network_inputs_of(folder: Path, config: Config, device: torch.device) -> Callable[[Batch], Batch]:
    """What makes a batch the network's input: maps of the shared stages' backbone, where that is fully frozen."""
    if not config.model.frozen:
        return inputs_with(None, config.stride, device)
    record = folder / "run.json"
    if not record.is_file():
        raise ConfigError(f"{folder}: expected run.json, which names the frozen backbone, found none; finish the run")
    file = stages_beside(folder) / f"backbone-{load_run(record).stages['backbone']}" / WEIGHTS
    return inputs_with(frozen_backbone(file, config, device), config.stride, device)


def stages_beside(folder: Path) -> Path:
    """The folder of shared stages in the outputs that a run's folder lies in."""
    return folder.resolve().parents[2] / "stages"


def load_weights(model: torch.nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{path}: expected the weights of the configuration beside it, got: {first}") from error


def batch_of(image: Image.Image, image_id: int, config: Config) -> Batch:
    """The image, prepared like the images of the run, without objects."""
    data = config.data
    if isinstance(data, ShapesSpec):
        shorter, longest = data.image_side, MAX_ASPECT * data.image_side
    else:
        shorter, longest = data.image_size, data.max_size
    height, width = fitted_size(image.height, image.width, shorter, longest)
    resized = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, height, width, dtype=torch.uint8)
    sample = Sample(pixels, *nothing, image_id, original_size=(image.height, image.width))
    return collate([sample], size=(-(-height // 32) * 32, -(-width // 32) * 32))


def draw(image: Image.Image, results: list[dict[str, Any]], categories: dict[int, str]) -> Image.Image:
    """The image with the mask, box, label and score of each result; those with higher scores lie on top."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if not results:
        return image
    ordered = sorted(results, key=lambda result: result["score"])
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(ordered))]
    if "segmentation" in ordered[0]:
        masks = torch.from_numpy(np.stack([rle.decode(result["segmentation"]) for result in ordered])).bool()
        pixels = draw_segmentation_masks(pixels, masks, alpha=0.5, colors=colours)
    corners = torch.tensor([result["bbox"] for result in ordered])
    corners[:, 2:] += corners[:, :2]
    labels = [f"{categories[result['category_id']]} {result['score']:.2f}" for result in ordered]
    pixels = draw_bounding_boxes(pixels, corners, labels, colours, width=2)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def image_ids(paths: list[Path]) -> list[int]:
    """The numbers in the files' names, if these are different numbers of 64 bits, as COCO's are; else 1, 2, ..."""
    if all(path.stem.isdecimal() for path in paths):
        numbers = [int(path.stem) for path in paths]
        if len(set(numbers)) == len(numbers) and max(numbers) < 2**63:
            return numbers
    return list(range(1, len(paths) + 1))


def predict(predictor: Predictor, paths: list[Path], out: Path, threshold: float) -> int:
    """Writes drawings and results. Images that cannot be read are reported and skipped; returns their number."""
    all_results: list[dict[str, Any]] = []
    images, unreadable = [], 0
    for path, image_id in zip(paths, image_ids(paths), strict=True):
        try:
            image = open_image(path)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        results = predictor.detect(image, image_id)
        shown = [result for result in results if result["score"] >= threshold]
        picture = out / f"{image_id}-{path.stem}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw(image, shown, predictor.categories).save(picture)
        best = ", ".join(
            f"{predictor.categories[result['category_id']]} {result['score']:.2f}"
            for result in sorted(shown, key=lambda result: -result["score"])
        )
        print(f"{path}: {len(shown)} of {len(results)} above {threshold:g}: {best or 'nothing'}; {picture}")
        all_results += results
        images.append({"id": image_id, "file_name": path.name, "height": image.height, "width": image.width})
    categories = [{"id": number, "name": name} for number, name in predictor.categories.items()]
    write_atomically(out / "results.json", json.dumps(all_results))
    write_atomically(out / "images.json", json.dumps({"images": images, "categories": categories}, indent=1))
    return unreadable


def _numbered(count: int) -> list[str]:
    return [f"class {number}" for number in range(1, count + 1)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ablations.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), help="folder for all output (default: predictions)"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn (default: 0.5)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--coco-v1",
        action="store_true",
        help="MODEL is one of torchvision's COCO_V1 weights, which have no epsilon in batch normalisation",
    )
    options = parser.parse_args(arguments)
    epsilon = COCO_V1_EPSILON if options.coco_v1 else None
    try:
        predictor = load_predictor(options.model, choose_device(options.device)[0], epsilon)
        return 1 if predict(predictor, options.images, options.out, options.threshold) else 0
    except (ConfigError, RecordError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    run_command(main)
