"""axis_norm under autograd and torch.compile: derivatives of three orders, opcheck, one graph."""

import pytest
import torch
from conftest import relative_error

from geonorm import SpatioTemporalInstanceNorm
from helpers.axis_norm_cases import (
    FLOAT32,
    LAYOUTS,
    SHAPE,
    axis_norm,
    parameters,
    results,
    with_layout,
)


@pytest.mark.parametrize("per_instance", [False, True])
@pytest.mark.parametrize(("activation", "axes"), [
    ("none", [2]), ("none", [2, 3, 4]), ("relu", [3, 4]), ("leaky_relu", [2, 4]),
])
def test_gradcheck_and_gradgradcheck(backend, activation, axes, per_instance):
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(2, 2, 2, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight, bias = parameters((2, 2) if per_instance else 2, torch.float64)
    inputs = (x, weight.requires_grad_(), bias.requires_grad_())

    def function(*args):
        return axis_norm(args[0], axes, *args[1:], eps=0.1, activation=activation, slope=0.3)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_third_derivative_is_the_references(backend):
    def third(function):
        x = torch.linspace(-1, 2, 12, dtype=torch.float64).pow(3).reshape(1, 2, 6).requires_grad_()
        value = (function(x, [2]) ** 3).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = gradient.pow(2).sum()
        return gradient

    def formula(x, axes):
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt()

    assert relative_error(third(axis_norm), third(formula)) < 1e-8


# opcheck itself reads .grad of the non-leaf copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(("layout", "affine"), [
    *((layout, "shared") for layout in LAYOUTS),
    ("contiguous", "none"), ("channels_last_3d", "per instance"),
])
def test_opcheck(backend, layout, affine):
    x = with_layout(layout).requires_grad_()
    weight = bias = None
    if affine != "none":
        weight, bias = (p.requires_grad_() for p in parameters((3, 5)[affine == "shared":]))
    torch.library.opcheck(
        torch.ops.geonorm.axis_norm, (x, [2, 4], weight, bias, 1e-5, "leaky_relu", 0.1))
    with torch.no_grad():
        out, *stats = torch.ops.geonorm.axis_norm(x, [2, 4], weight, bias, 1e-5, "none", 0.0)
        inputs = [None if p is None else p.detach() for p in (weight, bias)]
        torch.library.opcheck(
            torch.ops.geonorm.axis_norm_backward,
            (out, x.detach(), *stats, [2, 4], *inputs, "relu", 0.0))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d", "sliced"])
def test_compiles_into_one_graph(backend, layout):
    torch.compiler.reset()
    x, (weight, bias) = with_layout(layout), parameters(5)
    upstream = torch.randn(SHAPE)
    compiled = torch.compile(axis_norm, fullgraph=True, backend="aot_eager")
    found = results(compiled, x, [2, 3, 4], weight, bias, upstream)
    eager = results(axis_norm, x, [2, 3, 4], weight, bias, upstream)
    for one, other in zip(found, eager, strict=True):
        assert relative_error(one, other) < FLOAT32
    assert found[0].stride() == eager[0].stride()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_output_may_be_changed_in_place(backend, memory_format):
    x = torch.randn(2, 3, 2, 4, 4).to(memory_format=memory_format).requires_grad_()
    norm = SpatioTemporalInstanceNorm(3)
    torch.nn.functional.relu(norm(x), inplace=True).square().sum().backward()
    grad, x.grad = x.grad, None
    torch.nn.functional.relu(norm(x)).square().sum().backward()
    assert torch.equal(grad, x.grad)
