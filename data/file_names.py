"""Finds the pictures that an annotation file names, also by names that another system or another folder gave them."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from data.problems import Fault

_SHOWN = 3


def check_name(name: Any, where: str) -> str:
    """A file name out of an annotation file. Raises ValueError when it leads out of the image folder."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{where}: expected a file name, got {name!r:.200}")
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise ValueError(
            f"{where}: expected a file name inside the image folder, got {name!r:.200}; correct the file: "
            "names are relative to the image folder"
        )
    return name


class PictureFolder:
    """The files of an image folder, by name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._listed: dict[str, set[str]] = {}

    def resolve(self, names: Iterable[str]) -> dict[str, tuple[str | None, Fault]]:
        """For each name that is not there: the one file that must be meant instead, or None; and the fault to list.

        A file is meant if it ends in the most of the name's parts, whatever stands before them, with backslashes,
        %20, Unicode forms and case taken alike. It must be the only such file, and no other name's.
        """
        names = list(names)
        missing = [name for name in names if not self._has(name)]
        if not missing:
            return {}
        taken = {os.path.normpath(name) for name in set(names).difference(missing)}
        candidates = {name: [path for path in self._likely(name) if path not in taken] for name in missing}
        wanted = Counter(paths[0] for paths in candidates.values() if len(paths) == 1)
        return {name: self._verdict(name, paths, wanted) for name, paths in candidates.items()}

    def _verdict(self, name: str, paths: list[str], wanted: Counter[str]) -> tuple[str | None, Fault]:
        if len(paths) == 1 and wanted[paths[0]] == 1:
            return paths[0], Fault(f"no file {self.folder / name}, but {paths[0]}", "found under another name")
        text = f"no file {self.folder / name}"
        if len(paths) == 1:
            return None, Fault(text, "skipped with its objects", f"several names could mean {paths[0]}")
        if paths:
            return None, Fault(text, "skipped with its objects", f"it could be {' or '.join(paths[:_SHOWN])}")
        stem = _alike(PurePosixPath(name.replace("\\", "/")).stem)
        others = [path for path in self._by_stem.get(stem, []) if self._is_file(path)]
        reason = f"there is {others[0]}" if others else ""
        return None, Fault(text, "skipped with its objects", reason)

    def _has(self, name: str) -> bool:
        parent, base = os.path.split(name)
        if parent not in self._listed:
            self._listed[parent] = set(_files(self.folder / parent))
        return base in self._listed[parent]

    def _likely(self, name: str) -> list[str]:
        """The files that agree with the name in most of its last parts."""
        best: dict[str, tuple[int, int]] = {}
        for spelling in {name, unquote(name)}:
            parts = [part for part in re.split(r"[/\\]", spelling) if part]
            for path in self._by_name.get(_alike(parts[-1]) if parts else "", []):
                own = path.split("/")
                agree = _agreeing([_alike(part) for part in parts], [_alike(part) for part in own])
                best[path] = max(best.get(path, (0, 0)), (agree, _agreeing(parts, own)))
        most = max(best.values(), default=None)
        return sorted(path for path, agreement in best.items() if agreement == most)

    @cached_property
    def _paths(self) -> list[str]:
        paths = []
        for parent, _, bases in os.walk(self.folder):
            relative = os.path.relpath(parent, self.folder)
            paths += [base if relative == "." else f"{relative}/{base}" for base in bases]
        return sorted(paths)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped((_alike(path.rpartition("/")[2]), path) for path in self._paths if self._is_file(path))

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((_alike(PurePosixPath(path).stem), path) for path in self._paths)

    def _is_file(self, path: str) -> bool:
        return (self.folder / path).is_file()


def _files(folder: Path) -> Iterator[str]:
    """The names of the ordinary files in a folder; nothing that never ends, such as a pipe."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_file())
    except (OSError, ValueError):
        return


def _alike(part: str) -> str:
    """What is the same in all spellings of a part of a name."""
    return unicodedata.normalize("NFC", part).casefold()


def _agreeing(one: list[str], other: list[str]) -> int:
    """How many of the last parts of two names are equal."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
