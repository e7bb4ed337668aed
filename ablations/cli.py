"""`python run.py`: reads what it is asked to do and checks it before any work begins.

It imports no torch until there is something to execute, so that help and mistakes are told at once.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from ablations import exhibits
from ablations.config.loading import mistakes_beside
from ablations.config.overrides import Unreadable, composer, group_options, overrides_of_runs
from ablations.config.schema import Config
from ablations.config.study import Compose, compose_study, key_of, single_run
from ablations.config.usage import usage
from ablations.errors import ConfigError, RecordError
from ablations.execution.request import Request, refuse
from ablations.paths import CONF


def main(arguments: list[str], introduction: str) -> int:
    """Does what a command line asks for; returns the exit code.

    introduction: what --help says first.
    """
    options = parse(arguments)
    if options.shell_completion:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda composed: None)()
        return 0
    try:
        groups = group_options(options.config_dir)
        overrides = read_overrides(options, groups)
        with composer(groups, options.config_dir) as compose:
            if options.help:
                print(usage(introduction, overrides[0], compose, groups))
                return 0
            requests = prepare(overrides, compose)
            if options.cfg:
                print("\n".join(OmegaConf.to_yaml(compose(given), resolve=True) for given in overrides), end="")
                return 0
        for request in requests:
            check_outputs(request.runs[0].config)
        from ablations.execution.command import execute_requests  # takes seconds to import, so only now

        return execute_requests([request.resolve_precision() for request in requests])
    except (ConfigError, RecordError) as error:
        return refuse(error)
    except OSError as error:  # such as a full disk, before or between runs: those explain their own
        from ablations.records.run_log import explain

        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before any run began: execute_requests() handles it by itself
        return 130


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, named as Hydra names them, and the overrides."""
    parser = argparse.ArgumentParser(
        prog="python run.py",
        usage="python run.py [-m] [SETTING=VALUE ...]; --help lists the settings",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    return parser.parse_intermixed_args(arguments)


def read_overrides(options: argparse.Namespace, groups: dict[str, list[str]]) -> list[list[str]]:
    """The overrides of each run that was asked for. Raises ConfigError with one line for each mistake in any of them,
    also where some cannot be read."""
    try:
        return overrides_of_runs(options.overrides, options.multirun, groups)
    except Unreadable as error:
        with composer(groups, options.config_dir) as compose:
            others = mistakes_beside(compose(error.readable), error.groups)
        raise ConfigError("\n".join(dict.fromkeys([*str(error).splitlines(), *others]))) from error


def prepare(overrides: list[list[str]], compose: Compose) -> list[Request]:
    """A request for each run or study of a sweep. Raises ConfigError with one line for each mistake in any of them."""
    requests, mistakes = [], []
    for given in overrides:
        try:
            requests.append(prepare_one(given, compose))
        except ConfigError as error:
            mistakes += str(error).splitlines()
    mistakes = mistakes or shared_folders(requests, overrides)
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return requests


def prepare_one(overrides: list[str], compose: Compose) -> Request:
    """What one run or study is asked to be; its precision is not resolved yet, or torch would have to be imported."""
    composed = compose(overrides)
    if composed.study is None:
        return Request([single_run(composed, overrides)])
    study, runs = compose_study(composed, overrides, compose)
    exhibits.check_names(study)
    return Request(runs, exhibits.fitting(study, runs[0].config.data.kind))


def shared_folders(requests: Iterable[Request], overrides: Iterable[list[str]]) -> list[str]:
    """A line for each request of a sweep whose files would lie where those of an earlier one do."""
    owners: dict[str, list[str]] = {}
    lines = []
    for request, given in zip(requests, overrides, strict=True):
        folder = os.path.abspath(request.folder)
        if folder not in owners:
            owners[folder] = given
            continue
        differing = ", ".join(key_of(override) for override in given if override not in owners[folder]) or "the sweep"
        if request.study is None:
            lines.append(f"{differing}: expected values that give different results, got the same run several times")
        else:
            lines.append(f"{differing}: expected one study in {request.folder}, got several; give each its own command")
    return lines


def check_outputs(config: Config) -> None:
    """Raises ConfigError if nothing can be written to the folder for outputs."""
    folder = Path(config.outputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"outputs: expected a writable folder, got {folder} ({error.strerror})") from error
