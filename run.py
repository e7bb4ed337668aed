"""Trains and evaluates one setting, or all arms of a study.

python run.py roi=pool stride=32                 one run; prints its AP table and where its files are
python run.py study=roialign                     all arms and seeds; after an interruption, the same command continues
python run.py study=roialign launcher=ray        the same on a Ray cluster; launcher=submitit: as Slurm jobs
python run.py -m roi=pool,align seed=0,1,2       a sweep of single runs, side by side
python run.py --help                             every setting and every group's options

Exit codes: 0 all done, 1 something failed, 2 a setting that cannot work, 130 stopped on request (Ctrl-C or SIGTERM).
"""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from ablations.cli import Request, execute, prepare, refuse
from ablations.errors import ConfigError, RecordError

requests: list[Request] = []  # several in a sweep: Hydra only collects them, and they are executed together
exit_codes: list[int] = []


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> None:
    overrides = list(HydraConfig.get().overrides.task)
    plugin = HydraConfig.get().runtime.choices["hydra/launcher"]
    if plugin in ("ray", "submitit"):
        overrides.append(f"launcher={plugin}")
        composed = hydra.compose("config", overrides)
    elif plugin != "basic":
        raise HydraException(f"hydra/launcher: expected ray or submitit, got {plugin}; use launcher=ray, for example")
    try:
        requests.append(prepare(composed, overrides, lambda more: hydra.compose("config", more)))
    except (ConfigError, RecordError) as error:
        exit_codes.append(refuse(error))


if __name__ == "__main__":
    try:
        main()
        exit_codes.append(execute(requests))
    except KeyboardInterrupt:  # before any run began: execute() handles it by itself
        exit_codes.append(130)
    sys.exit(max(exit_codes))
