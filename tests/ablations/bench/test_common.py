"""What the benchmarks share: turns, ratios, the record, and torchvision's form of a batch."""

import json

import pytest
import torch

from ablations.bench import common
from data.dataset import IMAGE_MEAN, IMAGE_STD, Sample, collate
from tests.commands import command


def test_calls_take_turns_after_the_rounds_that_warm_up():
    order = []
    seconds = common.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warm_up=1)
    assert "".join(order) == "ab" + "abab"
    assert {name: (len(of_call["wall"]), len(of_call["processor"])) for name, of_call in seconds.items()} == {
        "a": (2, 2),
        "b": (2, 2),
    }
    assert all(value >= 0 for of_call in seconds.values() for values in of_call.values() for value in values)


def test_the_ratio_is_of_the_medians_and_above_1_where_ours_is_faster():
    plain = common.compare({"step": {"ours": [1.0, 9.0, 2.0], "torchvision": [4.0, 6.0, 5.0]}})
    assert plain["seconds"] == {"step": {"ours": 2.0, "torchvision": 5.0}} and plain["ratio"] == {"step": 2.5}
    assert plain["all_seconds"]["step"]["ours"] == [1.0, 9.0, 2.0]
    kinds = {"ours": {"wall": [2.0], "processor": [1.0]}, "torchvision": {"wall": [3.0], "processor": [4.0]}}
    assert common.compare({"step": kinds})["ratio"] == {"step": {"wall": 1.5, "processor": 4.0}}


def test_the_table_is_in_milliseconds():
    header, row = common.comparison_table([("training step", 0.25, 0.5, 2.0)]).splitlines()
    assert header.split() == ["ours", "torchvision", "ratio"]
    assert row.split() == ["training", "step", "250", "ms", "500", "ms", "2.00x"] and len(row) == len(header)


def test_a_benchmark_writes_its_record_and_prints_the_table(tmp_path, monkeypatch):
    parser = common.make_parser("What it measures")
    parser.add_argument("--rounds", type=int, default=1)
    monkeypatch.setattr("sys.argv", ["bench", "--rounds", "3", "--out", str(tmp_path / "new")])
    started = lambda _: common.run_benchmark(  # noqa: E731
        "turns", parser, lambda options: {"rounds": options.rounds}, lambda record: f"{record['rounds']} rounds"
    )
    _, output, _ = command(started, [])
    record = json.loads((tmp_path / "new" / "turns.json").read_text())
    assert record["rounds"] == 3 and record["provenance"]["started"] <= record["provenance"]["finished"]
    assert output.splitlines() == ["3 rounds", "", f"record: {tmp_path / 'new' / 'turns.json'}"]


@pytest.fixture
def batch():
    """Two images of 4 x 6 and 2 x 3 pixels in a batch of 8 x 8, with one object and with two."""
    samples = []
    for index, (height, width, count) in enumerate([(4, 6, 1), (2, 3, 2)]):
        image = torch.full((3, height, width), 51 * (index + 1), dtype=torch.uint8)
        boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [1.0, 1.0, 3.0, 2.0]])[:count]
        masks = torch.zeros(count, height, width, dtype=torch.uint8)
        masks[:, 0, :2] = 1
        samples.append(Sample(image, boxes, torch.tensor([3, 5])[:count], masks, index + 1))
    return collate(samples, 3, size=(8, 8))


def test_a_batch_in_torchvisions_form_has_no_padding(batch):
    assert (len(IMAGE_MEAN), len(IMAGE_STD)) == (3, 3)
    images, targets = common.as_list(batch)
    assert [image.shape for image in images] == [(3, 4, 6), (3, 2, 3)]
    for image, level in zip(images, (0.2, 0.4), strict=True):  # 51 and 102 of 255
        torch.testing.assert_close(image, torch.full_like(image, level), atol=1e-5, rtol=0)
    assert [target["labels"].tolist() for target in targets] == [[3], [3, 5]]
    assert targets[1]["boxes"].tolist() == [[0, 0, 2, 1], [1, 1, 3, 2]]
    assert targets[1]["masks"].shape == (2, 2, 3) and targets[1]["masks"].sum() == 4


def test_a_training_step_minimises_the_sum_of_the_losses():
    network = torch.nn.Linear(1, 1, bias=False)
    frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
    network.register_parameter("frozen", frozen)
    with torch.no_grad():
        network.weight.fill_(1.0)
    step = common.training_step(network, lambda: {"a": network.weight.sum(), "b": 2 * network.weight.sum()})
    step(), step()
    assert network.weight.grad.item() == 3  # of the second step alone
    assert network.weight.item() < 1 and frozen.item() == 1


def test_every_step_draws_the_same_numbers():
    assert torch.equal(common.draw("rois", (2, 3)), common.draw("rois", (2, 3)))
    assert not torch.equal(common.draw("rois", (2, 3)), common.draw("anchors", (2, 3)))
