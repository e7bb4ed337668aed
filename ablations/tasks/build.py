"""From a run's settings to its task: the one place that knows all tasks."""

from collections.abc import Callable

from ablations.stages.store import Stages
from ablations.tasks.base import Task
from ablations.tasks.detection import detection_task
from ablations.tasks.proposals import proposals_task

TASKS: dict[str, Callable[[Stages], Task]] = {"detection": detection_task, "proposals": proposals_task}


def build_task(stages: Stages) -> Task:
    """What the settings' `task` names, on the stages that they depend on."""
    return TASKS[stages.config.task](stages)
