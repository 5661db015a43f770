"""axis_norm's Triton kernels, interpreted on the CPU and, with -m cuda, compiled on a GPU."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from geonorm.ops import axis_norm as reference
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

NAMES = ("out", "x", "weight", "bias")
LAST = torch.channels_last_3d


def randn(shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def found_on(device, *arguments, **options):
    """Return the results of the kernels, on the CPU; the layout of x is kept on the way."""
    there = [v.to(device) if isinstance(v, torch.Tensor) else v for v in arguments]
    if "residual" in options:
        options["residual"] = options["residual"].to(device)
    return [each.detach().cpu() for each in results(axis_norm, *there, **options)]


def exact_results(*arguments, residual=None, **options):
    doubles = (v.double() if isinstance(v, torch.Tensor) else v for v in arguments)
    return results(by_torch, *doubles, None if residual is None else residual.double(), **options)


def compare(found, exact, tolerance):
    names = (*NAMES, "residual")[: len(exact)]
    for name, actual, expected in zip(names, found, exact, strict=True):
        assert relative_error(actual, expected) < tolerance, name


def place(x, layout, device):
    """Return x, made by with_layout(layout), on a device with the same strides."""
    if layout == "expanded":
        return x[:1].to(device).expand(x.shape)
    memory = torch.empty(x.untyped_storage().nbytes() // x.element_size(), device=device)
    return memory.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axes", AXES)
def test_output_and_gradients_against_float64(triton_device, poisoned, axes, layout):
    x, (weight, bias), upstream = with_layout(layout), parameters(5), randn(SHAPE)
    there = place(x, layout, triton_device)
    assert there.stride() == x.stride()
    found = found_on(triton_device, there, axes, weight, bias, upstream, eps=0.3)
    compare(found, exact_results(x, axes, weight, bias, upstream, eps=0.3), FLOAT32)
    for actual in found[:2]:
        assert actual.dtype == torch.float32
        assert actual.stride() == torch.empty_like(x).stride()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d", "permuted"])
@pytest.mark.parametrize("affine", [5, (3, 5)])
def test_is_torchs_instance_norm_in_float64(triton_device, poisoned, activation, layout, affine):
    x, (weight, bias) = with_layout(layout, dtype=torch.float64), parameters(affine, torch.float64)
    options = {"activation": activation, "slope": 0.2, "eps": 0.3}
    for axes in ([2], [3, 4], [2, 4]):
        arguments = (x, axes, weight, bias, randn(SHAPE).double())
        compare(found_on(triton_device, *arguments, **options),
                exact_results(*arguments, **options), FLOAT64)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "axes"), [
    ((2, 3, 9), [2]), ((2, 7, 5, 3), [2]), ((2, 7, 5, 3), [2, 3]), ((2, 1, 2, 3, 2, 3), [3, 5]),
    ((1, 3, 1, 1, 40), [2, 3, 4]), ((300, 3, 4), [2]), ((2, 3, 1, 70, 90), [3, 4]),
    ((2, 2, 3, 2, 3, 2, 3), [2, 4, 6]), ((2, 3, 1, 1, 1), [2, 3, 4]), ((0, 3, 4, 5), [2, 3]),
])
@pytest.mark.parametrize("per_instance", [False, True])
def test_other_ranks_sizes_and_affine_per_instance(
        triton_device, poisoned, shape, axes, per_instance):
    x, upstream = randn(shape, 4), randn(shape, 5)
    weight, bias = parameters(shape[:2] if per_instance else shape[1])
    found = found_on(triton_device, x, axes, weight, bias, upstream)
    if x[0:1, 0].numel() <= 1:  # torch refuses one element, of which nothing is left
        assert found[0].shape == shape
        assert all(not tensor.any() for tensor in found[1:3])
        return
    compare(found, exact_results(x, axes, weight, bias, upstream), FLOAT32)


@pytest.mark.parametrize(("shape", "axes"), [
    ((2, 1, 2, 3, 2, 3), [3, 5]), ((1, 3, 1, 1, 40), [2, 3, 4]), ((2, 7, 5, 3), [2]),
    ((0, 3, 4, 5), [2, 3]),
])
@pytest.mark.parametrize("shared", [0, 1])
def test_a_parameter_of_instances_goes_with_one_of_channels(
        triton_device, poisoned, shape, axes, shared):
    x, upstream = randn(shape, 4), randn(shape, 5)
    weight, bias = (parameters(shape[1] if k == shared else shape[:2])[k] for k in range(2))
    found = found_on(triton_device, x, axes, weight, bias, upstream)
    if not len(x):
        assert found[0].shape == shape
        assert not any(tensor.any() for tensor in found)
        return
    compare(found, exact_results(x, axes, weight, bias, upstream), FLOAT32)


@pytest.mark.parametrize(("activation", "share"), [("relu", 0.0), ("leaky_relu", 0.25)])
def test_at_zero_an_activation_lets_through_what_torchs_does(triton_device, activation, share):
    x, upstream = torch.full((2, 3, 8), 5.0), torch.arange(1.0, 49).view(2, 3, 8)
    found = found_on(triton_device, x, [2], torch.ones(3), torch.zeros(3), upstream,
                     activation=activation, slope=0.25)
    assert torch.equal(found[3], share * upstream.sum((0, 2)))


@pytest.mark.parametrize(("shape", "memory_format", "tiles", "grid"), [
    ((1, 2, 2, 90, 91), torch.contiguous_format, {"CHUNK": 8192, "TILE_P": 2048, "TILE_Q": 1},
     [2, 2]),
    ((2, 5, 4, 8, 8), LAST, {"CHUNK": 128, "TILE_P": 32, "TILE_Q": 16}, [1, 2]),
    ((1, 5, 4, 47, 47), LAST, {"CHUNK": 128, "TILE_P": 32, "TILE_Q": 8}, [1, 70]),
    ((300, 3, 1, 2, 2), torch.contiguous_format, {"TILE_P": 4, "TILE_Q": 16}, [57, 1]),
    # Of 256 programs each has a part of an instance; more have instances enough.
    ((128, 2, 1, 1, 20_000), torch.contiguous_format,
     {"CHUNK": 8192, "TILE_P": 2048, "TILE_Q": 1}, [256, 3]),
    ((257, 1, 1, 1, 20_000), torch.contiguous_format, {"TILE_P": 2048, "TILE_Q": 1}, [257, 1]),
    ((1, 2, 8, 1024, 1024), torch.contiguous_format,
     {"CHUNK": 16384, "TILE_P": 2048, "TILE_Q": 1}, [2, 512]),
])
def test_how_the_work_is_cut(triton_device, shape, memory_format, tiles, grid):
    x = torch.empty(shape, device="meta").to(memory_format=memory_format)
    lie = import_module("geonorm.ops.triton.axis_norm")._Layout(x, [2, 3, 4])
    assert (lie.tiles, lie.grid) == (tiles, grid)


def test_chunks_of_several_merging_tiles_are_merged(triton_device):
    """Three instances of 517 values, in 130 chunks of four, the last of one."""
    module = import_module("geonorm.ops.triton.axis_norm")
    x = (randn((517, 3)).double() * 3 + 7).to(triton_device)
    parts = (x - x[0]).split(4)
    means, sums = (torch.stack([of(part) for part in parts])
                   for of in (lambda part: part.mean(0), lambda part: part.sum(0)))
    squares = torch.stack([(part - part.mean(0)).square().sum(0) for part in parts])
    shift, mean, rstd = (x.new_empty(3) for _ in range(3))
    module.launch(module.merge_moments, [1], x, means, squares, shift, mean, rstd, 3, 517, 3, 130,
                  EPS=0.3, CHUNK=4, **module.MERGE)
    assert torch.equal(shift, x[0])
    torch.testing.assert_close(mean, (x - x[0]).mean(0))
    torch.testing.assert_close(rstd, (x.var(0, correction=0) + 0.3).rsqrt())
    of_sums, of_squares = (x.new_empty(3) for _ in range(2))
    module.launch(module.merge_products, [1], sums, squares, of_sums, of_squares, 3, 517, 3, 130,
                  CHUNK=4, **module.MERGE)
    torch.testing.assert_close(of_sums, (x - x[0]).sum(0))
    torch.testing.assert_close(of_squares, squares.sum(0))


def test_powers_of_two_and_what_follows(triton_device):
    tiles = import_module("geonorm.ops.triton.tiles")
    given = [(0, 1, 8), (1, 1, 8), (2, 1, 8), (3, 1, 8), (8, 1, 8), (9, 1, 8), (3, 16, 64)]
    assert [tiles.power_of_2(*each) for each in given] == [1, 1, 2, 4, 8, 8, 16]
    assert tiles.tail("relu", 0.2) == {"ACTIVATION": "relu", "SLOPE": 0.0}
    assert tiles.tail("leaky_relu", 0.2) == {"ACTIVATION": "leaky_relu", "SLOPE": 0.2}
    with pytest.raises(ValueError, match="none, relu or leaky_relu; got gelu"):
        tiles.tail("gelu", 0.2)


@pytest.mark.parametrize(("shape", "memory_format", "mean"), [
    ((1, 2, 2, 90, 91), torch.contiguous_format, 0.0),  # two chunks of an instance
    ((1, 2, 2, 90, 91), torch.contiguous_format, 1e4),
    ((2, 5, 4, 8, 8), LAST, 0.0), ((2, 5, 4, 8, 8), LAST, 1e4),
    # 70, more than a merging tile
    pytest.param((1, 5, 4, 47, 47), LAST, 1e4, marks=pytest.mark.slow),
])
def test_instances_cut_into_chunks(triton_device, poisoned, shape, memory_format, mean):
    x = (randn(shape, 4) + mean).to(memory_format=memory_format)
    weight, bias = parameters(shape[:2])
    arguments = (x, [2, 3, 4], weight, bias, randn(shape, 5).to(memory_format=memory_format))
    options = {"eps": 0.3, "activation": "none" if mean else "leaky_relu", "slope": 0.2}
    compare(found_on(triton_device, *arguments, **options), exact_results(*arguments, **options),
            FLOAT32)


@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize(("layout", "other"), [
    ("contiguous", "contiguous"), ("channels_last_3d", "channels_last_3d"),
    ("contiguous", "channels_last_3d"), ("channels_last_3d", "sliced"), ("permuted", "expanded"),
])
@pytest.mark.parametrize("axes", [[2, 3, 4], [2, 4]])
def test_a_residual_is_added_before_the_activation(
        triton_device, poisoned, axes, layout, other, activation):
    x = with_layout(layout, mean=1e4)
    options = {"activation": activation, "slope": 0.2, "residual": with_layout(other).flip(0, 4)}
    arguments = (x, axes, *parameters((3, 5)), randn(SHAPE))
    found = found_on(triton_device, *arguments, **options)
    compare(found, exact_results(*arguments, **options), FLOAT32)
    assert found[0].stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_residual_of_instances_cut_into_chunks(triton_device, poisoned, dtype):
    shape = (1, 2, 2, 90, 91)
    x, residual = randn(shape, 4).to(dtype), randn(shape, 6).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    there = [t.to(triton_device) for t in parameters(2, wide)]
    found = axis_norm(x.to(triton_device), [2, 3, 4], *there, activation="relu",
                      residual=residual.to(triton_device)).cpu()
    apart = (axis_norm(x.to(triton_device), [2, 3, 4], *there).cpu() + residual).relu()
    exact = by_torch(x.double(), [2, 3, 4], *(p.double() for p in parameters(2, wide)),
                     activation="relu", residual=residual.double())
    limit = FLOAT64 if dtype == torch.float64 else relative_error(apart, exact)
    assert relative_error(found, exact) < limit


@pytest.mark.parametrize("axes", [[2], [2, 4], [2, 3, 4]])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_statistics_are_the_references(triton_device, poisoned, axes, layout):
    x = with_layout(layout, mean=1e4)
    there = place(x, layout, triton_device)
    found = torch.ops.geonorm.axis_norm(there, axes, None, None, 1e-3, "none", 0.0)
    exact = reference.forward(x.double(), axes, None, None, 1e-3, "none", 0.0)
    template = torch.empty_like(reference.first(there, axes))
    assert torch.equal(found[1].cpu().double(), exact[1])
    for actual, expected in zip(found[1:], exact[1:], strict=True):
        assert actual.stride() == template.stride()
        assert relative_error(actual.cpu(), expected) < FLOAT32


@pytest.mark.parametrize("chosen", [(0,), (1,), (0, 1)])
def test_without_weight_or_bias(triton_device, poisoned, chosen):
    x, upstream = with_layout("channels_last_3d"), randn(SHAPE)
    weight, bias = (None if k in chosen else p for k, p in enumerate(parameters(5)))
    leaf, double = x.to(triton_device).requires_grad_(), x.double().requires_grad_()
    there = (p if p is None else p.to(triton_device) for p in (weight, bias))
    out = axis_norm(leaf, [3, 4], *there)
    (grad,) = torch.autograd.grad(out, leaf, upstream.to(triton_device))
    expected = by_torch(double, [3, 4], weight, bias)
    (exact,) = torch.autograd.grad(expected, double, upstream.double())
    assert relative_error(out.cpu(), expected) < FLOAT32
    assert relative_error(grad.cpu(), exact) < FLOAT32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d", "sliced"])
def test_half_precision_within_twice_torchs_error(triton_device, poisoned, dtype, layout):
    x, (weight, bias) = with_layout(layout).to(dtype), parameters(5)
    upstream = randn(SHAPE).to(dtype)
    found = found_on(triton_device, x, [2, 3, 4], weight, bias, upstream)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    low = results(by_torch, x, [2, 3, 4], weight.to(dtype), bias.to(dtype), upstream)
    exact = exact_results(x, [2, 3, 4], weight, bias, upstream)
    for ours, torchs, expected in zip(found, low, exact, strict=True):
        assert relative_error(ours, expected) <= 2 * relative_error(torchs, expected)


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_a_large_mean_costs_no_more_than_in_torch(triton_device, mean):
    x = with_layout("contiguous", mean=mean)
    exact = by_torch(x.double(), [2, 3, 4])
    ours = relative_error(axis_norm(x.to(triton_device), [2, 3, 4]).cpu(), exact)
    assert ours <= max(relative_error(F.instance_norm(x), exact), FLOAT32)


@pytest.mark.parametrize("axes", [[2], [2, 3, 4]])
def test_one_element_and_constant_instances_give_the_bias_and_finite_gradients(
        triton_device, poisoned, axes):
    weight, bias = parameters(5)
    for x in (torch.randn(3, 5, 1, 1, 1), torch.full(SHAPE, 7e4), torch.zeros(SHAPE)):
        out, *gradients = found_on(triton_device, x, axes, weight, bias, torch.randn(x.shape))
        assert torch.equal(out, bias[:, None, None, None].expand_as(out))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert not gradients[1].any()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # by numpy
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
def test_a_broken_clip_stays_alone(triton_device, poisoned, activation):
    x, upstream = with_layout("channels_last_3d"), randn(SHAPE)
    broken = x.clone()
    broken[1, :, 0, 2, 3] = torch.nan
    whole, found = (found_on(triton_device, v, [2, 3, 4], *parameters(5), upstream,
                             activation=activation)[:2] for v in (x, broken))
    for one, other in zip(found, whole, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])
        assert one[1].isnan().all()


@pytest.mark.parametrize(("shape", "memory_format"), [
    ((1, 5, 4, 47, 47), torch.contiguous_format),  # 2 chunks
    pytest.param((1, 5, 4, 24, 24), LAST, marks=pytest.mark.slow),  # 18
])
def test_two_runs_are_bit_equal(triton_device, poisoned, shape, memory_format):
    x = randn(shape).to(memory_format=memory_format)
    arguments = (x, [2, 3, 4], *parameters(5), randn(x.shape, 5))
    for one, other in zip(found_on(triton_device, *arguments),
                          found_on(triton_device, *arguments), strict=True):
        assert torch.equal(one, other)


# opcheck itself reads .grad of the non-leaf copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("layout", ["channels_last_3d", "sliced"])
def test_opcheck_and_one_graph(triton_device, layout):
    x = place(with_layout(layout), layout, triton_device).requires_grad_()
    weight, bias, upstream = (t.to(triton_device) for t in (*parameters((3, 5)), randn(SHAPE)))
    torch.library.opcheck(
        torch.ops.geonorm.axis_norm, (x, [2, 4], weight, bias, 1e-5, "leaky_relu", 0.1))
    torch.compiler.reset()
    compiled = torch.compile(axis_norm, fullgraph=True, backend="aot_eager")
    given = (x, [2, 3, 4], weight, bias, upstream)
    for one, other in zip(results(compiled, *given), results(axis_norm, *given), strict=True):
        assert torch.equal(one, other)
