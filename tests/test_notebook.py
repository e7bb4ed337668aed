"""The notebook: all of its cells run, in order, at a tiny size, and it is stored without outputs."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = json.loads((ROOT / "docs/slides.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TINY = [
    *("budget=smoke", "budget.train_images=16", "budget.val_images=6", "budget.seeds=1"),
    *("budget.rpn.steps=2", "budget.train.steps=2", "workers=1"),
]


def test_it_is_stored_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.chdir(ROOT / "docs")
    monkeypatch.syspath_prepend(str(ROOT))
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()) or plt.close("all"))
    names = {"__name__": "__main__"}
    for cell in CODE:
        exec(compile("".join(cell["source"]), "slides.ipynb", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names |= {"OUTPUTS": str(tmp_path), "BUDGET": TINY}
    assert len(shown) == 7
    assert "verdicts of mine:" in capsys.readouterr().out
