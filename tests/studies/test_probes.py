"""Linear probes: they find what is there, and nothing beneath the floor."""

import pytest
import torch

from geonorm.studies.probes import accuracy, explained


def features(count: int = 300) -> torch.Tensor:
    return torch.randn(count, 12, dtype=torch.float64)


def test_a_linear_quantity_is_found_and_another_is_not() -> None:
    x = features()
    target = x @ torch.randn(12, dtype=torch.float64) * 7 + 100
    assert explained(x, target) > 0.99
    assert explained(x, torch.randn(300, dtype=torch.float64)) < 0.1


def test_share_that_is_explained() -> None:
    x = features(4000)
    signal = x[:, 0] + x[:, 1]  # variance 2
    target = signal + 2**0.5 * torch.randn(4000, dtype=torch.float64)
    assert explained(x, target) == pytest.approx(0.5, abs=0.05)


def test_classes_are_found_and_others_are_at_chance() -> None:
    x = features(600)
    classes = torch.randint(4, (600,))
    x[torch.arange(600), classes] += 6  # each class stands out in a feature of its own
    assert accuracy(x, classes) > 0.95
    assert accuracy(x, torch.randint(4, (600,))) == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("size", [1e-3, 1e-6])
def test_what_is_smaller_than_the_floor_is_not_found(size: float) -> None:
    target = torch.randn(600, dtype=torch.float64)
    x = torch.ones(600, 4, dtype=torch.float64)
    x[:, 2] += size * target
    assert explained(x, target, floor=0.0) > 0.99
    assert explained(x, target) < 0.1
    assert accuracy(x, (target > 0).long(), floor=0.0) > 0.9
    assert accuracy(x, (target > 0).long()) < 0.65


def test_the_floor_is_relative_to_all_features() -> None:
    target = torch.randn(600, dtype=torch.float64)
    x = torch.stack([1e-6 * target, torch.zeros(600, dtype=torch.float64)], 1)
    assert explained(x, target) > 0.9  # small, but there is nothing larger beside it


def test_scores_are_of_frames_that_were_held_out() -> None:
    x = torch.randn(60, 50, dtype=torch.float64)  # enough features to learn any 48 by heart
    assert explained(x, torch.randn(60, dtype=torch.float64)) < 0.3
