"""The benchmark's table says what was set out and whether it was reached, and nothing where a check failed."""

import json
from pathlib import Path

import pytest

from ops.bench import model
from ops.bench.report import model_lines, table, target, thread_lines, timings, write_report

RECORDS = sorted((Path(__file__).parents[3] / "reports/gallery/ops").glob("*/record.json"))


def row(contender="ours", forward=1.0, backward=1.0, **changes) -> dict:
    return {
        "case": "C4",
        "operator": "roi_align",
        "contender": contender,
        "threads": 1,
        "parity": True,
        "compulsory_bytes": 100,
        "forward": [forward, 2 * forward],
        "backward": [backward],
    } | changes


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (row(forward=1.0, backward=2.0), "forward 6x met, backward 15x missed"),
        (row(operator="roi_pool"), "forward 3x met, backward 3x met"),
        (row(case="toy, stride 16", forward=2.6, backward=1.0), "both 10x missed"),
        (row(case="toy, stride 16", forward=2.5, backward=1.0), "both 10x met"),
        (row(parity=False, forward=0, backward=0), "forward 6x missed, backward 15x missed"),
        (row(threads=2), ""),
        (row(operator="multi_scale"), ""),
        (row(contender="ours, from NCHW"), ""),
    ],
)
def test_targets_on_a_cpu(ours, expected):
    assert target(ours, row("torchvision", forward=7.0, backward=28.0), on_gpu=False) == expected


def test_targets_on_a_gpu():
    baseline = row("torchvision", forward=7.0, backward=28.0)
    assert target(row(), baseline, on_gpu=True) == "forward 8x missed, backward 4x met"


def test_times_are_left_out_where_a_check_failed():
    failed = row(parity=False, forward=1.0)
    assert not any(cell[:1].isdigit() for cell in timings(failed, row("torchvision"), 1.0))
    assert timings(row(), failed, 1000.0) == ["1000.00", "-", "1000.00", "-", "-", "10%"]


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_committed_tables_are_those_of_their_records(record):
    assert table(json.loads(record.read_text())) == (record.parent / "table.md").read_text()


def test_a_record_of_another_form_is_refused(tmp_path):
    (tmp_path / "record.json").write_text('{"schema": 1}')
    with pytest.raises(SystemExit, match="expected schema 2, got 1; run ops.bench again"):
        write_report(tmp_path)


def test_the_step_of_a_whole_model_has_its_line_and_no_times_where_losses_differ():
    measured = {"model": "a_model", "side": 400, "images": 2, "threads": 1, "error": 2e-6, "parity": True}
    measured |= {"without": [3.0, 2.0], "with": [1.0, 1.6]}
    line, _ = model_lines({"models": [measured]})
    assert "2000 ms, with `install()` 1000 ms, 2.00 times as fast; losses differ by 2e-06" in line
    assert " ms" not in model_lines({"models": [measured | {"parity": False}]})[0]
    assert model_lines({}) == []


@pytest.mark.parametrize(
    ("copies", "words"),
    [((2.0, 1.0), "2.00 times (missed)"), ((1.5, 1.0), "1.50 times (no target)"), (None, "1.17 times (missed)")],
)
def test_gains_from_threads_stand_beside_those_of_a_copy(copies, words):
    rows = [row(forward=2.0 / threads**0.5, backward=2.0, boxes="uniform", threads=threads) for threads in (1, 2)]
    for each, copy in zip(rows, copies or (), strict=False):
        each["copy"] = copy
    heading, _, line = thread_lines({"rows": rows, "copy_bandwidth": {"1": 1.0, "2": 1.11}})
    assert "copying large memory gains 1.11" in heading
    assert line.endswith(words)


@pytest.mark.slow
def test_a_model_is_measured_with_the_same_losses():
    measured = model.measure(threads=1, rounds=1, side=32)
    assert measured["parity"] and len(measured["losses"]) == 5
    assert len(measured["without"]) == len(measured["with"]) == 1
