"""Digests of files, kept beside them: files changed by disk errors or by hand must not become a result.

A folder's digests are in its `digests.json`, a SHA-256 for each file, and are written last. Folders of older versions
have none.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "digests.json"


class DamagedFile(ValueError):
    """A file that is not what was written. The message names it and says what to do."""


def of_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_content(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a JSON file holds, whatever its layout and the order of its keys. Raises RecursionError."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def of_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The digests of those of the named files that are in `folder`."""
    return {name: of_file(folder / name) for name in names if (folder / name).is_file()}


def write(folder: Path) -> None:
    """Writes the digests of all files in `folder`, of which nothing may change any more."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != FILE)
    (folder / FILE).write_text(json.dumps(of_files(folder, names), indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, str]:
    """What `write` wrote; {} if there is nothing. Raises DamagedFile if it cannot be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{FILE} cannot be read") from error
    if not isinstance(content, dict):
        raise DamagedFile(f"{FILE} cannot be read")
    return content


def damage(folder: Path, digests: Mapping[str, str] | None = None) -> str:
    """What is wrong with the files in `folder`, such as "model.safetensors is missing"; "" if they are as written.

    digests: of its files; by default those in its digests.json, without which nothing is known to be wrong
    """
    try:
        for name, digest in (read(folder) if digests is None else digests).items():
            check(folder / name, digest)
    except DamagedFile as error:
        return str(error)
    return ""


def check(path: Path, digest: str) -> None:
    """Raises DamagedFile unless the file has this digest."""
    try:
        actual = of_file(path)
    except FileNotFoundError as error:
        raise DamagedFile(f"{path.name} is missing") from error
    except OSError as error:
        raise DamagedFile(f"{path.name} cannot be read ({error.strerror})") from error
    if actual != digest:
        raise DamagedFile(f"{path.name} is damaged: it is not what was written")
