"""python -m reports [STUDY ...]: writes a report for each study, from its records."""

import argparse
import sys
from pathlib import Path

from ablations.errors import RecordError
from data.terminal import run_command
from reports.analysis import analyse
from reports.ending import next_to_try, verdict_lines
from reports.load import find_studies, read_study
from reports.stats.bootstrap import RESAMPLES


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("study", nargs="*", help="names of studies; by default all that have records")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder with the records of the studies")
    parser.add_argument("--out", type=Path, default=Path("reports/out"), help="folder to write the reports to")
    parser.add_argument(
        "--resamples",
        type=int,
        default=RESAMPLES,
        help="how often the evaluated images are drawn again to measure their noise; 0 skips it",
    )
    parser.add_argument("--verdicts", action="store_true", help="print the verdicts and write no report")
    options = parser.parse_args(arguments)
    names = options.study or find_studies(options.outputs)
    if not names:
        advice = "run `python run.py study=roialign` first"
        print(f"no study has records under {options.outputs}; {advice}", file=sys.stderr)
        return 1
    failed = 0
    for name in names:
        try:
            study = read_study(options.outputs, name)
            if options.verdicts:
                print("\n".join([f"verdicts of {name}:", *verdict_lines(analyse(study, resamples=0))]))
                continue
            from reports.render import render  # takes matplotlib, which verdicts do not need

            path = render(study, options.out / name, options.resamples)
        except (RecordError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
        else:
            print(f"{name}: open {path.with_suffix('.html')}; the same as text: {path}")
    if not options.verdicts:
        print(next_to_try(options.outputs))
    return failed


if __name__ == "__main__":
    run_command(main)
