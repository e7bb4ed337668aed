"""The benchmark of a study: the time that its runs took together, and the share of checkpoints."""

from types import SimpleNamespace

import pytest

from ablations.bench import study
from ablations.records.schema import Status
from ablations.records.storage import save


def test_the_runs_are_short_and_on_few_images(tmp_path):
    config = study.configuration(tmp_path, 7)
    assert (config.budget.train.steps, config.budget.val_images, config.device) == (7, 40, "cpu")
    assert config.outputs == str(tmp_path)


def pretend(monkeypatch, spans, failures=None):
    """Execution is replaced: run i lasts from one minute and second to another and is said to have trained so long."""
    seen = []

    def execute(runs, print_line):
        seen.append(runs)
        records = {}
        for run, (first, last, trained) in zip(runs, spans, strict=True):
            times = [f"2026-01-01T00:00:{second:02}+00:00" for second in (first, last)]
            save(Status("arm", "done", "", 9, 9, 0, 1, "host", *times), run.folder / "status.json")
            records[run.config.seed] = SimpleNamespace(cost={"train_seconds": trained, "eval_seconds": 1.0})
        return SimpleNamespace(failures=failures or {}, records=records)

    monkeypatch.setattr(study, "execute", execute)
    return seen


def test_the_time_is_from_the_first_start_to_the_last_end(tmp_path, monkeypatch):
    seen = pretend(monkeypatch, [(10, 20, 8.0), (12, 31, 17.0)])
    assert study.seconds_of(study.configuration(tmp_path, 7), 2, 1, 2, "study") == 21
    [runs] = seen
    assert [(run.config.seed, run.config.workers, run.config.threads, run.config.force) for run in runs] == [
        (0, 2, 1, True),
        (1, 2, 1, True),
    ]


def test_whole_seconds_are_replaced_by_the_runs_own_where_those_are_longer(tmp_path, monkeypatch):
    pretend(monkeypatch, [(10, 10, 0.4), (10, 10, 0.6)])
    assert study.seconds_of(study.configuration(tmp_path, 7), 2, 1, 2, "study") == pytest.approx((1.4 + 1.6) / 2)


def test_a_failed_run_ends_the_benchmark(tmp_path, monkeypatch):
    pretend(monkeypatch, [(10, 20, 8.0)], failures={"arm seed 0": "the disk is full"})
    with pytest.raises(SystemExit, match="a run failed.*the disk is full"):
        study.seconds_of(study.configuration(tmp_path, 7), 1, 1, 1, "study")


def test_ratios_are_of_medians_and_the_warm_up_does_not_count(tmp_path, monkeypatch):
    times = {(2, 1): iter([99.0, 10.0, 12.0]), (1, 1): iter([18.0, 26.0]), (1, 2): iter([11.0, 22.0])}
    monkeypatch.setattr(study, "seconds_of", lambda config, workers, threads, *_: next(times[workers, threads]))
    cost = {"seconds_per_step": 0.05, "seconds_per_checkpoint": 0.02, "bytes": 5e6, "interval_seconds": 30.0}
    monkeypatch.setattr(study, "checkpoint_cost", lambda *_: cost | {"share_of_time": 0.02 / 30.02})
    record = study.measure(SimpleNamespace(runs=4, steps=7, rounds=2))
    assert record["ratio_to_one_thread"] == 2.0 and record["ratio_to_two_threads"] == 1.5
    lines = study.table(record).splitlines()
    assert lines[0].split()[-2:] == ["11.0", "s"] and "2.00 times as fast as one run after another" in lines[3]
    assert lines[4] == (
        "a checkpoint of 5.0 MB takes 20 ms, a training step 50 ms: one every 30 s takes 0.07% of the time"
    )
