"""Where the stages that all arms of a study share are kept, and the keys that name what each depends on.

Each product lives in outputs/stages/<name>-<key>/, where the key is a hash of everything that it depends on, so that
a changed setting makes a new one and an unchanged one is found again. A folder appears under its name only when its
content is complete; until then it is .partial-<name>-<key>, with a checkpoint to resume from. Digests of its files are
checked whenever they are used.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ablations.config.schema import Config, digest
from ablations.errors import TrainingError
from ablations.records.code_version import code_version
from ablations.records.run_log import RunLog
from ablations.records.storage import clear_temporaries
from ablations.training.checkpoint import CHECKPOINT
from ablations.training.device import choose_device
from data import digests
from data.build import build
from data.dataset import InstanceSet
from data.folders import complete
from data.specs import FolderSpec
from models.config import ResNetConfig, shipped_backbones
from models.structures import Proposals
from models.weights import weights_digest

STAGE_VERSION = 1
"""To be increased when the code of a stage changes what it produces."""

RPN_FIELDS = (
    "freeze", "anchor_sizes", "anchor_ratios", "anchors_per_image", "proposals_before", "proposals",
    "smallest_proposal", "pyramid", "whole_pixel_anchors",
)  # fmt: skip
"""Settings of the model that its proposals depend on; not every model has all of them."""

CODE = "code.txt"
"""The file, in a stage's folder, with the version of the code that made it."""


@dataclass(frozen=True)
class Stages:
    """The shared stages of a run: their folders, and the keys that say what they depend on."""

    root: Path
    config: Config

    def dataset(self, split: str) -> InstanceSet:
        return _dataset(self.config.data, split, self.root / "data")

    def samples(self, split: str) -> InstanceSet:
        """The same images as the network gets them; pixels are not read where cached maps are used."""
        dataset = self.dataset(split)
        return dataset.without_images() if self.caches_features else dataset

    @property
    def split(self) -> str:
        """The split that runs are evaluated on. A COCO-format folder's validation set is its test set too."""
        return "val" if isinstance(self.config.data, FolderSpec) else self.config.split

    @property
    def evaluated(self) -> InstanceSet:
        """The images that runs are evaluated on."""
        return self.dataset(self.split)

    @property
    def seed(self) -> int:
        """What the shared networks start from."""
        seed = self.config.stages.seed
        return self.config.seed if seed is None else seed

    @property
    def data_key(self) -> str:
        spec = self.config.data
        return digest(
            [type(spec).__name__, dataclasses.asdict(spec), [spec.digest(split) for split in ("train", self.split)]]
        )

    @property
    def backbone_key(self) -> str:
        config = self.config
        settings = config.model
        if isinstance(settings, ResNetConfig):
            return digest([STAGE_VERSION, settings.depth, settings.stride_in_1x1, weights_digest(settings)])
        if settings.weights == "shipped":
            return digest([STAGE_VERSION, shipped_backbones()["sha256"]])
        backbone = [settings.channels, settings.blocks, settings.roi_channels]
        schedule, images = dataclasses.asdict(config.budget.backbone), config.data.digest("pretrain")
        return digest([STAGE_VERSION, images, backbone, schedule, config.precision, self.seed])

    @property
    def rpn_key(self) -> str:
        settings, schedule = self.config.model, dataclasses.asdict(self.config.budget.rpn)
        fields = [name for name in RPN_FIELDS if hasattr(settings, name)] + ["roi_channels"] * settings.frozen
        backbone = [self.backbone_key, self.data_key, self.config.stride, self.config.precision]
        return digest([self.seed, backbone, schedule, {name: getattr(settings, name) for name in fields}])

    @property
    def features_key(self) -> str:
        return digest([self.backbone_key, self.data_key, self.config.stride, self.config.precision])

    @property
    def device(self) -> torch.device:
        return choose_device(self.config.device)[0]

    @property
    def keys(self) -> dict[str, str]:
        """The keys of the stages that this run depends on."""
        keys = {"backbone": self.backbone_key}
        if self.shares_proposals:
            return keys | {"rpn": self.rpn_key}
        # A ResNet's weights come from elsewhere: without shared proposals no other key would depend on the data.
        depends_on_data = isinstance(self.config.model, ResNetConfig) or self.config.rpn == "jitter"
        return keys | {"data": self.data_key} if depends_on_data else keys

    @property
    def shares_proposals(self) -> bool:
        """Whether the run depends on the proposals of the shared network."""
        return self.config.task == "detection" and self.config.rpn == "separate"

    @property
    def caches_features(self) -> bool:
        """Whether the run reads the maps of a frozen backbone from a stage; those computed anew are the same."""
        return self.config.model.frozen and self.config.cache_features

    def work_folder(self, name: str) -> Path:
        """The folder of a stage's log and status while it is being made."""
        return self.root / "work" / name.replace(" ", "-")

    @property
    def backbone_folder(self) -> Path:
        return self.root / f"backbone-{self.backbone_key}"

    @property
    def rpn_folder(self) -> Path:
        return self.root / f"rpn-{self.rpn_key}"

    @property
    def features_folder(self) -> Path:
        return self.root / f"features-{self.features_key}"

    @property
    def backbone_file(self) -> Path:
        """A ResNet has one for all strides; the toy backbones of all strides are pretrained together."""
        name = "model" if isinstance(self.config.model, ResNetConfig) else str(self.config.stride)
        return self.backbone_folder / f"{name}.safetensors"

    def backbone(self) -> dict[str, Tensor]:
        """The pretrained backbone's state, with batch normalisation folded."""
        return load_stage(self.backbone_file)

    def proposals(self, split: str) -> Proposals:
        """The cached proposals of all images of a split, in the order of its dataset."""
        tensors = load_stage(self.rpn_folder / f"{split}.safetensors")
        return Proposals(tensors["boxes"], tensors["scores"])


