"""Lovász-softmax against its definition by a set function, class weights by hand, and errors."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geonorm.losses import inverse_log_weights, lovasz_softmax


def example(rows: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (rows,), generator=generator)


def jaccard_loss(wrong: frozenset[int], members: frozenset[int]) -> float:
    return len(wrong) / len(wrong | members) if wrong | members else 0.0


def errors(logits: Tensor, labels: Tensor, which: int) -> tuple[list[float], frozenset[int]]:
    p = logits.softmax(1)[:, which]
    hit = labels == which
    return torch.where(hit, 1 - p, p).tolist(), frozenset(hit.nonzero().flatten().tolist())


def by_integral(logits: Tensor, labels: Tensor) -> float:
    """Integrate the set function over the sets of rows at least so wrong, from 0 to 1."""
    each = []
    for which in labels.unique().tolist():
        wrong, members = errors(logits, labels, which)
        total, below = 0.0, 0.0
        for level in sorted(wrong):
            above = frozenset(i for i, m in enumerate(wrong) if m >= level)
            total += (level - below) * jaccard_loss(above, members)
            below = level
        each.append(total)
    return sum(each) / len(each)


def by_permutations(logits: Tensor, labels: Tensor) -> float:
    """Take the largest sum of steps over every order: the extension of a submodular function."""
    each = []
    for which in labels.unique().tolist():
        wrong, members = errors(logits, labels, which)
        sums = []
        for order in itertools.permutations(range(len(wrong))):
            sets = [frozenset(order[:i]) for i in range(len(wrong) + 1)]
            steps = [jaccard_loss(b, members) - jaccard_loss(a, members)
                     for a, b in itertools.pairwise(sets)]  # fmt: skip
            sums.append(sum(wrong[i] * step for i, step in zip(order, steps, strict=True)))
        each.append(max(sums))
    return sum(each) / len(each)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 12), classes=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_lovasz_is_the_integral_of_its_set_function(rows: int, classes: int, seed: int) -> None:
    logits, labels = example(rows, classes, seed)
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(
        by_integral(logits, labels), abs=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_is_the_largest_over_every_order(seed: int) -> None:
    logits, labels = example(6, 3, seed)
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(
        by_permutations(logits, labels), abs=1e-13)


def test_lovasz_of_certain_scores_is_one_minus_the_iou() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    said = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = torch.nn.functional.one_hot(said, 4).double() * 1e3
    expected = 1 - (2 / 3 + 1 / 3 + 1 / 2) / 3  # the fourth class is absent
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(expected, abs=1e-12)


def test_each_instance_for_itself_in_any_order() -> None:
    sizes = (5, 1, 9, 4)
    parts = [example(size, 4, seed) for seed, size in enumerate(sizes)]
    parts[3][1].fill_(255)  # without a label, it counts for nothing
    parts[2][1][::3] = 255
    logits, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    index = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(5))
    known = parts[2][1] != 255
    alone = [by_integral(*parts[0]), by_integral(*parts[1]),
             by_integral(parts[2][0][known], parts[2][1][known])]  # fmt: skip
    found = lovasz_softmax(logits[order], labels[order], index[order], 4)
    assert float(found) == pytest.approx(sum(alone) / 3, abs=1e-13)
    together = lovasz_softmax(logits, labels)
    assert abs(float(found - together)) > 1e-3


def test_gradients_of_lovasz() -> None:
    logits, labels = example(9, 3)
    labels[4] = 255
    index = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1, 2])
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, labels, index), logits)
    lovasz_softmax(logits, labels, index).backward()
    assert (logits.grad[4] == 0).all()
    assert (logits.grad[[0, 1, 8]].abs().sum(1) > 0).all()


def test_another_label_may_stand_for_none() -> None:
    logits, labels = example(9, 3)
    expected = lovasz_softmax(logits[1:], labels[1:])
    labels[0] = -1
    assert float(lovasz_softmax(logits, labels, ignore_index=-1)) == pytest.approx(float(expected))


def test_lovasz_of_many_rows_keeps_its_digits() -> None:
    logits, labels = example(200_000, 5)
    exact = lovasz_softmax(logits, labels)
    single = lovasz_softmax(logits.float(), labels)
    assert float(single) == pytest.approx(float(exact), rel=2e-6)
    half = lovasz_softmax(logits.bfloat16(), labels)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(exact), rel=1e-2)


def test_lovasz_of_nothing_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = lovasz_softmax(logits, torch.full((4,), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (logits.grad == 0).all()
    assert float(lovasz_softmax(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))) == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.zeros(4, dtype=torch.int64)}, ValueError, r"labels \(N,\); got \(5, 3\)"),
        ({"logits": torch.zeros(5)}, ValueError, r"expected logits \(N, K\)"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0])}, ValueError,
         r"classes in \[0, 3\) or 255; got 0 to 3"),
        ({"labels": torch.tensor([0, -1, 2, 0, 0])}, ValueError, r"or 255; got -1 to 2"),
        ({"labels": torch.zeros(5)}, TypeError, "labels must be integers; got torch.float32"),
        ({"batch_index": torch.zeros(2, dtype=torch.int64)}, ValueError,
         r"batch_index must be \(5,\), the instance of each row; got \(2,\)"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(change: dict, error: type[Exception], message: str) -> None:
    given = {"logits": torch.zeros(5, 3), "labels": torch.zeros(5, dtype=torch.int64)}
    with pytest.raises(error, match=message):
        lovasz_softmax(**(given | change))


def test_class_weights_by_hand() -> None:
    weights = inverse_log_weights(torch.tensor([60, 30, 10, 0]))
    expected = [1 / math.log(1.02 + share) for share in (0.6, 0.3, 0.1, 0)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("counts", [[0, 0], [3, -1], [[1, 2]], []])
def test_counts_that_are_none(counts: list) -> None:
    with pytest.raises(ValueError, match=r"counts must be \(K,\) numbers of points, not all"):
        inverse_log_weights(torch.tensor(counts))
