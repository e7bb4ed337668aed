"""Makes the toy backbones that come with the project, from synthetic images that no study uses:

    python -m ablations.stages.ship [SETTING=VALUE ...]     # pretrain (35 minutes of one core), write models/shipped

An interrupted pretraining continues where it stopped. The files hold float16, which halves them.
"""

import argparse
import json
import sys
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ablations.config.loading import from_hydra
from ablations.config.overrides import composer, group_options
from ablations.config.schema import Config
from ablations.errors import ConfigError
from ablations.records.code_version import code_version
from ablations.records.provenance import git_state
from ablations.records.run_log import RunLog
from ablations.stages.make import make_backbone
from ablations.stages.store import CODE, Stages, stages_of
from data import digests
from data.terminal import run_command
from models.config import SHIPPED

SETTINGS = ("model=toy", "model.weights=scratch", "budget=backbone")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ablations.stages.ship",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as those of run.py")
    options = parser.parse_args(arguments)
    try:
        with composer(group_options()) as compose:
            stages = stages_of(from_hydra(compose([*SETTINGS, *options.settings])))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with RunLog(stages.work_folder("shipped backbones"), "shipped backbones", echo=True) as log:
        make_backbone(stages, log)
    write(stages)
    return 0


def write(stages: Stages) -> None:
    """Rounds the backbones to float16 and describes them in backbones.json."""
    config = stages.config
    SHIPPED.mkdir(exist_ok=True)
    sha256 = {}
    for stride in config.model.strides:
        state = load_file(stages.backbone_folder / f"{stride}.safetensors")
        path = SHIPPED / f"{stride}.safetensors"
        save_file({name: value.half() for name, value in state.items()}, path)
        sha256[str(stride)] = digests.of_file(path)
    record = describe(config, (stages.backbone_folder / CODE).read_text(encoding="utf-8").strip())
    text = json.dumps(record | {"sha256": sha256}, indent=1)
    (SHIPPED / "backbones.json").write_text(f"{text}\n", encoding="utf-8")


def describe(config: Config, code: str) -> dict[str, Any]:
    """What the backbones are, what they were trained on, and which code and torch did it."""
    settings = config.settings()
    model, budget = settings["model"], settings["budget"]
    return {
        "command": "python -m ablations.stages.ship",
        "architecture": {name: model[name] for name in ("channels", "blocks", "roi_channels")},
        "images": {"split": "pretrain", "digest": config.data.digest("pretrain"), "spec": settings["data"]},
        "schedule": budget["backbone"],
        "precision": settings["precision"],
        "code": code,
        "written_by": {"code": code_version(), "commit": git_state()["commit"]},
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    run_command(main)
