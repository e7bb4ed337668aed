"""The version of the code behind a result: a digest of the modules that decide it, as Python reads them."""

import ast
import functools
import hashlib
from collections.abc import Iterable

from ablations.paths import ROOT

STARTS = ("ablations.stages.make", "ablations.execution.run")
LAYERS = ("ablations", "data", "models", "ops")

# Imported too, but they deal only with files, messages, the machine and settings (which are compared by themselves).
IGNORED_MODULES = (
    "ablations.config",
    "ablations.errors",
    "ablations.machine",
    "ablations.records",
    "ablations.stages.ship",
    "ablations.tracking",
    "ablations.training.checkpoint",
    "ablations.training.stopping",
    "data.digests",
    "data.folders",
    "data.terminal",
)


@functools.cache
def code_version() -> str:
    """A short name for the code, which changes with anything that may change a result, but not with comments."""
    return version_of(deciding_modules())


def version_of(modules: Iterable[str]) -> str:
    """The same for these modules only."""
    digest = hashlib.sha256()
    for name in modules:
        digest.update(f"{name}\n{meaning(parsed(name))}\n".encode())
        kernel = (ROOT / name.replace(".", "/")).with_suffix(".c")  # compiled by the module beside it
        if kernel.exists():
            digest.update(kernel.read_bytes())
    return digest.hexdigest()[:12]


def version_besides_runs(module: str) -> str:
    """The same for a module and those that it needs, except the ones that decide runs, whose records have a version."""
    return version_of(sorted({*deciding_modules([module])} - {*deciding_modules()}))


def deciding_modules(starts: Iterable[str] = STARTS) -> list[str]:
    """The project's modules that these import, directly or not, by name; by default those of stages and runs."""
    modules: set[str] = set()
    remaining = set(starts)
    while remaining:
        name = remaining.pop()
        modules.add(name)
        remaining |= {
            other for other in imports(name) if other not in modules and not other.startswith(IGNORED_MODULES)
        }
    return sorted(modules)


@functools.cache
def parsed(name: str) -> ast.Module:
    path = ROOT / name.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))


def imports(name: str) -> set[str]:
    """The project's modules that a module's import statements name."""
    named: set[str] = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [_package(name, node.level), node.module]))
            named |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in named if name.partition(".")[0] in LAYERS and _is_module(name)}


def _package(name: str, level: int) -> str:
    """The package that the dots of a relative import stand for, in a module of this name; "" without dots."""
    if not level:
        return ""
    is_package = (ROOT / name.replace(".", "/")).is_dir()
    parts = name.split(".")
    return ".".join(parts[: len(parts) - level + is_package])


def meaning(tree: ast.Module) -> str:
    """The source without comments, docstrings and layout."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A string as a statement does nothing: docstrings, also those below a constant.
            body = [line for line in node.body if not (isinstance(line, ast.Expr) and _is_text(line.value))]
            node.body = body or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
