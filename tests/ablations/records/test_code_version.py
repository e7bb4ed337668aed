"""The code version changes with what may change a result, and with nothing else."""

import ast

import pytest

from ablations import exhibits
from ablations.records import code_version

EXHIBITS = [f"{exhibits.__name__}.{name}" for name in exhibits.names()]


def test_comments_docstrings_and_layout_do_not_count():
    text = '"""Doc."""\nimport x\n\ndef f(a):\n    """Doc."""\n    # why\n    return a + 1\n\nA = 1\n"""What A is."""\n'
    same = "import x\ndef f(a):\n    return (a +\n 1)  # other\nA = 1\n"
    meaning = lambda source: code_version.meaning(code_version.ast.parse(source))  # noqa: E731
    assert meaning(text) == meaning(same) != meaning(same.replace("1)", "2)"))
    assert len(code_version.code_version()) == 12


def test_files_and_messages_do_not_decide():
    assert not set(code_version.deciding_modules()) & {
        "ablations.cli",
        "ablations.execution.scheduler",
        "ablations.tracking.trackers",
        "data.download",
        "ops.bench.cases",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", ["ablations/evaluation", "ablations/stages", "ablations/tasks", "ablations/training"]
)
def test_every_module_that_makes_a_result_decides(folder):
    """A module that no stage, run or exhibit imports could change unnoticed."""
    paths = [path for path in (code_version.ROOT / folder).glob("*.py") if path.name != "__init__.py"]
    modules = {f"{folder.replace('/', '.')}.{path.stem}" for path in paths}
    assert modules
    deciding = {*code_version.deciding_modules(), *code_version.deciding_modules(EXHIBITS)}
    assert modules - deciding <= set(code_version.IGNORED_MODULES)


def test_relative_imports_are_followed():
    assert {"ops.reference", "ops.backends", "ops.triton_kernels.launch"} <= code_version.imports("ops.roi_align")
    assert {"ops.sampling", "ops.cpu.compiled"} <= code_version.imports("ops.cpu.compiled_sum")


def test_models_data_and_operators_decide():
    modules = set(code_version.deciding_modules())
    assert {
        "models.mask_rcnn",
        "models.fcis",
        "models.initialise",
        "ops.roi_align",
        "data.shapes",
        "data.coco",
    } <= modules


def test_a_change_to_a_c_kernel_changes_the_code_version(monkeypatch, tmp_path):
    assert "ops.cpu.compiled" in code_version.deciding_modules() and (code_version.ROOT / "ops/cpu/compiled.c").exists()
    (tmp_path / "pool.py").write_text("SOURCE = 'pool.c'")
    monkeypatch.setattr(code_version, "ROOT", tmp_path)
    versions = []
    for kernel in ("int one;", "int two;", "int one;"):
        (tmp_path / "pool.c").write_text(kernel)
        versions.append(code_version.version_of(["pool"]))
    assert versions[0] == versions[2] != versions[1]


def test_an_exhibits_version_covers_what_it_needs_besides_the_runs_code(monkeypatch):
    before = code_version.version_besides_runs("ablations.exhibits.neighbours")
    real = code_version.parsed
    other = {"ablations.evaluation.neighbours": "CHANGED = 1", "ablations.evaluation.coco": "CHANGED = 1"}

    def changed(name):
        monkeypatch.setattr(
            code_version, "parsed", lambda module: ast.parse(other[name]) if module == name else real(module)
        )
        return code_version.version_besides_runs("ablations.exhibits.neighbours")

    assert changed("ablations.evaluation.neighbours") != before
    assert changed("ablations.evaluation.coco") == before  # a run's code
