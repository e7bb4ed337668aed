"""python -m reports.web: writes the site, a folder of pages that any static host serves, to site/."""

import argparse
import sys
from pathlib import Path

from ablations.errors import RecordError
from data.terminal import run_command
from reports.gallery import GALLERY
from reports.web.pages import write_site
from reports.web.story import repository


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.web", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the site")
    parser.add_argument("--gallery", type=Path, default=GALLERY, help="folder with the published studies")
    options = parser.parse_args(arguments)
    try:
        written = write_site(options.out, options.gallery, repository())
    except (RecordError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(written)} pages, {sum(path.stat().st_size for path in written) / 1e6:.1f} MB: open {written[0]}")
    return 0


if __name__ == "__main__":
    run_command(main)
