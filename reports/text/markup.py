"""Text from records as Markdown: whatever it holds, a reader sees the same characters.

Records can come from somebody else's archive, so text is escaped unless the code says that it is Markdown already:
templates and tables escape everything that is not `Marked`.
"""

import re
from collections.abc import Sequence

BACKSLASH = re.compile(r"([\\`*_\[\]|])")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "~": "&#126;", "$": "&#36;"}
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ue000-\uf8ff]+")
"""Control characters, line breaks and characters for private use: none of them belongs in a sentence."""


class Marked(str):
    """Text that is Markdown, made by this package."""

    __slots__ = ()


def escape(text: object) -> Marked:
    """`text` so that Markdown shows it as it is; line breaks become spaces. Marked text is left alone."""
    if isinstance(text, Marked):
        return text
    plain = UNSEEN.sub(" ", str(text))
    plain = "".join(ENTITIES.get(character, character) for character in plain)
    return Marked(re.sub(r"^(\s*)(#|[-+](?=\s)|\d+(?=[.)]\s))", r"\1\\\2", BACKSLASH.sub(r"\\\1", plain)))


def bold(text: object) -> Marked:
    return Marked(f"**{escape(text)}**")


def emphasis(text: object) -> Marked:
    return Marked(f"*{escape(text)}*")


def code(text: object) -> Marked:
    """A name of the code or the configuration; as plain text where it holds what a code span cannot."""
    plain = str(text)
    return escape(plain) if not plain or re.search(r"[`|<&]", plain) or UNSEEN.search(plain) else Marked(f"`{plain}`")


def table(header: Sequence[object], rows: Sequence[Sequence[object]], left: int = 1) -> Marked:
    """A Markdown table whose first `left` columns are aligned left and the others right; "" without rows."""
    if not rows:
        return Marked("")
    lines = ["| " + " | ".join(map(escape, header)) + " |"]
    lines.append("|" + "|".join([":--"] * left + ["--:"] * (len(header) - left)) + "|")
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return Marked("\n".join(lines))


def paragraphs(*blocks: Marked) -> Marked:
    """Blocks of Markdown with a blank line between them; empty ones are left out."""
    return Marked("\n\n".join(block for block in blocks if block))
