"""A training that resumes from a checkpoint ends like an uninterrupted one; an unusable checkpoint is reported."""

import dataclasses
import errno
import os
import pickle
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ablations.config.schema import CheckpointConfig, ScheduleConfig
from ablations.errors import Stopped
from ablations.records import storage
from ablations.training import stopping
from ablations.training.checkpoint import Checkpoint
from ablations.training.loop import TrainingSpec, fit

STEPS = 8
EVERY_STEP = CheckpointConfig(steps=1)


@pytest.fixture(autouse=True)
def reset_stopping():
    yield
    stopping.stop_when(lambda: False)


def network():
    """With batch normalisation, dropout and channels last: every kind of state that training has."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Dropout(0.3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 2)).to(memory_format=torch.channels_last).train()


def train(path, log, owner="me", precision="float32", stop_after=None, every=EVERY_STEP, optimizer="adamw"):
    """(weights, Fit, logged lines, Checkpoint) of a training; stop_after: steps after which it is asked to stop."""
    model, lines = network(), []
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    steps = []

    def losses(step, micro_batch):
        steps.append(step)
        out = model(images.to(memory_format=torch.channels_last) + 0.1 * step).float()
        return {"a": out.square().mean(), "b": (out - 1).abs().mean()}

    stopping.stop_when(lambda: stop_after is not None and len(steps) == stop_after)
    checkpoint = Checkpoint(path, owner, every, log)
    lines += checkpoint.state.logged
    add_line = lambda step, values: lines.append((step, values))  # noqa: E731
    schedule = ScheduleConfig(steps=STEPS, lr=0.01, pretrained_lr=0.5, optimizer=optimizer)
    try:
        done = fit(TrainingSpec(model, losses, schedule, precision, pretrained=model[0]), add_line, 2, checkpoint)
    except Stopped:
        done = None
    return model.state_dict(), done, lines, checkpoint


@pytest.mark.parametrize(
    "optimizer, precision",
    [("adamw", "float32"), ("adamw", "bfloat16"), ("adamw", "float16"), ("sgd", "float32"), ("sgd", "float16")],
)
@pytest.mark.parametrize("stops", [[1], [4], [7], [8], [2, 3, 1]])
def test_an_interrupted_training_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path, log, optimizer, precision, stops):
    settings = {"optimizer": optimizer, "precision": precision}
    expected, whole, lines, _ = train(tmp_path / "a", log, **settings)
    for stop in stops:
        assert train(tmp_path / "b", log, stop_after=stop, **settings)[1] is None
    weights, again, relined, checkpoint = train(tmp_path / "b", log, **settings)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert again.losses == whole.losses and relined == lines and [step for step, _ in lines] == [0, 2, 4, 6]
    assert checkpoint.state.resumed == [sum(stops[: i + 1]) for i in range(len(stops))]
    assert f"resuming at step {sum(stops)}" in log.file.getvalue()


def test_there_is_one_checkpoint_and_none_after_it_is_removed(tmp_path, log):
    *_, checkpoint = train(tmp_path / "c", log, stop_after=5)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["c"]
    checkpoint.remove()
    checkpoint.remove()
    assert not (tmp_path / "c").exists()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def truncated(path, _):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path, _):
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def emptied(path, _):
    path.write_bytes(b"")


def pickled(path, _):
    path.write_bytes(pickle.dumps(Bomb(path.with_name("exploded"))))


def of_another_kind(path, _):
    save_file({"x": torch.zeros(3)}, path)


def of_another_owner(path, log):
    path.unlink()
    train(path, log, owner="somebody else", stop_after=5)


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, pickled, of_another_kind, of_another_owner])
def test_an_unusable_checkpoint_is_reported_and_training_starts_from_the_beginning(tmp_path, log, damage):
    expected, *_ = train(tmp_path / "a", log)
    train(tmp_path / "b", log, stop_after=4)
    damage(tmp_path / "b", log)
    weights, _, lines, checkpoint = train(tmp_path / "b", log)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert "training starts from the beginning" in log.file.getvalue() and checkpoint.state.resumed == []
    assert len(lines) == 4 and not (tmp_path / "exploded").exists()


def test_on_a_full_disk_training_continues_without_new_checkpoints(tmp_path, log, monkeypatch):
    expected, *_ = train(tmp_path / "a", log)
    train(tmp_path / "b", log, stop_after=3)
    before = (tmp_path / "b").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    weights, *_ = train(tmp_path / "b", log)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert "no checkpoint at step 4: No space left on device" in log.file.getvalue()
    assert (tmp_path / "b").read_bytes() == before and not list(tmp_path.glob(".*.tmp"))


def test_checkpoints_are_written_by_time_and_take_a_small_share_of_it(tmp_path, log, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "c", "me", CheckpointConfig(seconds=30), log)
    now[0] = 129.9
    assert not checkpoint.due(7)
    now[0] = 130.0
    assert checkpoint.due(7)
    checkpoint.cost = 2.0  # writing the last one took two seconds: the next may come 200 seconds after it
    assert not checkpoint.due(7)
    now[0] = 300.0
    assert checkpoint.due(7)
    by_steps = dataclasses.replace(checkpoint.every, steps=5)
    assert [step for step in range(1, 11) if Checkpoint(tmp_path / "c", "me", by_steps, log).due(step)] == [5, 10]


def test_a_clock_that_jumps_changes_no_result(tmp_path, log, monkeypatch):
    expected, *_ = train(tmp_path / "a", log)
    hours = iter([0, 10**6, -(10**6), 5, -7] * 10**4)
    monkeypatch.setattr(time, "time", lambda: 1.8e9 + 3600 * next(hours))
    train(tmp_path / "b", log, stop_after=4)
    os.utime(tmp_path / "b", (0, 0))
    weights, done, *_ = train(tmp_path / "b", log)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert 0 < done.seconds_per_step < done.seconds < 60
