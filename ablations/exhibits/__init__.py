"""Exhibits: parts of a report that need the trained networks or the images, made once per study.

Each module here is one exhibit, which a study's file names in `exhibits: [...]`. Once all `runs` of the study are done,

    make(study: StudyRecord, runs: list[Run], folder: Path) -> dict[str, Any]

returns plain JSON data, and saves pictures in `folder` by `save_picture`. A module that measures each run separately
also defines

    measure_run(study: StudyRecord, run: Run) -> Any

which the study's workers call in parallel. It returns something that can be pickled, without tensors, and `make` has a
fourth argument, the list of what it returned for each of the runs. `ablations.tasks.detection.trained_model(run)` gives
a run's network. `reports/exhibits/<same name>.py` turns the data into a section.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from ablations.config.study import Run, Study
from ablations.errors import ConfigError

Make = Callable[..., dict[str, Any]]
Measure = Callable[..., Any]

DRAWN = ("neighbours", "phase")
"""Those that draw images of their own, which only synthetic data say how to draw."""

QUALITY = 90  # of pictures, as JPEG


def save_picture(picture: Image.Image, folder: Path, name: object) -> None:
    """Saves one of an exhibit's pictures; `StudyResults.exhibit_picture` finds it by its name."""
    picture.save(folder / f"{name}.jpg", quality=QUALITY)


def is_first_seed(run: Run) -> bool:
    """Whether a study's run has its first seed, of which exhibits show images and curves."""
    return run.config.seed == run.config.budget.first_seed


def names() -> list[str]:
    """The names of all exhibits."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_names(study: Study) -> None:
    """Raises ConfigError if a study asks for exhibits that do not exist."""
    unknown = sorted(set(study.exhibits) - set(names()))
    if unknown:
        raise ConfigError(f"study {study.name}: exhibits: expected some of {', '.join(names())}, got {unknown}")


def fitting(study: Study, data: str) -> Study:
    """The study on data of this kind: with other data than "shapes" without exhibits of DRAWN and claims about them."""
    if data == "shapes":
        return study
    names = [name for name in study.exhibits if name not in DRAWN]
    claims = [item for item in study.hypotheses if not item.metric.startswith(tuple(f"{name}." for name in DRAWN))]
    return dataclasses.replace(study, exhibits=names, hypotheses=claims)


def maker(name: str) -> Make:
    """The function that makes an exhibit."""
    make: Make = _module(name).make
    return make


def run_measurer(name: str) -> Measure | None:
    """The function that measures one run for an exhibit, if it has one."""
    return getattr(_module(name), "measure_run", None)


def _module(name: str) -> ModuleType:
    """An exhibit's module. It is imported only when it is needed: it may import all of `ablations`."""
    return importlib.import_module(f"{__name__}.{name}")
