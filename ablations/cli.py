"""What `python run.py` does once Hydra has composed its configuration."""

from omegaconf import DictConfig

from ablations.evaluate import KINDS
from ablations.record import RunRecord
from ablations.runner import Outcome, check_outputs, describe, execute, start_study
from ablations.study import Compose, compose_study, single_run


def run(composed: DictConfig, overrides: list[str], compose: Compose) -> int:
    """Carries out the run or the study that was asked for; the exit code tells whether everything is done.

    Raises ConfigError before any work is done if something in the configuration cannot work.
    """
    if composed.study is None:
        runs = [single_run(composed, overrides)]
        check_outputs(runs[0].config)
        print(describe(runs[0].config))
        outcome = execute(runs)
        for folder, record in outcome.records.items():
            print(f"{record.num_parameters:,} parameters\n{table(record)}\nfiles: {folder}")
        return conclude(outcome)

    study, runs = compose_study(composed, overrides, compose)
    check_outputs(runs[0].config)
    print(describe(runs[0].config))
    print(f"study {study.name}: {len(study.arms)} arms x {len(runs) // len(study.arms)} seeds")
    start_study(study, runs)
    outcome = execute(runs)
    print(f"records: {runs[0].folder.parent.parent}\nreport:  python -m reports {study.name}")
    return conclude(outcome)


def conclude(outcome: Outcome) -> int:
    for name, message in outcome.failures.items():
        print(f"failed: {name}: {message}")
    return 1 if outcome.failures else 0


def table(record: RunRecord) -> str:
    """The AP table of one run, in points."""
    names = list(next(iter(record.metrics.values())))
    rows = [" " * 5 + "".join(f"{name:>8}" for name in names)]
    for kind, title in KINDS:
        if kind in record.metrics:
            values = [record.metrics[kind][name] for name in names]
            rows.append(f"{title:5}" + "".join(f"{'-' if v is None else f'{v:.1f}':>8}" for v in values))
    return "\n".join(rows)
