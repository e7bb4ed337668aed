"""How a study is started: its command has what it needs."""

from pathlib import Path

import pytest

from reports.text.commands import STUDIES, start_of


def test_a_study_of_photographs_is_started_with_its_data():
    command, about = start_of("photos")
    assert command == "python run.py study=photos data=people data.root=FOLDER" and about.startswith("RoIPool, RoIWarp")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_says_how_it_is_started(path: Path):
    command, _ = start_of(path.stem)
    assert command.split()[:3] == ["python", "run.py", f"study={path.stem}"]


def test_an_unknown_study_has_its_name_alone():
    assert start_of("else") == ("python run.py study=else", "")
