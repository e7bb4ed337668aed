"""Trains and evaluates one setting, or all arms of a study.

python run.py roi=pool stride=32                 one run; prints its AP table and where its files are
python run.py study=roialign                     all arms and seeds; give it again after a kill and it goes on
python run.py -m roi=pool,align seed=0,1,2       a sweep of single runs
python run.py --help                             every setting and every group's options

Exit codes: 0 all done, 1 something failed, 2 a setting that cannot work, 130 stopped on request (Ctrl-C or SIGTERM).
"""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ablations.cli import run
from ablations.config import ConfigError
from ablations.record import RecordError

exit_codes: list[int] = []  # of each job: in a sweep, one that fails does not stop the others


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> None:
    overrides = list(HydraConfig.get().overrides.task)
    try:
        exit_codes.append(run(composed, overrides, lambda more: hydra.compose("config", more)))
    except (ConfigError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        exit_codes.append(2)
    except KeyboardInterrupt:  # before any run began: execute() stops by itself
        exit_codes.append(130)
    if exit_codes[-1] == 130:
        sys.exit(130)


if __name__ == "__main__":
    main()
    sys.exit(max(exit_codes, default=0))
