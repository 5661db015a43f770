"""axis_norm's tail act(norm(x) · weight + bias + residual): output and every gradient."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from helpers.axis_norm_cases import (
    FLOAT32,
    LAYOUTS,
    SHAPE,
    axis_norm,
    by_torch,
    parameters,
    results,
    with_layout,
)

NAMES = ("out", "x", "weight", "bias", "residual")
ACTIVATIONS = ("none", "relu", "leaky_relu")


def randn(shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def residual_of(layout="contiguous"):
    return with_layout(layout).flip(0, 4) if layout == "contiguous" else with_layout(layout) * 0.7


def exact_results(*arguments, **options):
    residual = options.pop("residual")
    doubles = (v.double() if isinstance(v, torch.Tensor) else v for v in arguments)
    return results(by_torch, *doubles, residual=residual.double(), **options)


def compare(found, exact, tolerance):
    for name, actual, expected in zip(NAMES, found, exact, strict=True):
        assert relative_error(actual, expected) < tolerance, name


@pytest.mark.parametrize(("activation", "out", "grad_residual"), [
    ("none", [1.0, -2.0], [10.0, 20.0]), ("relu", [1.0, 0.0], [10.0, 0.0]),
    ("leaky_relu", [1.0, -0.5], [10.0, 5.0]),
])
def test_worked_by_hand(backend, activation, out, grad_residual):
    x = torch.tensor([[[1.0, 3.0]]])  # mean 2, variance 1
    residual = torch.tensor([[[2.0, -3.0]]], requires_grad=True)
    found = axis_norm(x, [2], torch.tensor([2.0]), eps=3.0, activation=activation, slope=0.25,
                      residual=residual)  # 2 · ∓1 / √(1 + 3) + residual
    torch.testing.assert_close(found, torch.tensor([[out]]))
    found.backward(torch.tensor([[[10.0, 20.0]]]))
    torch.testing.assert_close(residual.grad, torch.tensor([[grad_residual]]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("layout", "other"), [
    *((layout, layout) for layout in LAYOUTS),
    ("contiguous", "channels_last_3d"), ("channels_last_3d", "sliced"), ("permuted", "expanded"),
])
@pytest.mark.parametrize("axes", [[2, 3, 4], [2], [2, 4]])
def test_output_and_gradients_against_float64(
        backend, poisoned, axes, layout, other, activation):
    x, upstream = with_layout(layout), randn(SHAPE)
    options = {"activation": activation, "slope": 0.2, "residual": residual_of(other)}
    found = results(axis_norm, x, axes, *parameters(5), upstream, **options)
    exact = exact_results(x, axes, *parameters(5), upstream, **options)
    compare(found, exact, FLOAT32)
    assert found[0].stride() == torch.empty_like(x).stride()
    if activation != "none":  # the control: the activation comes after the residual
        late = by_torch(x, axes, *parameters(5), activation=activation) + options["residual"]
        assert relative_error(late, exact[0]) > 0.1


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize(("shape", "axes"), [
    ((2, 3, 9), [2]), ((2, 7, 5, 3), [2, 3]), ((300, 3, 4), [2]), ((1, 3, 1, 70, 900), [3, 4]),
    ((1, 2, 4, 90, 91), [2, 3, 4]),
])
def test_other_ranks_sizes_and_a_large_mean(backend, poisoned, shape, axes, mean):
    x, upstream, residual = randn(shape, 4) + mean, randn(shape, 5), randn(shape, 6)
    arguments = (x, axes, *parameters(shape[:2]), upstream)
    options = {"activation": "relu", "residual": residual}
    compare(results(axis_norm, *arguments, **options),
            exact_results(*arguments, **options), FLOAT32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d", "sliced"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_is_no_further_from_float64_than_separate_calls(
        backend, dtype, layout, activation):
    x, residual, upstream = (t.to(dtype) for t in (
        with_layout(layout), residual_of("sliced"), randn(SHAPE)))
    arguments = (x, [2, 3, 4], *parameters(5), upstream)

    def separate(*args, residual):
        out = axis_norm(*args) + residual
        return {"none": out, "relu": F.relu(out), "leaky_relu": F.leaky_relu(out, 0.2)}[activation]

    options = {"activation": activation, "slope": 0.2, "residual": residual}
    found = results(axis_norm, *arguments, **options)
    apart = results(separate, *arguments, residual=residual)
    exact = exact_results(*arguments, **options)
    assert found[0].dtype == found[4].dtype == dtype
    assert relative_error(found[0], exact[0]) < relative_error(apart[0], exact[0])
    for name, one, other, true in zip(NAMES, found, apart, exact, strict=True):
        assert relative_error(one, true) <= 1.02 * relative_error(other, true), name


def test_one_element_gives_bias_plus_residual(backend):
    x, residual = randn((3, 5, 1, 1, 1)), randn((3, 5, 1, 1, 1), 6)
    weight, bias = parameters(5)
    out, grad_x, *_ = results(axis_norm, x, [2, 3, 4], weight, bias, x, residual=residual)
    assert torch.equal(out, bias[:, None, None, None] + residual)
    assert not grad_x.any()


def test_an_empty_batch(backend):
    x = torch.zeros(0, 3, 4, 5)
    found = results(axis_norm, x, [2, 3], *parameters(3), x, residual=x, activation="relu")
    assert found[0].shape == found[4].shape == x.shape
    assert all(not tensor.any() for tensor in found[2:4])


def test_a_result_that_the_gradient_needs_may_not_be_changed(backend):
    for activation, needed in (("none", False), ("relu", True)):
        leaf, residual = with_layout("contiguous").requires_grad_(), residual_of()
        out = axis_norm(leaf, [2, 3, 4], activation=activation, residual=residual)
        out.mul_(2)  # as after torch.relu
        if needed:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                out.sum().backward()
        else:
            out.backward(randn(SHAPE))
            (exact,) = torch.autograd.grad(by_torch(leaf.double(), [2, 3, 4]) * 2, leaf,
                                           randn(SHAPE).double())
            assert relative_error(leaf.grad, exact) < FLOAT32


@pytest.mark.parametrize(("activation", "axes"), [
    ("none", [2]), ("relu", [3, 4]), ("leaky_relu", [2, 4]),
])
def test_gradcheck_and_gradgradcheck(backend, activation, axes):
    generator = torch.Generator().manual_seed(6)
    x, residual = torch.randn(2, 2, 2, 2, 2, 3, generator=generator, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, *parameters(2, torch.float64), residual)]

    def function(x, weight, bias, residual):
        return axis_norm(x, axes, weight, bias, eps=0.1, activation=activation, slope=0.3,
                         residual=residual)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


# opcheck itself reads .grad of the non-leaf copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(("layout", "other"), [
    ("contiguous", "channels_last_3d"), ("channels_last_3d", "contiguous"), ("sliced", "sliced"),
])
def test_opcheck_and_one_graph(backend, layout, other):
    x, residual, (weight, bias) = with_layout(layout), residual_of(other), parameters(5)
    torch.library.opcheck(torch.ops.geonorm.axis_norm, (
        x.clone().requires_grad_(), [2, 4], weight, bias, 1e-5, "leaky_relu", 0.1,
        residual.clone().requires_grad_()))
    torch.compiler.reset()
    compiled = torch.compile(axis_norm, fullgraph=True, backend="aot_eager")
    arguments = (x, [2, 3, 4], weight, bias, randn(SHAPE))
    options = {"activation": "relu", "residual": residual}
    compare(results(compiled, *arguments, **options),
            results(axis_norm, *arguments, **options), FLOAT32)
