"""Exhibits: what a report shows of a study and only the trained networks or the images can tell, made once per study.

Each module here is one exhibit, named by `exhibits: [...]` in the study's file. It has one function,

    make(study: StudyRecord, runs: list[Run], folder: Path) -> dict[str, Any]

which is called when all `runs` of the study are done. It returns plain JSON data; pictures go into `folder` as PNGs.
Weights come from `ablations.tasks.detection.trained_model(run)`. `reports/exhibits/<same name>.py` turns the data into
a section.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

Make = Callable[..., dict[str, Any]]


def names() -> list[str]:
    """The exhibits that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def maker(name: str) -> Make:
    """The function that makes an exhibit. Imported when it is needed: an exhibit may stand on all of `ablations`."""
    return importlib.import_module(f"{__name__}.{name}").make
