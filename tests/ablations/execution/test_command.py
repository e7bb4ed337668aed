"""What a command prints once its runs are done."""

from pathlib import Path

from ablations.execution import command
from ablations.records.schema import RunRecord


def record(ap):
    fields = ("study", "arm", "config_hash")
    empty = ("config", "data", "stages", "losses", "cost", "provenance")
    return RunRecord(
        **dict.fromkeys(fields, "x"),
        **{name: {} for name in empty},
        seed=0,
        steps=1,
        num_parameters=1234,
        metrics={"segm": {"AP": ap, "AP50": 60.0}},
    )


def test_a_sweep_prints_a_line_for_each_run_and_one_run_its_table(monkeypatch, capsys):
    monkeypatch.setattr(command, "write_picture", lambda run: Path(run) / "picture.png")
    command.show_runs({Path("a"): "a", Path("b"): "b"}, {Path("a"): record(12.5), Path("b"): record(20.0)})
    assert capsys.readouterr().out.splitlines() == ["mask AP 12.5  a/picture.png", "mask AP 20.0  b/picture.png"]
    command.show_runs({Path("a"): "a"}, {Path("a"): record(12.5)})
    told = capsys.readouterr().out
    assert "AP50" in told and "picture: a/picture.png\nfiles: a" in told
