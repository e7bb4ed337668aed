"""python -m reports.web: writes the site, a folder of pages that any static host serves, to site/."""

import argparse
from pathlib import Path

from reports.web.playground import playground_page


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m reports.web", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the site")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / "playground.html"
    target.write_text(playground_page(), encoding="utf-8")
    print(f"written: {target}, {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
