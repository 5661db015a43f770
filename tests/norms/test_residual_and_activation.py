"""A residual and an activation after every norm: what adding and applying them apart gives."""

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch.nn import functional

from geonorm import AxisInstanceNorm
from geonorm.norms.no_norm import NoNorm
from helpers.norm_family_cases import CHANNELS, NORMS, build, example, refill, values

FLOAT32 = TOLERANCES["float32 against float64"]
SLOPE = 0.3  # not the default
FUNCTIONS = {
    None: lambda x: x, "relu": torch.relu, "leaky_relu": lambda x: functional.leaky_relu(x, SLOPE),
}


def norm_named(name, **options):
    return NoNorm(CHANNELS, **options) if name == "NoNorm" else build(name, **options)


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("kind", ["SparseTensor", "index", "5-D"])
@pytest.mark.parametrize("name", [*NORMS, "NoNorm"])
def test_they_follow_the_norm(name, kind, activation):
    x, features, _ = example(kind)
    # Centred, so that the activation meets both signs, and unlike what is normalized.
    other = torch.randn(features.shape, generator=torch.Generator().manual_seed(4)) * 4
    upstream = torch.randn(features.shape, generator=torch.Generator().manual_seed(5))

    def results(run):
        leaf, residual = (t.detach().clone().requires_grad_() for t in (features, other))
        out, parameters = run(leaf, residual)
        return out, *torch.autograd.grad(out, [leaf, residual, *parameters], upstream)

    def fused(leaf, residual):
        norm = norm_named(name, activation=activation, negative_slope=SLOPE)
        out = norm(refill(x, leaf), residual=refill(x, residual))
        assert type(out) is type(x)
        return values(out), norm.parameters()

    def apart(leaf, residual):
        norm = norm_named(name)
        return FUNCTIONS[activation](values(norm(refill(x, leaf))) + residual), norm.parameters()

    for found, expected in zip(results(fused), results(apart), strict=True):
        assert relative_error(found, expected) < FLOAT32
    assert (values(norm_named(name)(x)) + other < 0).float().mean() > 0.1


@pytest.mark.parametrize("name", [*NORMS, "NoNorm"])
def test_the_slope_is_that_of_torch_where_none_is_given(name):
    x, features, _ = example("5-D")
    other = torch.randn(features.shape, generator=torch.Generator().manual_seed(4)) * 4
    plain = norm_named(name)(x) + other
    found = norm_named(name, activation="leaky_relu")(x, residual=other)
    assert relative_error(found, functional.leaky_relu(plain)) < FLOAT32
    assert (plain < 0).float().mean() > 0.1


@pytest.mark.parametrize("kind", ["index", "5-D", "channels last"])
@pytest.mark.parametrize("name", [*NORMS, "NoNorm"])
def test_a_wider_residual_widens_the_result(name, kind):
    x, features, _ = example("5-D" if kind == "channels last" else kind)
    if kind == "channels last":
        x = features = features.to(memory_format=torch.channels_last_3d)
    other = torch.randn(features.shape, dtype=torch.float64) * 4
    found = values(norm_named(name)(x, residual=other))
    assert found.dtype == torch.float64
    assert found.stride() == features.stride()
    # In float64 to the last digits, where sums of float32 would have lost them.
    assert relative_error(found, values(norm_named(name)(x)) + other) < FLOAT32
    assert not torch.equal(found, found.float().double())
    half, norm = refill(x, features.bfloat16()), norm_named(name).bfloat16()
    assert values(norm(half, residual=other.bfloat16())).dtype == torch.bfloat16
    assert values(norm(half, residual=other.float())).dtype == torch.float32


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("layout", ["BCFT", "BTCF", "TFBC"])
def test_they_follow_the_norm_over_axes_in_any_layout(layout, activation):
    sizes = {"B": 2, "C": 3, "F": 4, "T": 5}
    shape = [sizes[letter] for letter in layout]
    x, y = (torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    plain = AxisInstanceNorm(3, layout=layout, axes="T")
    fused = AxisInstanceNorm(3, layout=layout, axes="T", activation=activation,
                             negative_slope=SLOPE)  # fmt: skip
    expected = FUNCTIONS[activation](plain(x) + y)
    assert relative_error(fused(x, residual=y), expected) < FLOAT32
    batch = layout.index("B")
    one = fused(x.select(batch, 1), residual=y.select(batch, 1))
    assert relative_error(one, expected.select(batch, 1)) < FLOAT32


def test_a_residual_of_another_shape_is_refused():
    norm = AxisInstanceNorm(3, layout="BTC", axes="T")
    with pytest.raises(ValueError, match=r"the shape of x, \(2, 5, 3\); got \(2, 3, 5\)"):
        norm(torch.randn(2, 5, 3), residual=torch.randn(2, 3, 5))
    for name in NORMS:
        x, features, _ = example("5-D")
        with pytest.raises(ValueError, match=r"the shape of the features, .*; got \(6, 3"):
            norm_named(name)(x, residual=features.transpose(0, 1))
