"""segment_norm's tail act(norm(x) · weight + bias + residual): output and every gradient."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from helpers.segment_norm_cases import (
    FLOAT32,
    batch,
    by_torch,
    exact_results,
    parameters,
    results,
    segment_norm,
    upstream_of,
)

NAMES = ("out", "rows", "weight", "bias", "residual")
ACTIVATIONS = ("none", "relu", "leaky_relu")
SIZES = (3, 0, 40, 1, 700, 0)
LAYOUTS = {
    "contiguous": lambda wide: wide[:, :5].contiguous(),
    "transposed": lambda wide: wide.t().contiguous().t()[:, :5],
    "columns": lambda wide: wide[:, 1::2],
    "rows": lambda wide: wide.repeat_interleave(2, 0)[::2, :5],
    "expanded": lambda wide: wide[:, :1].expand(len(wide), 5),
}


def residual_of(rows, layout="contiguous", seed=77):
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(len(rows), 10, generator=generator, dtype=torch.float64)
    return LAYOUTS[layout](wide.to(rows.dtype))


def compare(found, exact, tolerance):
    for name, actual, expected in zip(NAMES, found, exact, strict=True):
        assert relative_error(actual, expected) < tolerance, name


@pytest.mark.parametrize(("activation", "out", "grad_residual"), [
    ("none", [1.0, -2.0], [10.0, 20.0]), ("relu", [1.0, 0.0], [10.0, 0.0]),
    ("leaky_relu", [1.0, -0.5], [10.0, 5.0]),
])
def test_worked_by_hand(backend, activation, out, grad_residual):
    rows, index = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0])  # mean 2, variance 1
    residual = torch.tensor([[2.0], [-3.0]], requires_grad=True)
    found = segment_norm(rows, index, 1, torch.tensor([2.0]), eps=3.0, activation=activation,
                         slope=0.25, residual=residual)  # 2 · ∓1 / √(1 + 3) + residual
    torch.testing.assert_close(found, torch.tensor([out]).t())
    found.backward(torch.tensor([[10.0], [20.0]]))
    torch.testing.assert_close(residual.grad, torch.tensor([grad_residual]).t())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("mean", "interleaved", "affine", "groups"), [
    (0.0, True, 5, 5), (1e4, False, (6, 5), 1), (1e4, True, 5, 5),
])
def test_output_and_gradients_against_float64(
        backend, poisoned, activation, layout, mean, interleaved, affine, groups):
    rows, index = batch(SIZES, mean=mean, interleaved=interleaved)
    arguments = (rows, index, len(SIZES), *parameters(affine), upstream_of(rows))
    options = {"groups": groups, "activation": activation, "slope": 0.2,
               "residual": residual_of(rows, layout)}
    found, exact = results(segment_norm, *arguments, **options), exact_results(
        *arguments, **options)
    compare(found, exact, FLOAT32)
    assert found[0].is_contiguous()
    if activation != "none":  # the control: the activation comes after the residual
        late = exact_results(*arguments, **options | {"residual": None})[0] + options["residual"]
        assert relative_error(late, exact[0]) > 0.1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sorted_rows_and_row_weights(backend, poisoned, activation):
    sizes = (300,) * 60  # written while they are in the cache
    rows, index = batch(sizes, interleaved=False)
    arguments = (rows, index, len(sizes), *parameters(5), upstream_of(rows))
    weights = torch.arange(len(rows)).remainder(3).add(1.0)
    options = {"row_weights": weights, "activation": activation, "slope": 0.2,
               "residual": residual_of(rows)}
    compare(results(segment_norm, *arguments, **options),
            exact_results(*arguments, **options), FLOAT32)


@pytest.mark.parametrize("channels", [1, 33])
def test_other_numbers_of_channels(backend, poisoned, channels):
    rows, index = batch(channels=channels)
    arguments = (rows, index, 7, *parameters(channels), upstream_of(rows))
    options = {"activation": "relu", "residual": upstream_of(rows, 12)}
    compare(results(segment_norm, *arguments, **options),
            exact_results(*arguments, **options), FLOAT32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_is_no_further_from_float64_than_separate_calls(
        backend, dtype, activation):
    rows, index = batch((50, 3, 400, 1), mean=3.0)
    rows, upstream = rows.to(dtype), upstream_of(rows).to(dtype)
    residual = residual_of(rows)
    arguments = (rows, index, 4, *parameters(5), upstream)

    def separate(*args, residual):
        out = segment_norm(*args) + residual
        return {"none": out, "relu": F.relu(out), "leaky_relu": F.leaky_relu(out, 0.2)}[activation]

    options = {"activation": activation, "slope": 0.2}
    found = results(segment_norm, *arguments, residual=residual, **options)
    apart = results(separate, *arguments, residual=residual)
    exact = exact_results(*arguments, residual=residual, **options)
    assert found[0].dtype == found[4].dtype == dtype
    assert relative_error(found[0], exact[0]) < relative_error(apart[0], exact[0])
    for name, one, other, true in zip(NAMES, found, apart, exact, strict=True):
        assert relative_error(one, true) <= 1.02 * relative_error(other, true), name


def test_zeros_change_nothing(backend):
    rows, index = batch()
    weight, bias = parameters(5)
    for activation in ACTIVATIONS:
        plain = segment_norm(rows, index, 7, weight, bias, activation=activation)
        added = segment_norm(rows, index, 7, weight, bias, activation=activation,
                             residual=torch.zeros_like(rows))
        assert torch.equal(plain, added)


def test_no_rows(backend):
    rows, index = batch((0, 0))
    found = results(segment_norm, rows, index, 2, *parameters(5), rows, residual=rows,
                    activation="relu")
    assert found[0].shape == found[4].shape == (0, 5)
    assert all(not tensor.any() for tensor in found[2:])


@pytest.mark.parametrize("asked", [0, 4])
def test_what_asks_for_no_gradient_gets_none(backend, asked):
    rows, index = batch()
    leaves = [rows.clone(), residual_of(rows)]
    leaves[asked == 4].requires_grad_()
    out = segment_norm(leaves[0], index, 7, activation="relu", residual=leaves[1])
    out.backward(upstream_of(rows))
    exact = exact_results(rows, index, 7, torch.ones(5), torch.zeros(5), upstream_of(rows),
                          activation="relu", residual=residual_of(rows))
    assert relative_error(leaves[asked == 4].grad, exact[1 if asked == 0 else 4]) < FLOAT32
    assert leaves[asked == 0].grad is None


def test_a_result_that_the_gradient_needs_may_not_be_changed(backend):
    rows, index = batch()
    for activation, needed in (("none", False), ("relu", True)):
        leaf = rows.clone().requires_grad_()
        out = segment_norm(leaf, index, 7, activation=activation, residual=residual_of(rows))
        out.mul_(2)  # as after torch.relu
        if needed:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                out.sum().backward()
        else:
            out.backward(upstream_of(rows))
            (exact,) = torch.autograd.grad(by_torch(leaf.double(), index, 7) * 2, leaf,
                                           upstream_of(rows).double())
            assert relative_error(leaf.grad, exact) < FLOAT32


@pytest.mark.parametrize(("activation", "groups", "weighted"), [
    ("none", 4, True), ("relu", 2, False), ("leaky_relu", 4, True),
])
def test_gradcheck_and_gradgradcheck(backend, activation, groups, weighted):
    rows, index = batch((4, 0, 1, 3), channels=4, dtype=torch.float64, seed=6)
    weights = torch.linspace(0.5, 2, len(rows), dtype=torch.float64) if weighted else None
    residual = torch.randn(8, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (rows, *parameters((4, 4), torch.float64), residual)]

    def function(rows, weight, bias, residual):
        return segment_norm(rows, index, 4, weight, bias, weights, groups, eps=0.1,
                            activation=activation, slope=0.3, residual=residual)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


# opcheck itself reads .grad of the non-leaf copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("layout", ["contiguous", "columns"])
def test_opcheck_and_one_graph(backend, layout):
    rows, index = batch()
    weight, bias = parameters(5)
    residual = residual_of(rows, layout)
    torch.library.opcheck(torch.ops.geonorm.segment_norm, (
        rows.clone().requires_grad_(), index, 7, None, weight, bias, 5, 1e-5, "leaky_relu", 0.1,
        residual.clone().requires_grad_()))
    torch.compiler.reset()
    compiled = torch.compile(segment_norm, fullgraph=True, backend="aot_eager")
    arguments = (rows, index, 7, weight, bias, upstream_of(rows))
    options = {"activation": "relu", "residual": residual}
    compare(results(compiled, *arguments, **options),
            results(segment_norm, *arguments, **options), FLOAT32)
