"""Trains and evaluates one setting, or all arms of a study.

python run.py roi=pool stride=32                 one run; prints its AP table and where its files are
python run.py study=roialign                     all arms and seeds; after an interruption, the same command resumes it
python run.py study=roialign launcher=ray        the same on a Ray cluster; launcher=submitit: as Slurm jobs
python run.py -m roi=pool,align seed=0,1,2       a sweep of single runs, in parallel
python run.py --help                             the settings and every group's options
python run.py --cfg job roi=pool                 the settings of a run, which is not started
python run.py --config-dir FOLDER study=mine     with another folder like conf/ for studies of your own

Exit codes: 0 all done, 1 something failed, 2 a setting that cannot work, 130 stopped on request (Ctrl-C or SIGTERM).
"""

import sys

try:
    from ablations.cli import main
    from data.terminal import run_command
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in ("ablations", "data", "models", "ops"):
        raise
    sys.exit(
        f"error: the package {error.name} is not installed for {sys.executable}; `make setup` installs all of them "
        "in .venv: then use .venv/bin/python run.py"
    )

if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:], __doc__))
