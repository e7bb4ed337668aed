"""Sets as tools and people make them: used rightly or refused, and what is wrong is said before any work."""

import json
import logging

import pytest
import torch

from data import check
from data.coco import load
from tests.commands import command
from tests.data.coco_sets import good, write, write_odd
from tests.data.odd_sets import ODD_SETS


@pytest.mark.parametrize("name", ODD_SETS)
def test_an_odd_set_is_used_rightly_or_refused(tmp_path, name, caplog):
    odd = ODD_SETS[name]
    spec = write_odd(tmp_path, odd)
    for split in ("train", "val"):
        try:
            with caplog.at_level(logging.WARNING):
                dataset = load(spec, split)
        except ValueError as error:
            assert not odd.objects, f"refused: {error}"
            assert odd.said in str(error) and str(tmp_path) in str(error)
            continue
        truth = [entry for entry in dataset.coco["annotations"] if not entry["iscrowd"]]
        assert odd.objects == len(truth), "as many objects as can be used"
        json.dumps(dataset.coco).encode("utf-8")
        for index in range(len(dataset)):
            sample = dataset[index]
            assert sample.masks[sample.labels > 0].flatten(1).any(1).all(), "every object that is learned has a pixel"
            assert torch.isfinite(sample.boxes).all()
    assert odd.said == "" or odd.objects == 0 or "data.check" in caplog.text


@pytest.mark.parametrize("name", ODD_SETS)
def test_the_data_check_says_what_is_odd(tmp_path, name):
    odd = ODD_SETS[name]
    write_odd(tmp_path, odd)
    code, out, _ = command(check.main, [str(tmp_path)])
    assert odd.said in out and (code == 1 or not odd.said)


def test_the_good_set_is_good(tmp_path, capsys):
    write(tmp_path, good())
    with pytest.raises(SystemExit) as caught:
        check.main([str(tmp_path)])
    assert caught.value.code == 0 and capsys.readouterr().out.count("no problems") == 2
