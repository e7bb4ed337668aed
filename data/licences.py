"""What the licences of photographs allow, as far as an annotation file's table of licences says (COCO has one).

Each image names a licence by its number in the table; the table has a name and an address for each.
"""

import re
from typing import Any

OPEN = ("creativecommons.org/licenses/by/", "creativecommons.org/licenses/by-sa/", "creativecommons.org/publicdomain/",
        "flickr.com/commons/usage", "usa.gov/copyright")  # fmt: skip
"""In the addresses of licences under which anybody may show a photograph, also with masks drawn in, for any purpose."""


UNKNOWN = {"name": "unknown licence", "url": ""}


def table_of(content: dict[str, Any]) -> dict[int, dict[str, str]]:
    """Number -> name and url of each licence in an annotation file; {} where there is no such table."""
    listed = content.get("licenses")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {
        entry["id"]: {key: str(entry.get(key, "")) for key in ("name", "url")}
        for entry in entries
        if isinstance(entry.get("id"), int)
    }


def of_image(entry: dict[str, Any], table: dict[int, dict[str, str]]) -> dict[str, str]:
    """The licence of an image's entry in the file; UNKNOWN where the table does not have it."""
    number = entry.get("license")
    return table.get(number, UNKNOWN) if isinstance(number, int) else UNKNOWN


def forbids_adaptations(licence: dict[str, str]) -> bool:
    """Creative Commons' NoDerivatives licences have "nd" in their address and "NoDeriv" in their name."""
    return bool(re.search(r"-nd\b", licence["url"])) or "noderiv" in licence["name"].lower()


def may_be_shown(licence: dict[str, str]) -> bool:
    """Whether a report may show the photograph, with masks in it and attribution beside it."""
    return any(address in licence["url"] for address in OPEN)
