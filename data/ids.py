"""Ids in a COCO file are names. Any JSON number or text will do, as long as it is used once.

Behind the loader they are whole numbers: tensors and file names hold them, and COCO's evaluator takes an annotation's
id 0 for "no match".
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

_INT64 = range(-(2**63), 2**63)


def is_name(value: Any) -> bool:
    """Whether an entry can be called this: a finite number, or a text."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int | str) and not isinstance(value, bool)


def key_of(value: Any) -> Hashable:
    """What tells ids apart: 1 and 1.0 are the same number; 1, "1" and true are three ids."""
    if not is_name(value):
        return type(value).__name__, repr(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Ids:
    """Finds the id that an entry refers to.

    Where there is none of the same type, one that is written alike is meant: 7 by "7", unless both are there.
    """

    def __init__(self, keys: Iterable[Hashable]):
        self.keys = set(keys)
        written = Counter(str(key) for key in self.keys)
        self._by_text = {str(key): key for key in self.keys if written[str(key)] == 1}

    def find(self, value: Any) -> Hashable | None:
        if not is_name(value):
            return None
        key = key_of(value)
        return key if key in self.keys else self._by_text.get(str(key))


def ordered(keys: Iterable[Any]) -> list[Any]:
    """Numbers by size, then texts by alphabet."""
    return sorted(keys, key=lambda key: (isinstance(key, str), key))


def numbered(keys: Iterable[Any]) -> dict[Any, int]:
    """The number of each id: itself where all are whole numbers of 64 bits, else 1, 2, ... in the order given."""
    keys = list(keys)
    if all(isinstance(key, int) and key in _INT64 for key in keys):
        return {key: key for key in keys}
    return {key: number for number, key in enumerate(keys, start=1)}
