"""What disks do to files, for tests."""

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
