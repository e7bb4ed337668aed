"""Sections of a report that show a study's exhibits: a module for each, named as in `ablations/exhibits`.

Each has one function, section(analysis, exhibit, figures) -> Marked: Markdown that opens with a heading of its own. It
saves its charts with `figures` and names them as figures/<name>.svg, or .png where they are made of images.
"""

import importlib
import pkgutil
from collections.abc import Callable

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import Figures
from reports.load import StudyResults
from reports.text.markup import Marked, code, escape

MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What reading an exhibit's content may raise, if other code made it, or if it was edited."""


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def sections(analysis: Analysis, figures: Figures) -> dict[str, Marked]:
    """By name, the sections of the study's exhibits that are there, in the order in which the study names them."""
    study = analysis.study
    made = {name: study.exhibit(name) for name in study.record.exhibits if name in names()}
    return {name: _section(analysis, exhibit, figures) for name, exhibit in made.items() if exhibit is not None}


def _section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    module = importlib.import_module(f"{__name__}.{exhibit.name}")
    return guarded(exhibit, lambda: module.section(analysis, exhibit, figures))


def guarded(exhibit: ExhibitRecord, show: Callable[[], Marked]) -> Marked:
    """What `show` makes of an exhibit, or a warning when its content is not what it should be."""
    try:
        return show()
    except MALFORMED as error:
        reason = escape(f"{type(error).__name__}: {error}")
        advice = f"delete {code(f'exhibits/{exhibit.name}.json')} and run the study again"
        return Marked(f"> **Warning.** The exhibit {code(exhibit.name)} cannot be shown ({reason}); {advice}.")


def problems(study: StudyResults) -> list[Marked]:
    """What is missing, and what belongs to other runs than those that the report shows."""
    texts = []
    for name in study.record.exhibits:
        exhibit = study.exhibit(name)
        if exhibit is None:
            texts.append(Marked(f"The exhibit {code(name)} is not made yet."))
        elif exhibit.runs != {f"{arm}/seed{seed}": run.identity for (arm, seed), run in study.runs.items()}:
            texts.append(Marked(f"The exhibit {code(name)} belongs to other runs than those of this report."))
    return texts
