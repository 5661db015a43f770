"""segment_norm under autograd and torch.compile: derivatives, opcheck, one graph."""

import pytest
import torch
from conftest import relative_error

from helpers.segment_norm_cases import (
    FLOAT32,
    batch,
    parameters,
    results,
    segment_norm,
    upstream_of,
)

SMALL = (4, 0, 1, 3)


def small(dtype=torch.float64):
    rows, index = batch(SMALL, channels=4, dtype=dtype, seed=6)
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(5), dtype=dtype) + 0.2
    return rows.requires_grad_(), index, weights


@pytest.mark.parametrize("affine", [(4,), (4, 4)])
@pytest.mark.parametrize(("activation", "groups", "weighted"), [
    ("none", 4, False), ("none", 2, True), ("relu", 1, False), ("leaky_relu", 4, True),
])
def test_gradcheck_and_gradgradcheck(backend, affine, activation, groups, weighted):
    rows, index, weights = small()
    weight, bias = (p.requires_grad_() for p in parameters(affine, torch.float64))

    def function(rows, weight, bias):
        return segment_norm(
            rows, index, 4, weight, bias, weights if weighted else None, groups, eps=0.1,
            activation=activation, slope=0.3)

    assert torch.autograd.gradcheck(function, (rows, weight, bias))
    assert torch.autograd.gradgradcheck(function, (rows, weight, bias))


def test_without_affine(backend):
    rows, index, _ = small()

    def function(rows):
        return segment_norm(rows, index, 4, eps=0.1)

    assert torch.autograd.gradcheck(function, rows)
    assert torch.autograd.gradgradcheck(function, rows)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_are_differentiable_twice(backend, groups, weighted):
    rows, index, weights = small()

    def function(rows):
        return torch.ops.geonorm.segment_stats(
            rows, index, 4, weights if weighted else None, groups)

    assert torch.autograd.gradcheck(function, rows)
    assert torch.autograd.gradgradcheck(function, rows)


def test_third_derivative_is_the_formulas(backend):
    def third(function):
        x = torch.linspace(-1, 2, 12, dtype=torch.float64).pow(3).reshape(6, 2).requires_grad_()
        value = (function(x) ** 3).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = gradient.pow(2).sum()
        return gradient

    def formula(x):
        centred = x - x.mean(0)
        return centred / (centred.square().mean(0) + 1e-5).sqrt()

    index = torch.zeros(6, dtype=torch.long)
    assert relative_error(third(lambda x: segment_norm(x, index, 1)), third(formula)) < 1e-8


def test_saved_statistics_carry_no_gradient(backend):
    rows, index, _ = small()
    out, *saved = torch.ops.geonorm.segment_norm(
        rows, index, 4, None, None, None, 4, 1e-5, "none", 0.0)
    assert out.requires_grad
    assert not any(tensor.requires_grad for tensor in saved)


# opcheck itself reads .grad of the non-leaf copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(("dtype", "affine", "groups"), [
    (torch.float32, (5,), 5), (torch.float32, (7, 5), 1), (torch.bfloat16, (5,), 5),
    (torch.float64, None, 5),
])
def test_opcheck(backend, dtype, affine, groups):
    rows, index = batch(dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)
    weight, bias = (None, None) if affine is None else parameters(affine, wide)
    inputs = [p if p is None else p.requires_grad_() for p in (rows, weight, bias)]
    weights = torch.rand(len(rows), dtype=wide)
    torch.library.opcheck(
        torch.ops.geonorm.segment_norm,
        (inputs[0], index, 7, weights, *inputs[1:], groups, 1e-5, "leaky_relu", 0.1))
    torch.library.opcheck(torch.ops.geonorm.segment_stats, (inputs[0], index, 7, weights, groups))
    with torch.no_grad():
        plain = [None if p is None else p.detach() for p in inputs]
        out, *stats = torch.ops.geonorm.segment_norm(
            plain[0], index, 7, weights, *plain[1:], groups, 1e-5, "none", 0.0)
        torch.library.opcheck(
            torch.ops.geonorm.segment_norm_backward,
            (out, plain[0], index, *stats, weights, *plain[1:], groups, "relu", 0.0))


@pytest.mark.parametrize("strided", [False, True])
def test_compiles_into_one_graph(backend, strided):
    torch.compiler.reset()
    compiled = torch.compile(segment_norm, fullgraph=True, backend="aot_eager", dynamic=True)
    weight, bias = parameters(5)
    for sizes in ((9, 0, 4), (20, 1, 7)):  # another number of rows runs the same graph
        rows, index = batch(sizes, channels=10 if strided else 5)
        rows = rows[:, ::2] if strided else rows
        arguments = (rows, index, 3, weight, bias, upstream_of(rows))
        found, eager = results(compiled, *arguments), results(segment_norm, *arguments)
        for one, other in zip(found, eager, strict=True):
            assert relative_error(one, other) < FLOAT32
        assert found[0].stride() == eager[0].stride()


def test_statistics_compile_into_one_graph(backend):
    torch.compiler.reset()
    rows, index = batch()

    def loss(rows):
        mean, var = torch.ops.geonorm.segment_stats(rows * 2, index, 7, None, 5)
        return (mean * var).sum()

    leaf = rows.requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(leaf), leaf)
    (eager,) = torch.autograd.grad(loss(leaf), leaf)
    assert relative_error(found, eager) < FLOAT32


def test_equal_runs_are_bit_equal(backend, poisoned):
    rows, index = batch((5000, 3, 20_000, 0, 700), channels=7)
    arguments = (rows, index, 5, *parameters(7), upstream_of(rows))
    for one, other in zip(results(segment_norm, *arguments), results(segment_norm, *arguments),
                          strict=True):
        assert torch.equal(one, other)
