"""Imports go one way: ops <- models <- ablations; data stands alone; reports read records and need no torch."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("ops", "models", "data", "ablations", "reports")
ALLOWED = {
    "ops": {"ops"},
    "data": {"data"},
    "models": {"ops", "models"},
    "ablations": {"ops", "models", "data", "ablations"},
    "reports": {
        "reports",
        "ablations.errors",
        "ablations.records.schema",
        "ablations.records.storage",
        "ablations.records.summary",
        "ablations.evaluation.cocoapi",
        "ablations.evaluation.overlap",
        "data.images",
        "ops.geometry",
    },
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below_it(layer):
    for path in (ROOT / layer).rglob("*.py"):
        for name in imports(path):
            if name.partition(".")[0] in LAYERS:
                allowed = any(name == a or name.startswith(a + ".") or a.startswith(name + ".") for a in ALLOWED[layer])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_run_py_sees_the_experiments_only_and_is_short():
    lines = (ROOT / "run.py").read_text().splitlines()
    assert len(lines) < 60
    ours = {name.partition(".")[0] for name in imports(ROOT / "run.py")} & set(LAYERS)
    assert ours == {"ablations"}
