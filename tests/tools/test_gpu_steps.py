"""tools/gpu/steps.py tells a network that learns from one that does not."""

import math
from itertools import repeat

import pytest
import torch
from gpu.steps import MUST_FALL_TO, train
from torch import nn


@pytest.mark.parametrize(("rate", "learned"), [(3e-2, True), (0.0, False)])
def test_a_network_that_learns_and_one_that_stands_still(rate: float, learned: bool) -> None:
    x, labels = torch.randn(20, 5), torch.arange(20) % 4
    network = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 4))
    row = train(network, repeat((x, labels)), 100, "cpu", "float32", network, rate)
    assert row["learned"] is learned
    assert row["steps"] == 100
    assert (row["last loss"] <= MUST_FALL_TO * math.log(4)) is learned
    assert (row["first loss"] == row["last loss"]) is not learned
