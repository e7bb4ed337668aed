"""python -m reports [STUDY ...]: writes the reports of studies from their records, of all that have any by default."""

import argparse
import sys
from pathlib import Path

from ablations.errors import RecordError
from reports.load import find_studies, read_study
from reports.render import render
from reports.stats.bootstrap import RESAMPLES


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("study", nargs="*", help="names of studies; all with records when none is given")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where the records are")
    parser.add_argument("--out", type=Path, default=Path("reports/out"), help="where the reports go")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="resamples of the images; 0 leaves them out")
    options = parser.parse_args(arguments)
    names = options.study or find_studies(options.outputs)
    if not names:
        advice = "run `python run.py study=roialign` first"
        print(f"no study has records under {options.outputs}; {advice}", file=sys.stderr)
        return 1
    failed = 0
    for name in names:
        try:
            path = render(read_study(options.outputs, name), options.out / name, options.resamples)
        except (RecordError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
        else:
            print(f"{name}: {path} and {path.with_suffix('.html')}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
