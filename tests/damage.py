"""What disks and people do to files, for tests."""

import json
from collections.abc import Callable
from pathlib import Path


def flip_bit(path: Path, bit: int | None = None) -> None:
    """Flips one bit of a file: the lowest one of the byte in its middle, unless another is named.

    The file gets another inode: other names of the old one keep its content.
    """
    content = bytearray(path.read_bytes())
    bit = len(content) // 2 * 8 if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.unlink()
    path.write_bytes(content)


def edit_record(path: Path, change: Callable[[dict], object]) -> None:
    """Changes a record on purpose: it is then one without a digest."""
    record = json.loads(path.read_text())
    change(record)
    record.pop("digest", None)
    path.write_text(json.dumps(record))
