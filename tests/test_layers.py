"""Imports go one way: ops <- models <- ablations; data stands alone; reports read records and need no torch.

Within ablations they follow ARROWS, which docs/architecture.md draws.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LAYERS = ("ops", "models", "data", "ablations", "reports")
ALLOWED = {
    "ops": {"ops"},
    "data": {"data"},
    "models": {"ops", "models"},
    "ablations": {"ops", "models", "data", "ablations"},
    "reports": {
        "reports",
        "ablations.errors",
        "ablations.records.packed",
        "ablations.records.schema",
        "ablations.records.storage",
        "ablations.records.summary",
        "ablations.evaluation.cocoapi",
        "ablations.evaluation.overlap",
        "ablations.evaluation.phase",
        "data.digests",
        "data.images",
        "data.segmentation",
        "data.terminal",
        "ops.geometry",
    },
}

ARROWS = {
    "errors": [],
    "machine": [],
    "paths": [],
    "evaluation": [],
    "records": ["errors", "machine", "paths"],
    "config": ["records"],
    "training": ["config"],
    "stages": ["training"],
    "tracking": ["config", "evaluation"],
    "tasks": ["stages", "evaluation"],
    "exhibits": ["tasks"],
    "execution": ["exhibits", "tracking"],
    "cli": ["execution"],
    "status": ["execution"],
    "export": ["execution"],
    "bench": ["execution"],
    "predict": ["stages", "evaluation"],
}
"""A package of ablations may import what its arrows lead to, directly or over others, all of which stand above it."""


def below(package: str) -> set[str]:
    """All that a package may import."""
    return {name for arrow in ARROWS[package] for name in (arrow, *below(arrow))}


def packages_imported(path: Path) -> set[str]:
    """The packages and modules directly in ablations that a file imports."""
    packages = {path.stem for path in (ROOT / "ablations").iterdir()}
    return {name.split(".")[1] for name in imports(path) if name.startswith("ablations.")} & packages


def files_of(package: str) -> list[Path]:
    folder = ROOT / "ablations" / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imports(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below_it(layer):
    for path in (ROOT / layer).rglob("*.py"):
        for name in imports(path):
            if name.partition(".")[0] in LAYERS:
                allowed = any(name == a or name.startswith(a + ".") or a.startswith(name + ".") for a in ALLOWED[layer])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_arrows_lead_up_the_table_only_and_cover_every_package():
    names = list(ARROWS)
    for place, arrows in enumerate(ARROWS.values()):
        assert set(arrows) <= set(names[:place])
    present = {path.stem for path in (ROOT / "ablations").iterdir() if not path.name.startswith("__")}
    assert present == set(names)


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_of_ablations_imports_only_what_its_arrows_lead_to(package):
    imported = set()
    for path in files_of(package):
        names = packages_imported(path) - {package}
        assert names <= below(package), f"{path.relative_to(ROOT)} imports {sorted(names - below(package))}"
        imported |= names
    assert set(ARROWS[package]) <= imported, f"an arrow from {package} that no import needs"


def test_the_documentation_draws_these_arrows():
    lines = [f"    {package} --> {arrow}" for package, arrows in ARROWS.items() for arrow in arrows]
    drawing = "\n".join(["```mermaid", "flowchart LR", *lines, "```"])
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert drawing in text, f"docs/architecture.md: expected\n{drawing}"


def test_the_operators_import_each_other_relatively_so_that_they_work_under_any_package_name():
    for path in (ROOT / "ops").rglob("*.py"):
        assert not {name for name in imports(path) if name.partition(".")[0] == "ops"}, path.relative_to(ROOT)


def test_no_module_is_called_like_one_of_the_standard_library():
    """It would be read as the other, and hide it where its folder comes first on the path."""
    modules = [ROOT / "run.py", *(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))]
    assert len(modules) > 100
    assert not [str(path.relative_to(ROOT)) for path in modules if path.stem in sys.stdlib_module_names]


def test_run_py_sees_the_experiments_and_the_terminal_only_and_is_short():
    lines = (ROOT / "run.py").read_text().splitlines()
    assert len(lines) < 60
    ours = {name.partition(".")[0] for name in imports(ROOT / "run.py")} & set(LAYERS)
    assert ours == {"ablations", "data"}


def test_files_functions_and_folders_are_as_small_as_contributing_says():
    """A file is read in one sitting, a function on one screen."""
    files = [
        ROOT / "run.py",
        *(path for folder in (*LAYERS, "tools", "tests") for path in (ROOT / folder).rglob("*.py")),
    ]
    too_long = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTIONS)]
        sizes = [("file", len(text.splitlines()), 350)]
        sizes += [(node.name, node.end_lineno - node.lineno + 1, 60) for node in functions]
        too_long += [f"{path.relative_to(ROOT)}: {name}, {lines} lines" for name, lines, most in sizes if lines > most]
    assert len(files) > 300 and not too_long
    for folder, most in {"ablations": 10, "ops": 16, "reports": 12}.items():
        assert len(list((ROOT / folder).glob("*.py"))) <= most, folder
