"""axis_norm: the reference against torch, every kernel against float64, and what it removes."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from conftest import TOLERANCES, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from geonorm.ops import axis_norm as reference
from geonorm.ops.backends import force_backend
from helpers.axis_norm_cases import (
    AXES,
    FLOAT32,
    FLOAT64,
    LAYOUTS,
    SHAPE,
    axis_norm,
    by_torch,
    parameters,
    results,
    with_layout,
)


def test_worked_by_hand(backend):
    x = torch.tensor([[[1.0, 3.0], [10.0, 10.0]]])  # means 2 and 10, variances 1 and 0
    out = axis_norm(x, [2], torch.tensor([2.0, 5.0]), torch.tensor([0.5, -1.0]), eps=0.0001)
    expected = torch.tensor([[[0.5 - 2 / 1.0001**0.5, 0.5 + 2 / 1.0001**0.5], [-1.0, -1.0]]])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("axes", AXES)
def test_reference_is_torchs_instance_norm_in_float64(axes):
    x = with_layout("contiguous", dtype=torch.float64)
    out = reference.forward(x, axes, None, None, 1e-5, "none", 0.01)[0]
    assert relative_error(out, by_torch(x, axes)) < FLOAT64


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axes", AXES)
def test_output_and_gradients_against_float64(backend, poisoned, axes, layout):
    x, (weight, bias) = with_layout(layout), parameters(5)
    upstream = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    found = results(axis_norm, x, axes, weight, bias, upstream, eps=0.3)
    exact = results(by_torch, *(t if isinstance(t, list) else t.double()
                                for t in (x, axes, weight, bias, upstream)), eps=0.3)
    for name, actual, expected in zip(("out", "x", "weight", "bias"), found, exact, strict=True):
        assert relative_error(actual, expected) < FLOAT32, name
        assert actual.dtype == torch.float32, name
    for actual in found[:2]:
        assert actual.stride() == torch.empty_like(x).stride()


# Instances that are cut among the threads, with a rest that fills no vector; several per thread;
# and rows of channels, whose parts are merged.
@pytest.mark.parametrize(("shape", "axes", "memory_format"), [
    ((1, 2, 8, 101, 131), [2, 3, 4], torch.contiguous_format),
    ((8, 5, 3, 40, 41), [2, 3, 4], torch.contiguous_format),
    ((3, 7, 2, 60, 61), [3, 4], torch.channels_last_3d),
])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_instances_are_put_together_from_all_threads(
        backend, threads, poisoned, shape, axes, memory_format, activation):
    x, upstream = (torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in (4, 5))
    x = x.add(torch.linspace(3, 5, shape[-1])).contiguous(memory_format=memory_format)
    weight, bias = parameters(shape[1])
    options = {"activation": activation, "eps": 0.3 if activation == "none" else 1e-5}
    found = results(axis_norm, x, axes, weight, bias, upstream, **options)
    exact = results(by_torch, *(t if isinstance(t, list) else t.double()
                                for t in (x, axes, weight, bias, upstream)), **options)
    for name, actual, expected in zip(("out", "x", "weight", "bias"), found, exact, strict=True):
        assert relative_error(actual, expected) < FLOAT32, name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_memory_format_stays(backend, memory_format):
    x = torch.randn(2, 4, 3, 5, 6).contiguous(memory_format=memory_format)
    assert axis_norm(x, [2, 3, 4]).is_contiguous(memory_format=memory_format)
    if memory_format == torch.channels_last_3d:  # the control: torch's own loses it
        assert not F.instance_norm(x).is_contiguous(memory_format=memory_format)


def test_results_are_laid_out_as_a_tensor_like_the_input():
    """In any order of the dimensions, as torch.compile takes it for granted: the reference too."""
    with force_backend("reference"):
        for order in permutations(range(5)):
            whole = torch.randn(4, 6, 4, 8, 10).permute(order)
            for x in (whole, whole[..., ::2], whole[:, :, ::9]):
                for axes in ([2], [4], [3, 4]):
                    leaf = x.detach().requires_grad_()
                    out = axis_norm(leaf, axes)
                    assert out.stride() == torch.empty_like(x).stride(), (order, axes)
                    grad, = torch.autograd.grad(out, leaf, torch.randn_like(out))
                    assert grad.stride() == torch.empty_like(x).stride(), (order, axes)


@pytest.mark.parametrize(("shape", "axes"), [
    ((2, 3, 9), [2]), ((2, 7, 5, 3), [2]), ((2, 7, 5, 3), [2, 3]), ((2, 1, 2, 3, 2, 3), [3, 5]),
    ((1, 3, 1, 1, 40), [2, 3, 4]), ((300, 3, 4), [2]), ((2, 3, 1, 70, 90), [3, 4]),
    ((0, 3, 4, 5), [2, 3]),
])
@pytest.mark.parametrize("per_instance", [False, True])
def test_other_ranks_sizes_and_affine_per_instance(backend, poisoned, shape, axes, per_instance):
    x, upstream = (torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in (4, 5))
    weight, bias = parameters(shape[:2] if per_instance else shape[1])
    found = results(axis_norm, x, axes, weight, bias, upstream, eps=0.3)
    if shape[0] == 0:
        assert found[0].shape == shape
        assert all(not tensor.any() for tensor in found[2:])
        return
    exact = results(by_torch, *(t if isinstance(t, list) else t.double()
                                for t in (x, axes, weight, bias, upstream)), eps=0.3)
    for actual, expected in zip(found, exact, strict=True):
        assert relative_error(actual, expected) < FLOAT32


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d"])
def test_fused_activation_is_the_unfused_one(backend, layout, activation):
    x, (weight, bias) = with_layout(layout), parameters((3, 5))
    upstream = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))

    def unfused(*args):
        out = axis_norm(*args)
        return F.relu(out) if activation == "relu" else F.leaky_relu(out, 0.2)

    fused = results(axis_norm, x, [2, 3, 4], weight, bias, upstream,
                    activation=activation, slope=0.2)
    plain = results(unfused, x, [2, 3, 4], weight, bias, upstream)
    linear = results(axis_norm, x, [2, 3, 4], weight, bias, upstream)
    for one, other, control in zip(fused, plain, linear, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert relative_error(control, other) > 0.1


@pytest.mark.parametrize(("activation", "share"), [("relu", 0.0), ("leaky_relu", 0.25)])
def test_at_zero_an_activation_lets_through_what_torchs_does(backend, activation, share):
    x, upstream = torch.full((2, 3, 40), 5.0), torch.arange(1.0, 241).view(2, 3, 40)
    options = {"activation": activation, "slope": 0.25}
    plain = torch.ones(3), torch.zeros(3)
    found = results(axis_norm, x, [2], *plain, upstream, **options)
    assert torch.equal(found[3], share * upstream.sum((0, 2)))
    found = results(axis_norm, x, [2], *plain, upstream, residual=torch.zeros_like(x), **options)
    assert torch.equal(found[4], share * upstream)


@pytest.mark.parametrize("shared", [0, 1])
def test_a_parameter_of_instances_goes_with_one_of_channels(backend, poisoned, shared):
    x, upstream = with_layout("contiguous"), torch.linspace(-1, 2, 2520).sin().view(SHAPE)
    weight, bias = (parameters(5 if k == shared else (3, 5))[k] for k in range(2))
    found = results(axis_norm, x, [2, 4], weight, bias, upstream)
    exact = results(by_torch, x.double(), [2, 4], weight.double(), bias.double(), upstream.double())
    for actual, expected in zip(found, exact, strict=True):
        assert relative_error(actual, expected) < FLOAT32


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_types_and_strides_are_known_without_values(backend, dtype):
    x = with_layout("permuted").to(dtype)
    weight, bias = parameters(5, torch.promote_types(dtype, torch.float32))
    options = ([2, 4], weight, bias)
    there = ([2, 4], weight.to("meta"), bias.to("meta"))
    found = torch.ops.geonorm.axis_norm(x, *options, 1e-5, "relu", 0.0)
    known = torch.ops.geonorm.axis_norm(x.to("meta"), *there, 1e-5, "relu", 0.0)
    grads = torch.ops.geonorm.axis_norm_backward(x, x, *found[1:], *options, "relu", 0.0)
    expected = torch.ops.geonorm.axis_norm_backward(
        x.to("meta"), x.to("meta"), *known[1:], *there, "relu", 0.0)
    for one, other in zip((*found, *grads), (*known, *expected), strict=True):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_a_large_mean_costs_no_more_than_in_torch(backend, mean):
    x = with_layout("contiguous", mean=mean)
    exact = by_torch(x.double(), [2, 3, 4])
    ours = relative_error(axis_norm(x, [2, 3, 4]), exact)
    assert ours <= max(relative_error(F.instance_norm(x), exact), FLOAT32)
    one_pass = (x.square().mean((2, 3, 4), True) - x.mean((2, 3, 4), True).square() + 1e-5)
    if mean >= 1e4:  # the control: a variance as E[x²] − E[x]² has no digits left
        naive = (x - x.mean((2, 3, 4), True)) * one_pass.clamp(min=1e-5).rsqrt()
        assert relative_error(naive, exact) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d", "sliced"])
def test_half_precision_within_twice_torchs_error(backend, dtype, layout):
    x, (weight, bias) = with_layout(layout).to(dtype), parameters(5)
    upstream = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)).to(dtype)
    found = results(axis_norm, x, [2, 3, 4], weight, bias, upstream)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    low = results(by_torch, x, [2, 3, 4], weight.to(dtype), bias.to(dtype), upstream)
    exact = results(by_torch, x.double(), [2, 3, 4], weight.double(), bias.double(),
                    upstream.double())
    for ours, torchs, expected in zip(found, low, exact, strict=True):
        assert relative_error(ours, expected) <= 2 * relative_error(torchs, expected)


@pytest.mark.parametrize("axes", [[2], [2, 3, 4]])
def test_one_element_and_constant_instances_give_the_bias_and_finite_gradients(backend, axes):
    weight, bias = parameters(5)
    for x in (torch.randn(3, 5, 1, 1, 1), torch.full(SHAPE, 7e4), torch.zeros(SHAPE)):
        out, *gradients = results(axis_norm, x, axes, weight, bias, torch.randn(x.shape))
        assert torch.equal(out, bias[:, None, None, None].expand_as(out))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert not gradients[1].any()


def test_statistics_carry_no_gradient(backend):
    x = torch.randn(2, 3, 4, requires_grad=True)
    out, *stats = torch.ops.geonorm.axis_norm(x, [2], None, None, 1e-5, "none", 0.0)
    assert out.requires_grad
    assert not any(stat.requires_grad for stat in stats)
    for parameter, index in ((None, 1), (torch.ones(3), 1), (torch.ones(2, 3), 2)):
        gradients = torch.ops.geonorm.axis_norm_backward(
            out.detach(), x.detach(), *stats, [2], parameter, None, "none", 0.0)
        shape = (0,) if parameter is None else parameter.shape
        assert gradients[1].shape == shape, index
        assert gradients[2].shape == (0,)


def test_two_runs_are_bit_equal(backend, poisoned):
    x, (weight, bias) = with_layout("channels_last_3d"), parameters(5)
    upstream = torch.randn(SHAPE)
    runs = [results(axis_norm, x, [3, 4], weight, bias, upstream) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


GAINS = st.floats(0.05, 20.0)


@settings(max_examples=25, deadline=None)
@given(gain=GAINS, offset=st.floats(-20, 20), clip=st.integers(0, 2), seed=st.integers(0, 99))
def test_gain_and_offset_of_one_clip_are_removed(gain, offset, clip, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    changed = x.clone()
    changed[clip] = changed[clip] * gain + offset
    before, after = (axis_norm(v, [2, 3, 4], eps=1e-12) for v in (x, changed))
    assert relative_error(after, before) < TOLERANCES["gain and offset"]
    others = [index for index in range(3) if index != clip]
    assert torch.equal(after[others], before[others])


def test_batch_and_layer_norm_move_under_the_gain_of_one_clip():
    x = with_layout("contiguous")
    changed = x.clone()
    changed[1] = changed[1] * torch.linspace(0.5, 3, 5)[:, None, None, None] + 2
    norms = {
        "ours": lambda v: axis_norm(v, [2, 3, 4], eps=1e-9),
        "batch": lambda v: F.batch_norm(v, None, None, training=True),
        "layer": lambda v: F.layer_norm(v, v.shape[1:]),
    }
    moved = {name: relative_error(norm(changed), norm(x)) for name, norm in norms.items()}
    assert moved.pop("ours") < TOLERANCES["gain and offset"]
    assert min(moved.values()) > 0.1


@pytest.mark.parametrize(("axes", "gain_shape", "control"), [
    ([3, 4], (3, 1, 4, 1, 1), [2, 3, 4]),  # flicker: one gain per frame
    ([2], (3, 1, 1, 6, 7), [2, 3, 4]),  # a gain per position, constant in time
])
def test_each_subset_of_axes_removes_the_gain_constant_along_it(backend, axes, gain_shape, control):
    x = with_layout("contiguous")
    gain = torch.rand(gain_shape, generator=torch.Generator().manual_seed(7)) * 3 + 0.2
    assert relative_error(axis_norm(x * gain, axes, eps=1e-9), axis_norm(x, axes, eps=1e-9)) < 1e-5
    assert relative_error(axis_norm(x * gain, control), axis_norm(x, control)) > 0.1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_order_along_the_axes_does_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    order = torch.randperm(SHAPE[2], generator=generator)
    assert relative_error(axis_norm(x[:, :, order], [2, 4]), axis_norm(x, [2, 4])[:, :, order]
                          ) < FLOAT64
