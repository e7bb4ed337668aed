"""What an object's pixels are lost to, on masks that can be counted by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ablations.config.loading import from_hydra
from ablations.exhibits import competition
from ablations.exhibits.competition import MaskLogits, lost_pixels, mask_iou, typical
from reports.exhibits.competition import strongest_rival

SHARES = [
    # background, class 1 (the object's), class 2: one cell each of a 2 x 2 mask
    [0.1, 0.8, 0.1],  # kept
    [0.7, 0.2, 0.1],  # lost to the background
    [0.1, 0.3, 0.6],  # lost to class 2
    [0.3, 0.4, 0.3],  # class 1 leads without having half
]


def objects(shares, target=(1, 1, 1, 1), labels=(1,), image=1):
    logits = torch.tensor(shares).log().T.reshape(1, -1, 2, 2)
    target = torch.tensor(target, dtype=torch.float32).reshape(1, 2, 2)
    return MaskLogits(logits, target, torch.tensor(labels), torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([image]))


def test_every_lost_cell_has_one_cause():
    lost = lost_pixels(objects(SHARES), competing=True)
    assert lost == {
        "left_out": 75.0,
        "to_background": 25.0,
        "to_classes": 25.0,
        "undecided": 25.0,
    }


def test_cells_outside_the_object_do_not_count():
    lost = lost_pixels(objects(SHARES, target=(1, 1, 0, 0)), competing=True)
    assert lost == {"left_out": 50.0, "to_background": 50.0, "to_classes": 0.0, "undecided": 0.0}


def test_sigmoid_masks_are_read_at_the_objects_class_only():
    logits = torch.tensor([[3.0, 3.0, -3.0, 3.0], [9.0, 9.0, 9.0, 9.0]]).reshape(1, 2, 2, 2)
    read = MaskLogits(logits, torch.ones(1, 2, 2), torch.tensor([1]), torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([1]))
    assert lost_pixels(read, competing=False) == {"left_out": 25.0}
    assert mask_iou(read, competing=False).tolist() == [0.75]


def test_the_typical_object_has_the_median_difference_in_iou():
    good, bad = [[0.05, 0.9, 0.05]] * 4, [[0.9, 0.05, 0.05]] * 4
    parts = [objects(shares, image=image) for image, shares in enumerate([good, SHARES, bad])]
    softmax = MaskLogits(*(torch.cat(values) for values in zip(*(p.__dict__.values() for p in parts), strict=True)))
    sigmoid = MaskLogits(torch.full((3, 2, 2, 2), 5.0), *list(softmax.__dict__.values())[1:])
    shown = typical({"softmax": softmax, "sigmoid": sigmoid}, ["star", "disk"])
    assert shown["image_id"] == 1 and shown["class"] == "star" and shown["gap"] == pytest.approx(0.75)
    assert shown["softmax"]["disk"] == [[pytest.approx(0.1), pytest.approx(0.1)], [pytest.approx(0.6), 0.3]]
    assert strongest_rival(shown) == "disk"


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_mildest_rule_is_the_one_with_the_highest_ap_of_the_run(kind, monkeypatch):
    by_rule = {"share": (30.0, 55.0, 29.0), "argmax": (33.0, 56.0, 31.0), "background": (32.0, 58.0, 34.0)}
    metrics_of = lambda values: dict(zip(competition.METRICS, values, strict=True))  # noqa: E731
    monkeypatch.setattr(competition, "ap_under", lambda rule, model, run: metrics_of(by_rule[rule]))
    record = SimpleNamespace(metrics={"segm": metrics_of((45.0, 80.0, 46.0)) | {"APs": 20.0}})
    monkeypatch.setattr(competition, "load_run", lambda path: record)
    run = SimpleNamespace(folder=Path("run"), config=SimpleNamespace(mask_loss=SimpleNamespace(kind=kind)))
    metrics = competition.rule_metrics(None, run)
    assert len(metrics) == 12
    mildest = [metrics[f"{name}_mildest"] for name in competition.METRICS]
    assert mildest == ([33.0, 56.0, 31.0] if kind == "softmax" else [45.0, 80.0, 46.0])
    assert metrics["AP75_background"] == (34.0 if kind == "softmax" else 46.0)


def test_other_ranks_get_the_rule_too(compose, monkeypatch):
    """They build their network from the configuration; the objective that rank 0 sets never reaches them."""
    detected = []
    val = SimpleNamespace(classes=["star", "disk"], coco=None)
    stages_of = lambda config: SimpleNamespace(evaluated=val, config=config)  # noqa: E731
    monkeypatch.setattr(competition, "stages_of", stages_of)
    monkeypatch.setattr(competition, "detect", lambda model, stages: detected.append((model, stages.config)))
    monkeypatch.setattr(competition, "average_precision", lambda *_: dict.fromkeys(competition.METRICS))
    run = SimpleNamespace(config=from_hydra(compose(["mask_loss=softmax"])))
    competition.ap_under("argmax", SimpleNamespace(mask_objective=None), run)
    ((model, config),) = detected
    assert model.mask_objective.rule == config.mask_loss.rule == "argmax" != run.config.mask_loss.rule
    assert config.mask_loss.kind == "softmax"
