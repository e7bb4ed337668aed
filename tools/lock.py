"""Writes and reads pylock.toml, the versions of all dependencies except torch and torchvision behind reports/gallery.

python tools/lock.py write           from the packages of this interpreter; needs `uv` and `packaging`
python tools/lock.py requirements    prints the lock as requirements with hashes, for `pip install --requirement`

PEP 751 (https://peps.python.org/pep-0751/) asks for an address or a path of every file.
The lock names a path below `wheels` and its SHA-256, no address, so it serves whatever package index you use.
torch and torchvision stay out because their builds depend on the machine (CPU, CUDA, macOS): constraints.txt pairs
them, and every record names the two releases that it was made with.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.terminal import run_command

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "pylock.toml"
LEFT_OUT = ("torch", "torchvision")
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = ("linux", "darwin")

HEAD = """\
# The versions of all dependencies except torch and torchvision that made reports/gallery. Written by `make lock`.
# Files are named by their hashes, not by an address. `make setup LOCKED=1` installs them from your package index.
"""


def write() -> None:
    """Resolves pyproject.toml with the installed versions, for all supported systems and Pythons, as pylock.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["wandb"]
    wanted = [line for line in wanted if not line.startswith(LEFT_OUT)]
    installed = [f"{package.name}=={package.version}" for package in importlib.metadata.distributions()]
    own = f"{project['name']}=="
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "requirements.in").write_text("\n".join(wanted))
        (Path(folder) / "installed.txt").write_text("\n".join(line for line in installed if not line.startswith(own)))
        command = [sys.executable, "-m", "uv", "pip", "compile", "requirements.in", "--constraint", "installed.txt"]
        command += ["--universal", "--python-version", PYTHONS[0], "--format", "pylock.toml", "--output-file"]
        subprocess.run([*command, "pylock.toml"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        resolved = tomllib.loads((Path(folder) / "pylock.toml").read_text(encoding="utf-8"))
    packages = [package for package in resolved["packages"] if _is_needed(package)]
    systems = ", ".join(f"\"sys_platform == '{system}'\"" for system in SYSTEMS)
    head = [HEAD, 'lock-version = "1.0"', f'created-by = "{project["name"]}"', f"environments = [{systems}]"]
    head += [f'requires-python = "{project["requires-python"]}"', ""]
    LOCK.write_text("\n".join(head + [_entry(package) for package in packages]), encoding="utf-8")


def _is_needed(package: dict[str, Any]) -> bool:
    from packaging.markers import Marker

    marker = Marker(package.get("marker", "python_version >= '3'"))
    environments = [{"sys_platform": system, "python_version": python} for system in SYSTEMS for python in PYTHONS]
    return any(marker.evaluate(environment) for environment in environments)


def _entry(package: dict[str, Any]) -> str:
    """One [[packages]] table: its wheels for the supported systems, or the source archive where there are none."""
    lines = ["[[packages]]", f'name = "{package["name"]}"', f'version = "{package["version"]}"']
    if "marker" in package:
        lines.append(f'marker = "{package["marker"]}"')
    wheels = [_file(wheel) for wheel in package.get("wheels", []) if _fits(_name(wheel))]
    if wheels:
        lines += ["wheels = [", *(f"    {wheel}," for wheel in wheels), "]"]
    else:
        lines.append(f"sdist = {_file(package['sdist'])}")
    return "\n".join(lines) + "\n"


def _name(file: dict[str, Any]) -> str:
    return PurePosixPath(file["url"]).name


def _file(file: dict[str, Any]) -> str:
    return f'{{ path = "wheels/{_name(file)}", hashes = {{ sha256 = "{file["hashes"]["sha256"]}" }} }}'


def _fits(wheel: str) -> bool:
    """Whether a wheel is for CPython 3.11 to 3.13 on Linux with glibc (x86-64, ARM) or on macOS with Apple silicon."""
    python, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    versions = {f"cp{version.replace('.', '')}" for version in PYTHONS}
    if not (abi in versions or (abi in ("none", "abi3") and (python.startswith("py") or abi == "abi3"))):
        return False
    if platform == "any":
        return True
    linux = "manylinux" in platform and ("x86_64" in platform or "aarch64" in platform)
    return linux or ("macosx" in platform and ("arm64" in platform or "universal2" in platform))


def requirements() -> None:
    for package in tomllib.loads(LOCK.read_text(encoding="utf-8"))["packages"]:
        files = package.get("wheels") or [package["sdist"]]
        marker = f" ; {package['marker']}" if "marker" in package else ""
        hashes = " ".join(f"--hash=sha256:{file['hashes']['sha256']}" for file in files)
        print(f"{package['name']}=={package['version']}{marker} {hashes}")


if __name__ == "__main__":
    commands = {"write": write, "requirements": requirements}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"expected one of {', '.join(commands)}, got {' '.join(sys.argv[1:]) or 'nothing'}")
    run_command(commands[sys.argv[1]])
