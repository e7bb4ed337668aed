"""What pyproject.toml and pylock.toml promise: every import is declared, and the lock holds the gallery's versions."""

import ast
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = tomllib.loads((ROOT / "pylock.toml").read_text(encoding="utf-8"))
LOCKED = {package["name"]: package["version"] for package in LOCK["packages"]}
PACKAGES = ("ablations", "data", "models", "ops", "reports")
WITH_ANOTHER = {"triton": "torch", "pydantic_core": "pydantic"}  # pinned by the package that brings it


def declared(lines):
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def third_party_imports():
    names = set()
    for path in [ROOT / "run.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES) - {"tests", "tools", "__future__"}


@pytest.mark.slow
def test_every_imported_package_is_declared():
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
    known = declared(PROJECT["dependencies"] + extras)
    distributions = importlib.metadata.packages_distributions()
    for name in third_party_imports():
        names = {canonicalize_name(each) for each in distributions.get(name, [WITH_ANOTHER.get(name, name)])}
        names.add(WITH_ANOTHER.get(name, name))
        assert names & known.keys(), f"import {name}: none of {sorted(names)} is declared in pyproject.toml"


def test_the_lock_is_valid_and_names_no_address():
    Pylock.from_dict(LOCK).validate()
    assert "://" not in (ROOT / "pylock.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(declared(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["wandb"])))
def test_the_lock_has_a_version_of_every_dependency_but_torch_and_torchvision(name):
    if name in ("torch", "torchvision"):
        assert name not in LOCKED
        return
    requirement = declared(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["wandb"])[name]
    assert requirement.specifier.contains(LOCKED[name])


def test_the_lock_holds_the_versions_that_the_gallerys_records_name():
    records = [(path, path.read_text(encoding="utf-8")) for path in (ROOT / "reports/gallery").rglob("run.json")]
    for path in (ROOT / "reports/gallery").rglob("runs.jsonl"):
        records += [(path, json.dumps(json.loads(line)["record"])) for line in path.read_text("utf-8").splitlines()]
    assert len(records) > 400
    for record, text in records:
        versions = json.loads(text)["provenance"]["versions"]
        for package in versions.keys() - {"python", "torch", "torchvision"}:
            assert versions[package] == LOCKED[package], f"{record.relative_to(ROOT)}: {package}; run `make lock`"


def test_on_windows_one_sentence_says_where_to_run_it():
    pretend = "import sys; sys.platform = 'win32'; import ablations.cli"
    done = subprocess.run([sys.executable, "-c", pretend], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "WSL" in done.stderr and len(done.stderr.splitlines()) == 1
