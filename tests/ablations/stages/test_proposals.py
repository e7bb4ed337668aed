"""Cached proposals follow their images."""

import pytest
import torch

from ablations.stages.proposals import proposals_of
from data.dataset import Sample, collate
from models.structures import Proposals


def test_proposals_are_mirrored_with_their_images():
    cached = Proposals(torch.tensor([[[0.0, 0, 1, 1]], [[10.0, 5, 30, 25]]]), torch.tensor([[0.1], [0.9]]))
    image = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64),
                   torch.zeros(0, 64, 64, dtype=torch.uint8), image_id=1)  # fmt: skip
    batch = collate([image], flipped=[True], indices=[1])
    proposals = proposals_of(cached, batch, torch.device("cpu"))
    assert proposals.boxes.tolist() == [[[34, 5, 54, 25]]] and proposals.scores.tolist() == [[pytest.approx(0.9)]]