def stages_of(config: Config) -> Stages:
    return Stages(Path(config.outputs) / "stages", config)


@functools.lru_cache(maxsize=3)
def _dataset(spec: Any, split: str, folder: Path) -> InstanceSet:
    """Keeps both splits open: reopening them for each run would map their pixels into memory again and again."""
    return build(spec, split, cache_dir=folder)


def load_stage(path: Path) -> dict[str, Tensor]:
    """The tensors in a stage's file. Raises TrainingError if they are not what was written."""
    try:
        kept = digests.read(path.parent)
        if kept:  # older versions of the code, whose stages code=keep accepts, wrote none
            digests.check(path, kept.get(path.name, ""))
        return load_file(path)
    except (digests.DamagedFile, OSError, SafetensorError) as error:
        raise TrainingError(f"{path.parent}: {error}; run the same command again to rebuild it") from error


def make_once(stages: Stages, folder: Path, files: list[str], make: Callable[[Path], None], log: RunLog) -> None:
    """Calls make(partial folder) and moves the result to `folder`, unless that has these files already.

    They are used if they are what was written and were made by the same code, or by any code if code=keep.
    """
    problem = ""

    def usable(folder: Path) -> bool:
        nonlocal problem
        problem = stage_damage(stages, folder, files) if folder.exists() else ""
        return folder.exists() and not problem

    def make_with_digests(partial: Path) -> None:
        if problem:
            log.write(f"{folder}: {problem}; it is rebuilt, and the old one is kept in {folder.parent}/replaced", True)
        make(partial)
        (partial / CHECKPOINT).unlink(missing_ok=True)
        clear_temporaries(partial)
        (partial / CODE).write_text(f"{code_version()}\n", encoding="utf-8")
        digests.write(partial)

    complete(folder, make_with_digests, usable)


def stage_damage(stages: Stages, folder: Path, files: list[str]) -> str:
    """Why a stage's folder, which should have these files, cannot be used; "" if it can."""
    missing = [name for name in [*files, CODE] if not (folder / name).is_file()]
    problem = f"{missing[0]} is missing" if missing else digests.damage(folder)
    if problem or stages.config.code == "keep":
        return problem
    made_by = (folder / CODE).read_text(encoding="utf-8", errors="replace").strip()
    if made_by != code_version():
        return "other code made it (code=keep accepts stages of other versions)"
    return "" if (folder / digests.FILE).is_file() else f"{digests.FILE} is missing"
