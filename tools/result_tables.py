"""python -m tools.result_tables: writes published studies' numbers into the tables of README.md and docs/results.md.

A row of docs/results.md names a study and a hypothesis; README.md has three of them. Rows of the table of what holds on
photographs are written whole. Sentences with numbers in them are not touched: read them again after publishing.
"""

import argparse
import csv
import re
from collections.abc import Mapping
from pathlib import Path

from data.terminal import run_command
from reports.gallery import GALLERY
from reports.text import transfer
from reports.web.pages import published

ROOT = Path(__file__).parent.parent

Rows = Mapping[tuple[str, str], Mapping[str, str]]
"""(study, hypothesis) -> its row of the study's contrasts.csv."""

ROW = re.compile(
    r"^\| `(?P<study>\w+)` \| `(?P<hypothesis>[\w-]+)` \| (?P<measured>.+) \| \S+ \| \S+ \(\S+ to \S+\) \| .+ \|$",
    re.MULTILINE,
)
"""A row of the table in docs/results.md."""

IN_README = [("roialign", "mask-ap-16"), ("roiops", "align-over-warp"), ("maskloss", "mildest-rule")]
README_ROW = re.compile(r"\*\*\S+\*\* \| \S+ to \S+ \| \S+ \|$", re.MULTILINE)
"""The last cells of the rows of README.md's first table, which are IN_README's."""


def recorded(gallery: Path = GALLERY) -> Rows:
    """What the records say of every hypothesis of every published study."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for path in gallery.glob("*/contrasts.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows |= {(row["study"], row["hypothesis"]): row for row in csv.DictReader(file) if row["hypothesis"]}
    return rows


def points(value: str | float, decimals: int = 1) -> str:
    """With a sign: +1.0."""
    return f"{float(value):+.{decimals}f}".replace("-", "−")


def interval(row: Mapping[str, str]) -> tuple[str, str]:
    """Both ends, with as many decimals as it takes to see on which side of them the paper's value lies."""
    low, high, paper = (float(row[name] or "nan") for name in ("low", "high", "paper"))
    excluded = paper < low or paper > high
    decimals = next((n for n in (1, 2) if not (excluded and round(low, n) <= paper <= round(high, n))), 3)
    return points(low, decimals), points(high, decimals)


def paper_value(row: Mapping[str, str]) -> str:
    return points(row["paper"]) if row["paper"] else "–"


def update_results(text: str, rows: Rows) -> str:
    """docs/results.md with every row of its table as recorded. Raises KeyError where nothing is published."""

    def written(match: re.Match[str]) -> str:
        row = rows[match["study"], match["hypothesis"]]
        low, high = interval(row)
        cells = (
            f"`{match['study']}`", f"`{match['hypothesis']}`", match["measured"], paper_value(row),
            f"{points(row['mean'])} ({low} to {high})", row["verdict"],
        )  # fmt: skip
        return f"| {' | '.join(cells)} |"

    return ROW.sub(written, text)


def update_readme(text: str, rows: Rows) -> str:
    """README.md with the numbers of its first table as recorded."""
    wanted = iter(IN_README)

    def written(_: re.Match[str]) -> str:
        row = rows[next(wanted)]
        low, high = interval(row)
        return f"**{points(row['mean'])}** | {low} to {high} | {paper_value(row)} |"

    return README_ROW.sub(written, text)


def update_transfer(text: str, table: str) -> str:
    """A page with those rows of the table of what holds on photographs that it has."""
    for line in table.splitlines()[2:]:  # below its header and the line under it, which other tables may share
        name = line.split("|")[1]
        text = re.sub(rf"^\|{re.escape(name)}\|.*$", line.replace("\\", r"\\"), text, flags=re.MULTILINE)
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.result_tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    rows, table = recorded(), transfer.table(published(GALLERY))
    for path, update in ((ROOT / "docs/results.md", update_results), (ROOT / "README.md", update_readme)):
        old = path.read_text(encoding="utf-8")
        new = update_transfer(update(old, rows), table)
        changed = [line for line, before in zip(new.splitlines(), old.splitlines(), strict=True) if line != before]
        path.write_text(new, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(changed)} rows changed", *changed, sep="\n  ")
    return 0


if __name__ == "__main__":
    run_command(main)
