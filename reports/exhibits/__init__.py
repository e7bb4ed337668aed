"""Sections of a report that show a study's exhibits: a module for each, named as in `ablations/exhibits`.

Each has one function, section(analysis, exhibit, figures) -> str: Markdown that opens with a heading of its own. It
saves its charts with `figures` and names them as figures/<name>.png.
"""

import importlib
import pkgutil

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import Figures
from reports.load import StudyResults


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def sections(analysis: Analysis, figures: Figures) -> list[str]:
    """The sections of the study's exhibits that are there, in the order in which the study names them."""
    study = analysis.study
    made = [study.exhibit(name) for name in study.record.exhibits if name in names()]
    return [_section(analysis, exhibit, figures) for exhibit in made if exhibit is not None]


def _section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> str:
    module = importlib.import_module(f"{__name__}.{exhibit.name}")
    try:
        return module.section(analysis, exhibit, figures)
    except (KeyError, IndexError, TypeError) as error:  # made by other code, or edited
        reason = f"{type(error).__name__}: {error}"
        advice = f"delete exhibits/{exhibit.name}.json and run the study again"
        return f"> **Warning.** The exhibit `{exhibit.name}` cannot be shown ({reason}); {advice}."


def problems(study: StudyResults) -> list[str]:
    """What is missing, and what was made of other runs than those that the report shows."""
    texts = []
    for name in study.record.exhibits:
        exhibit = study.exhibit(name)
        if exhibit is None:
            texts.append(f"The exhibit `{name}` is not made yet.")
        elif exhibit.runs != {f"{arm}/seed{seed}": run.identity for (arm, seed), run in study.runs.items()}:
            texts.append(f"The exhibit `{name}` was made of other runs than those of this report.")
    return texts
